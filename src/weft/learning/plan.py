"""The runs behind `weft learn`: the one that answers, and its rivals. Loads without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weft.config.base import Split
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.config.training import LimitsConfig, OptimConfig, PromptConfig
from weft.errors import ConfigError
from weft.methods import Method
from weft.methods.frozen_features import FrozenFeatures
from weft.methods.majority import Majority
from weft.methods.no_prompt import NoPrompt
from weft.methods.prompt_tuning import PromptTuning
from weft.methods.tfidf import TfIdf
from weft.methods.weft import Weft
from weft.runs import bundled
from weft.runs.config import AdaptRun, EvaluateRun

ENCODERS = Weft().also_reads
FOLDS = 5
SCORED = 500  # rows that are cross-validated; of more always the same ones
TOKENS = 256  # of a text, where nobody says otherwise
STEPS, BATCH, LENGTH = 80, 12, 16  # of a prompt that is trained
RATE, NEAREST_RATE = 0.1, 0.3  # from words, and from a source prompt (docs/decisions/0005-demo-settings.md)
MIDDLE = 1 / 3  # of the depth: the layer whose mean state is the rival's features


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        run: what answers.
        label: its name among the scores.
        scored: label -> a score on rows that had no part in what is scored, that of the run's method first;
            of a run that is trained by gradient, the rivals alone (see `of_run`).
    """

    run: AdaptRun
    label: str
    scored: dict[str, EvaluateRun]


def closed(run: AdaptRun, reader: Mapping[str, Any], *, folds: int) -> Plan:
    """A run of `method: weft`, and its rivals on the same folds: every row is answered by what others made.

    Args:
        run: on all rows.
        reader: settings of the part of the base model that reads texts.
        folds: how many.
    """
    rivals: dict[str, Method] = {
        "frozen features + LR": FrozenFeatures(layers=_middle(reader), poolings=("mean",)),
        "TF-IDF + LR": TfIdf(),
        "majority": Majority(),
    }
    own = _scored(run, run.method, "train", folds=folds, source=run.source, teachers=run.teachers)
    others = {label: _scored(run, method, "train", folds=folds) for label, method in rivals.items()}
    return Plan(run, "weft", {"weft": own, **others})


def tokens_of(wanted: int) -> int:
    """The longest text.

    Raises:
        ConfigError: if that has no token.
    """
    if wanted < 1:
        cause = f"texts of {wanted} tokens are none to learn from"
        raise ConfigError(cause, where="--tokens, tokens", fix="ask for 1 or more")
    return wanted


def weft(
    spec: TaskSpec, base: BaseConfig, *, seed: int, quick: bool = False, tokens: int = TOKENS
) -> AdaptRun:
    """`method: weft` on a task's rows, under the source prompts that come with weft for the base, if any do.

    Args:
        spec: the task.
        base: the base model.
        seed: of what is drawn, folds among it.
        quick: read bare texts alone, without the source prompts.
        tokens: longest text.
    """
    limits = LimitsConfig(source_tokens=tokens)
    return AdaptRun(tasks=(spec,), base=base, seed=seed, limits=limits, **_weft(base, quick))


def trained(spec: TaskSpec, base: BaseConfig, *, seed: int, peft: bool, tokens: int = TOKENS) -> Plan:
    """A prompt that is trained by gradient, scored on the test rows beside the bare model and the majority.

    Args:
        spec: the task, with test rows.
        base: the base model. Where teachers come with weft for it, the prompt starts at the nearest.
        seed: of training.
        peft: the prompt stands before the text, as PEFT holds it, and starts from words.
        tokens: longest text.
    """
    run = AdaptRun.model_validate(
        {
            "tasks": (spec,),
            "base": base,
            "seed": seed,
            "limits": {"source_tokens": tokens},
            **_prompt(base, peft),
        }
    )
    rivals: dict[str, Method] = {"bare model": NoPrompt(), "majority": Majority()}
    others = {label: _scored(run, method, "test") for label, method in rivals.items()}
    label = "prompt tuning" if run.source is None and not run.teachers else "SPoT"
    return Plan(run, label, others)


def of_run(plan: Plan, run: str) -> dict[str, EvaluateRun]:
    """The scores of a plan whose run is trained and has a name."""
    own = plan.run
    fields = {name: getattr(own, name) for name in ("base", "prompt", "limits", "tasks", "seed")}
    return {plan.label: EvaluateRun(**fields, run=run, split="test"), **plan.scored}


def _scored(run: AdaptRun, method: Method, split: Split, **cross: Any) -> EvaluateRun:
    fields = {name: getattr(run, name) for name in ("base", "prompt", "tasks", "seed")}
    limits = run.limits.model_copy(update={"test_rows": SCORED})
    return EvaluateRun.model_validate(
        {**fields, "limits": limits, "method": method, "split": split, "generate": not cross, **cross}
    )


def _weft(base: BaseConfig, quick: bool) -> dict[str, Any]:
    if quick or base.model not in bundled.known():
        return {"method": Weft(sources=False)}
    source, teachers = bundled.start(base.model)
    return {"method": Weft(), "source": source, "teachers": teachers, "prompt": bundled.prompt(base.model)}


def _prompt(base: BaseConfig, peft: bool) -> dict[str, Any]:
    if peft or base.model not in bundled.known():
        prompt = PromptConfig(length=LENGTH, position="prefix" if peft else "auto")
        optim = OptimConfig(lr={"prompt": RATE}, steps=STEPS, batch_size=BATCH)
        return {"method": PromptTuning(), "prompt": prompt, "optim": optim}
    _, teachers = bundled.start(base.model)
    optim = OptimConfig(lr={"prompt": NEAREST_RATE}, steps=STEPS, batch_size=BATCH)
    method = PromptTuning(start="nearest")
    return {"method": method, "prompt": bundled.prompt(base.model), "optim": optim, "teachers": teachers}


def _middle(reader: Mapping[str, Any]) -> tuple[int, ...]:
    """The layer of the rival's features; none: it chooses among all, where the depth is not known."""
    names = ("num_hidden_layers", "num_layers", "n_layer")
    depth = next((int(reader[name]) for name in names if reader.get(name)), 0)
    return (max(1, round(MIDDLE * depth)),) if depth else ()
