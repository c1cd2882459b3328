"""How good a base model is: six tasks on all their rows, rates chosen on dev rows, three seeds scored."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from weft import stages
from weft.config.model import BaseConfig
from weft.config.training import LimitsConfig, OptimConfig, PromptConfig
from weft.errors import WeftError
from weft.experiments.entries import DASH, interval, score_text
from weft.methods.full import FullFineTuning
from weft.methods.majority import Majority
from weft.methods.prompt_tuning import PromptTuning
from weft.models.bundled import KNOWN
from weft.runs import Run
from weft.runs.config import AdaptRun, EvaluateRun
from weft.runs.workspace import Workspace
from weft.tasks import BUILTIN, find_specs

TASKS = ("sst2", "ag_news", "trec", "subj", "qqp", "qnli")
METHODS = {"prompt": PromptTuning(), "full": FullFineTuning()}
NAMES = {"prompt": "tuned prompt", "full": "fine-tuned"}
GROUPS = {"prompt": "prompt", "full": "model"}  # what each method's learning rate is of
RATES = {"prompt": (0.003, 0.01, 0.03, 0.1), "full": (3e-5, 1e-4, 3e-4, 1e-3)}
SEEDS, LENGTH, BATCH = (0, 1, 2), 32, 16
LIMITS = LimitsConfig(source_tokens=96, dev_rows=300, test_rows=1000)


@dataclass(frozen=True)
class Found:
    """What one base model and method came to on one task; accuracies in percent.

    Attributes:
        base: the base model.
        method: prompt or full.
        task: the task.
        steps: of each scored run; of each run of the search.
        dev: learning rate -> accuracy on dev rows, seed 0.
        rate: the best of them.
        test: accuracy on test rows by seed.
        majority: accuracy of the commonest answer.
        rows: scored rows.
        seconds: of training, by seed.
        runs: ids of the evaluations.
    """

    base: str
    method: str
    task: str
    steps: tuple[int, int]
    dev: dict[str, float]
    rate: float
    test: tuple[float, ...]
    majority: float
    rows: int
    seconds: tuple[float, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A base model and a method on one task.

    Attributes:
        base: a name or folder.
        method: prompt or full.
        task: a built-in task.
        workspace: where runs are kept and data lie.
    """

    base: str
    method: str
    task: str
    workspace: Workspace

    def ask(self, steps: int, search: int, rates: tuple[float, ...]) -> Found:
        """Search the rate, then train and score the seeds.

        Args:
            steps: of a scored run.
            search: of a run of the search.
            rates: learning rates; a single one is used as it is.
        """
        dev = self.search(rates, search) if len(rates) > 1 else {}
        best = max(dev, key=lambda rate: dev[rate]) if dev else rates[0]
        trained = self.trained([self.run(best, seed, steps) for seed in SEEDS])
        scored = [self.scored(run=run.id, seed=seed) for run, seed in zip(trained, SEEDS, strict=True)]
        return Found(
            base=self.base if self.base in KNOWN else Path(self.base).resolve().parent.name,
            method=self.method,
            task=self.task,
            steps=(steps, search if dev else 0),
            dev={f"{rate:g}": score for rate, score in dev.items()},
            rate=best,
            test=tuple(self.accuracy(run) for run in scored),
            majority=self.accuracy(self.scored(method=Majority())),
            rows=scored[0].result()["scores"][self.task]["rows"],
            seconds=tuple(round(run.seconds() or 0.0, 1) for run in trained),
            runs=tuple(run.id for run in scored),
        )

    def search(self, rates: tuple[float, ...], steps: int) -> dict[float, float]:
        """Accuracy on dev rows after so many steps at each rate."""
        tried = self.trained([self.run(rate, SEEDS[0], steps) for rate in rates])
        return {rate: run.result()["dev"] for rate, run in zip(rates, tried, strict=True)}

    def run(self, rate: float, seed: int, steps: int) -> AdaptRun:
        """A training run, scored on dev rows at its end."""
        optim = OptimConfig(lr={GROUPS[self.method]: rate}, steps=steps, batch_size=BATCH, eval_every=steps)
        return AdaptRun(**self.common, method=METHODS[self.method], seed=seed, optim=optim)

    def trained(self, runs: list[AdaptRun]) -> list[Run]:
        """Train what is not there yet; prompts go through the frozen model together."""
        if self.method == "full":
            return [stages.perform(run, self.workspace) for run in runs]
        found = dict(stages.perform_together(runs, self.workspace))
        done = [found[self.workspace.run_id(run)] for run in runs]
        for one in done:
            if isinstance(one, WeftError):
                raise one
        return [one for one in done if isinstance(one, Run)]

    def scored(self, **what: Any) -> Run:
        """Test rows, answered."""
        return stages.perform(EvaluateRun(**self.common, generate=False, **what), self.workspace)

    def accuracy(self, run: Run) -> float:
        """Of an evaluation, in percent."""
        return float(run.result()["scores"][self.task]["metrics"]["accuracy"])

    @property
    def common(self) -> dict[str, Any]:
        """What all runs share."""
        spec = find_specs([BUILTIN / f"{self.task}.yaml"])[self.task]
        return {
            "base": BaseConfig(model=self.base),
            "prompt": PromptConfig(length=LENGTH),
            "limits": LIMITS,
            "tasks": (spec,),
        }


def measure(
    base: str,
    method: str,
    workspace: Workspace,
    out: Path,
    *,
    tasks: tuple[str, ...] = TASKS,
    steps: int,
    search: int,
    rates: tuple[float, ...] = (),
) -> Iterator[Found]:
    """Ask task by task, and add a line to a file for each that is done.

    Args:
        base: a name or folder.
        method: prompt or full.
        workspace: where runs are kept and data lie.
        out: a file of JSON lines.
        tasks: built-in tasks.
        steps: of a scored run.
        search: of a run of the search for a rate.
        rates: those searched; none: RATES; one: no search.
    """
    for task in tasks:
        found = Question(base, method, task, workspace).ask(steps, search, rates or RATES[method])
        with out.open("a") as file:
            file.write(json.dumps(asdict(found)) + "\n")
        yield found


def read(path: Path) -> list[Found]:
    """What `measure` wrote; of equal questions the last answer."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return list({(one["base"], one["method"], one["task"]): Found(**one) for one in lines}.values())


def table(found: list[Found]) -> str:
    """Mean and 95 % interval over seeds, task by task, in Markdown."""
    arms = list(dict.fromkeys((one.base, one.method) for one in found))
    known = {(one.task, one.base, one.method): one for one in found}
    head = ["task", "majority", *(f"{base}, {NAMES[method]}" for base, method in arms)]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for task, majority in {one.task: one.majority for one in found}.items():
        rows.append([task, f"{majority:.1f}", *(_cell(known.get((task, *arm))) for arm in arms)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _cell(one: Found | None) -> str:
    return score_text(fmean(one.test), interval(one.test)) if one else DASH
