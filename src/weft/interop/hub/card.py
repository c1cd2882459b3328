"""The model card of a run: its data for the hub, and what a reader must know. It holds no row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.interop.hub.loading import REPO, loading
from weft.interop.hub.markdown import DASH, code, front_matter, plain
from weft.interop.hub.released import hub_id
from weft.interop.hub.score_table import result, score_table
from weft.interop.hub.scores import Score
from weft.runs import Run
from weft.runs.config import AdaptRun, AnyRun, SourceRun


@dataclass(frozen=True)
class Told:
    """What a card is made of.

    Attributes:
        run: a finished run, as others get it.
        base: its base model, as others know it.
        scores: its scores.
        repo: the repository's name; empty where there is none yet.
        licence: of the run itself, as the hub spells it; none: not said.
        peft: PEFT's type of the task, if stock PEFT gets the prompt as well; else empty.
    """

    run: Run
    base: BaseConfig
    scores: Sequence[Score]
    repo: str = ""
    licence: str | None = None
    peft: str = ""


def card(told: Told) -> str:
    """The card of a run."""
    config = told.run.config()
    kind = _kind(config)
    own = f"The run itself: {code(told.licence)}." if told.licence else "The run's own licence is not said."
    parts = [
        _data(told, config),
        f"# {kind}: {', '.join(spec.name for spec in config.tasks)}",
        _first(kind, config),
        _base(told.run, told.base),
        "## Load it",
        loading(told.run.id, config, told.base, told.repo or REPO, told.peft),
        "## Scores",
        score_table(told.scores),
        "## Tasks",
        "\n".join(map(task_line, config.tasks)),
        "## Training",
        _training(told.run, config),
        "## What is not in it",
        "The base model, and the rows of the tasks. A licence above is that of the task's data, as its "
        f"publishers state it. {own}",
    ]
    return "\n\n".join(parts) + "\n"


def _data(told: Told, config: AnyRun) -> str:
    kind = "text-classification" if all(spec.labels for spec in config.tasks) else "text-generation"
    specs = {spec.name: spec for spec in config.tasks}
    scored = [one for one in told.scores if one.score is not None]
    hubs = [spec.hub.path for spec in config.tasks if spec.hub and "/" in spec.hub.path]
    known, shared = hub_id(told.base.model), config.made_by is not None and config.made_by.keeps == "bank"
    return front_matter(
        base_model=known,
        base_model_relation="adapter" if known else None,
        library_name="weft",
        license=told.licence,
        pipeline_tag=kind,
        tags=["weft", "prompt-tuning", *["multitask-prompt-tuning"] * shared, *["peft"] * bool(told.peft)],
        datasets=list(dict.fromkeys(hubs)),
        model_name=told.run.id if scored else None,
        eval_results=[result(specs[one.task], one, kind) for one in scored],
    )


def _kind(config: AnyRun) -> str:
    if isinstance(config, SourceRun):
        return "Source prompt"
    return config.method.title if isinstance(config, AdaptRun) else "Teacher prompt"


def _first(kind: str, config: AnyRun) -> str:
    count = "one task" if len(config.tasks) == 1 else f"{len(config.tasks)} tasks"
    if isinstance(config, SourceRun):
        return (
            f"One shared prompt with factors of {count}, from which new tasks are learnt with few rows "
            "(multitask prompt tuning, arXiv:2303.02861). Made with weft."
        )
    return f"A finished run of weft: {kind} for {count} on a frozen language model."


def _base(run: Run, base: BaseConfig) -> str:
    """Which base model, and which files of it exactly."""
    env, known = run.env(), hub_id(base.model)
    at = f" at commit `{base.revision}`" if base.revision else ""
    name = code(base.model)
    name += f", as weft knows it (of {code(known)})" if known not in (None, base.model) else ""
    return (
        f"Base model: {name}{at}. The run was made with: {plain(str(env['base']))}; SHA-256 over its files: "
        f"`{env['base_hash']}`. weft refuses another one. A model in a folder is named by `--base FOLDER`."
    )


def task_line(spec: TaskSpec) -> str:
    """A task's text format, answers, data and licence."""
    answers = ", ".join(map(code, spec.written().choices)) or "open"
    hub = f"{spec.hub.path} {spec.hub.name or ''}".strip() if spec.hub else ""
    parts = [f"text {code(spec.source)}", f"answers {answers}", *([f"data {code(hub)}"] if hub else [])]
    return f"- **{spec.name}**: {'; '.join(parts)}; licence of the data: {licence_of(spec)}"


def licence_of(spec: TaskSpec) -> str:
    """The licence of a task's data, as the task's file says it."""
    return plain(spec.licence) or "not said"


def _training(run: Run, config: AnyRun) -> str:
    made, env = run.result(), run.env()
    rows = ", ".join(f"{name} {one['train']:,}" for name, one in made["rows"].items())
    versions: dict[str, Any] = env.get("versions") or {}
    place = "after the text" if env.get("position") == "suffix" else "before the text"
    lines = [f"run `{run.id}`, seed {config.seed}, {made['steps']:,} steps", f"training rows: {rows}"]
    if config.made_by is None or not config.made_by.only_reads:
        lines.append(f"prompts of {config.prompt.length} tokens, {place}")
    lines += [
        f"numbers trained a task: {made['parameters_per_task']:,.0f}",
        ", ".join(f"{name} {number}" for name, number in versions.items()) or DASH,
        f"every other setting stands in `{run.id}/config.yaml`",
    ]
    return "\n".join(f"- {line}" for line in lines)
