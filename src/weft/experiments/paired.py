"""Every row of the table beside the reference row, on the same scored rows. Loads without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from weft.config.task import TaskSpec
from weft.evaluation.paired import difference, drawn_scores
from weft.experiments.entries import Entry
from weft.runs import Run
from weft.tasks.metrics import metric

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan


@dataclass(frozen=True)
class Answered:
    """What an evaluation answered, row by row, what is accepted there, and to which group a row belongs."""

    answers: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]

    @property
    def constant(self) -> bool:
        """Whether all of several rows have one and the same answer."""
        return len(self.answers) > 1 and len(set(self.answers)) == 1


def compared(entries: Sequence[Entry], plan: "Plan", root: Path) -> list[Entry]:
    """The entries with what their answers say: constant ones, and differences from the reference row.

    Raises:
        ArtifactError: if a finished evaluation's answers were changed.
    """
    specs = {task.name: task for job in plan.jobs for task in job.config.tasks}
    found: dict[int, Entry] = {}
    for target in dict.fromkeys(entry.target for entry in entries):
        places = [i for i, entry in enumerate(entries) if entry.target == target]
        known = _of_target([entries[i] for i in places], specs[target], plan, root)
        found |= dict(zip(places, known, strict=True))
    return [found[i] for i in range(len(entries))]


def _of_target(entries: list[Entry], spec: TaskSpec, plan: "Plan", root: Path) -> list[Entry]:
    """All rows of one target."""
    runs = {name for entry in entries for name in entry.runs if Run(root / name).done}
    answered = {name: _answered(Run(root / name)) for name in sorted(runs)}
    meant = {row.label for row in plan.experiment.rows if row.method.name == "majority"}
    marked = [
        replace(entry, constant=_constant(entry, answered) if entry.row not in meant else 0)
        for entry in entries
    ]
    label = plan.experiment.compared_with
    base = next((entry for entry in marked if entry.row == label and entry.mean is not None), None)
    return marked if base is None else _with_gaps(marked, base, spec, answered)


def _answered(run: Run) -> Answered:
    lines = run.lines("predictions.jsonl")
    return Answered(
        tuple(line["answer"] for line in lines),
        tuple(tuple(line["references"]) for line in lines),
        tuple(line.get("group", "") for line in lines),
    )


def _constant(entry: Entry, answered: dict[str, Answered]) -> int:
    """How many of an entry's finished evaluations have one answer for all rows."""
    return sum(answered[name].constant for name in entry.runs if name in answered)


def _with_gaps(
    entries: list[Entry], base: Entry, spec: TaskSpec, answered: dict[str, Answered]
) -> list[Entry]:
    """Entries with their distance from the base, where both have all their runs on the same rows."""
    references, groups = answered[base.runs[0]].references, answered[base.runs[0]].groups
    whole = [
        entry
        for entry in entries
        if entry.mean is not None and all(answered[name].references == references for name in entry.runs)
    ]
    if not references or base not in whole:
        return entries
    written, names = spec.written(), sorted({name for entry in whole for name in entry.runs})
    scorer = metric(base.metric, positive=written.positive, labels=written.choices)
    answers = [answered[name].answers for name in names]
    scores = drawn_scores(base.metric, scorer, answers, references, base.target, groups)
    draws = {
        id(entry): scores[[names.index(name) for name in entry.runs]].mean(0) for entry in whole
    }  # every seed is drawn alike, so the mean over seeds pairs them
    return [
        _beside(entry, base, draws[id(entry)] - draws[id(base)]) if id(entry) in draws else entry
        for entry in entries
    ]


def _beside(entry: Entry, base: Entry, gaps: NDArray[np.float64]) -> Entry:
    """An entry with its difference from the base; the base itself has none."""
    if entry is base:
        return entry
    assert entry.mean is not None
    assert base.mean is not None
    return replace(entry, gaps=gaps, against=difference(entry.mean - base.mean, gaps))
