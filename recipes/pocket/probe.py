"""A quick look at a model in the making: prompts tuned on a part of some tasks. It only compares models."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from weft import stages
from weft.config import (
    AdaptRun,
    BaseConfig,
    EvaluateRun,
    LimitsConfig,
    OptimConfig,
    PromptConfig,
    PromptTuningConfig,
)
from weft.tasks import BUILTIN, find_specs
from weft.workspace import Workspace

TASKS = ("sst2", "ag_news", "trec", "subj")
LENGTH, STEPS, SIZE = 32, 200, 32
LIMITS = LimitsConfig(source_tokens=96, dev_rows=400, test_rows=600)


def probe(
    model: Path, data: Path, runs: Path, *, rate: float, tasks: Sequence[str] = TASKS
) -> Iterator[tuple[str, float | None]]:
    """Accuracy in percent of a tuned prompt, task by task.

    Args:
        model: an exported model.
        data: folder of task data.
        runs: where run folders go.
        rate: learning rate of the prompt.
        tasks: built-in ones.
    """
    workspace = Workspace(runs, data)
    for name in tasks:
        spec = find_specs([BUILTIN / f"{name}.yaml"])[name]
        common = {
            "base": BaseConfig(model=str(model)),
            "prompt": PromptConfig(length=LENGTH),
            "limits": LIMITS,
            "tasks": (spec,),
        }
        optim = OptimConfig(lr={"prompt": rate}, steps=STEPS, batch_size=SIZE)
        trained = stages.perform(AdaptRun(**common, method=PromptTuningConfig(), optim=optim), workspace)
        scored = stages.perform(EvaluateRun(**common, run=trained.id, generate=False), workspace)
        yield name, scored.result()["scores"][spec.name]["metrics"]["accuracy"]
