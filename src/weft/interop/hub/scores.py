"""Scores of a run for its card: out of the finished evaluations that lie beside it. Loads without torch.

A score is that of the run itself. Where runs of other seeds, alike in everything else, were scored alike,
their mean says what to expect of training again.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft import runs
from weft.config.decoding import GREEDY
from weft.config.task import TaskSpec
from weft.errors import ArtifactError
from weft.evaluation.figures import example_of, figures
from weft.evaluation.intervals import Interval
from weft.experiments.entries import interval, mean_of
from weft.runs import Run
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun
from weft.tasks import from_spec
from weft.tasks.spread import measures


@dataclass(frozen=True)
class Score:
    """What was found of one task.

    Attributes:
        task: its name.
        metric: the one that decides.
        rows: that were scored.
        folds: of a cross-validation; none: the run itself answered rows of the test split.
        score: in percent; none where it is undefined.
        interval: over the rows, 95 %; none where there is no saying.
        majority: what always giving the commonest answer of these rows scores.
        leaked: how many of the rows stand in training rows; none where not all could be compared.
        seeds: the score of each seed, this run's among them.
    """

    task: str
    metric: str
    rows: int
    folds: int | None
    score: float | None
    interval: Interval | None
    majority: float | None
    leaked: int | None
    seeds: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Over seeds; none of a single one."""
        return mean_of(self.seeds.values()) if len(self.seeds) > 1 else None

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % interval of that mean."""
        return interval(tuple(self.seeds.values()))


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        run: its folder.
        config: its configuration.
        result: its scores.
    """

    run: Run
    config: EvaluateRun
    result: dict[str, Any]

    def found(self, task: str) -> dict[str, Any]:
        """What it says of a task; empty where it scored another."""
        return dict(self.result["scores"].get(task, {}))


def scores_of(run: Run, root: Path) -> list[Score]:
    """The scores of a run's tasks, as far as there are any.

    Of several evaluations of a task that with the usual decoding counts, and of these that on most rows.

    Args:
        run: a finished run that answers.
        root: the folder of runs with its evaluations.

    Raises:
        ArtifactError: if an evaluation of the run is damaged.
    """
    config, every = run.config(), list(_evaluations(root))
    own = [one for one in every if _is_of(one.config, run.id, config)]
    found = []
    for spec in config.tasks:
        of_task = [one for one in own if one.found(spec.name)]
        if of_task:
            best = max(of_task, key=lambda one: (*_worth(one, spec.name), one.run.id))
            found.append(_score(best, spec.name, every, root))
    return found


def _worth(one: Evaluation, task: str) -> tuple[bool, int]:
    return one.config.decoding == GREEDY, one.found(task)["rows"]


def _evaluations(root: Path) -> Iterator[Evaluation]:
    """All of a folder that can be read; others are no concern of this run."""
    for run in runs.finished(root):
        try:
            config = run.config()
            if isinstance(config, EvaluateRun):
                yield Evaluation(run, config, run.result())
        except ArtifactError:
            continue


def _is_of(config: EvaluateRun, run: str, trained: AnyRun) -> bool:
    """Whether an evaluation scored a run, or cross-validated the very way in which it was fitted."""
    if config.folds is None or not isinstance(trained, AdaptRun):
        return config.run == run and config.split == "test"
    same = ("method", "source", "teachers", "base", "tasks", "seed")
    return all(getattr(config, name) == getattr(trained, name) for name in same)


def _score(best: Evaluation, task: str, every: list[Evaluation], root: Path) -> Score:
    [spec] = [one for one in best.config.tasks if one.name == task]
    lines = [line for line in best.run.lines("predictions.jsonl") if line["task"] == task]
    shown = figures(from_spec(spec), lines)
    leaks = best.result.get("leaks", {}).get(task, {})
    return Score(
        task,
        shown.metric,
        shown.scores.rows,
        best.config.folds,
        shown.scores.metrics[shown.metric],
        shown.intervals[shown.metric],
        _majority(spec, shown.majority[0], lines),
        None if leaks.get("unread", True) else leaks["rows"],
        _seeds(best, task, shown.metric, every, root),
    )


def _majority(spec: TaskSpec, answer: str, lines: list[dict[str, Any]]) -> float | None:
    """What the commonest answer scores on all rows."""
    task = from_spec(spec)
    return measures(task, [example_of(line) for line in lines], [answer] * len(lines))[task.main_metric]


def _seeds(best: Evaluation, task: str, metric: str, every: list[Evaluation], root: Path) -> dict[int, float]:
    """The scores of evaluations that differ in seeds alone, as tables count them: an undefined one as 0.

    A seed that is there twice, as of rows that were changed between, leaves its own alone.
    """
    wanted, rows = _alike(best.config, root), best.found(task)["rows"]
    found = [one for one in every if one.found(task) and _alike(one.config, root) == wanted]
    seeds = [one.config.seed for one in found]
    if len(set(seeds)) < len(seeds) or any(one.found(task)["rows"] != rows for one in found):
        found = [best]
    return {one.config.seed: one.found(task)["metrics"][metric] or 0.0 for one in found}


def _alike(config: AnyRun, root: Path) -> str:
    """A configuration without its seed; the runs that it names likewise."""
    said = config.model_dump(mode="json", exclude={"seed"})
    for name in ("run", "source"):
        if said.get(name):
            said[name] = _parent(said[name], root)
    teachers = said.get("teachers") or {}
    said["teachers"] = {task: _parent(name, root) for task, name in teachers.items()}
    return json.dumps(said, sort_keys=True)


def _parent(name: str, root: Path) -> str:
    """The same of a run; its name where it is gone, or damaged."""
    try:
        return _alike(runs.find(root, name).config(), root)
    except ArtifactError:
        return name
