"""The lines of an experiment's table: entries, and what they come to over targets. Loads without torch.

No average is made of some of its targets.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from weft.evaluation.paired import Difference, difference
from weft.experiments import config
from weft.experiments.entries import ZERO, Entry, interval, mean_of, score_text

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan


@dataclass(frozen=True)
class Average:
    """What a row comes to over some targets, those aside that were seen.

    Attributes:
        name: as in the experiment; empty for that of all targets.
        entries: what it is taken of.
        scores: the average for each seed that has a score on all of them.
        mean: of `scores`; none if a target is missing, or all were seen.
        half: half the width of its 95 % interval.
        against: difference from the reference row's average; none where one of them is not there.
    """

    name: str
    entries: tuple[Entry, ...]
    scores: tuple[float, ...]
    mean: float | None
    half: float | None
    against: Difference | None = None

    @property
    def head(self) -> str:
        """Its name over a column."""
        return f"average of {self.name}" if self.name else "average"

    def text(self, joint: str = " ± ") -> str:
        """The average with its interval, with a mark where it holds a score that is undefined."""
        marked = any(entry.undefined for entry in self.entries)
        return score_text(self.mean, self.half, joint, ZERO * marked)


@dataclass(frozen=True)
class Line:
    """One line of the table: a row's entries, and what they come to over targets.

    Attributes:
        label: the row's label.
        kind: what the field calls the method.
        keeps: kind of file that the method leaves: of MPT a `bank`, of what tunes plain prompts `soft` ones.
        trains: whether the method learns from rows.
        entries: one for each target, in the experiment's order.
        averages: the named ones, and last that of all targets.
        parameters: trained parameters per task, the mean over targets.
        seconds: mean time of training one target.
    """

    label: str
    kind: str
    keeps: str
    trains: bool
    entries: tuple[Entry, ...]
    averages: tuple[Average, ...]
    parameters: float | None
    seconds: float | None

    @property
    def shares(self) -> bool:
        """Whether the method is MPT: a shared prompt with task factors."""
        return self.keeps == "bank"

    @property
    def average(self) -> Average:
        """That of all targets."""
        return self.averages[-1]

    @property
    def mean(self) -> float | None:
        """The average over all targets; see `Average`."""
        return self.average.mean

    @property
    def half(self) -> float | None:
        """Half the width of its 95 % interval."""
        return self.average.half

    def text(self, joint: str = " ± ") -> str:
        """The average over all targets as it is shown."""
        return self.average.text(joint)


def lines(entries: Sequence[Entry], plan: "Plan") -> list[Line]:
    """The table, line by line, in the experiment's order."""
    by_place = {(entry.row, entry.target): entry for entry in entries}
    metrics = {entry.target: entry.metric for entry in entries}
    experiment = plan.experiment
    return [
        _line(
            row,
            [by_place.get((row.label, name)) or _unable(row, name, metrics) for name in experiment.targets],
            experiment,
        )
        for row in experiment.rows
    ]


def _unable(row: config.Entry, target: str, metrics: dict[str, str]) -> Entry:
    """The place of a method that answers closed tasks alone, on a target whose answers are open."""
    return Entry(row.label, target, metrics.get(target, ""), unable=True)


def _line(row: config.Entry, entries: list[Entry], experiment: config.Experiment) -> Line:
    parts = {**experiment.averages, "": experiment.targets}
    return Line(
        row.label,
        row.method.title,
        row.method.keeps,
        row.method.learns,
        tuple(entries),
        tuple(_average(name, [one for one in entries if one.target in of]) for name, of in parts.items()),
        parameters=mean_of(entry.parameters for entry in entries),
        seconds=mean_of(entry.seconds for entry in entries),
    )


def _average(name: str, entries: list[Entry]) -> Average:
    """Each seed is averaged over targets first, so that the interval is that of the average."""
    counted = tuple(entry for entry in entries if not entry.seen)
    by_seed = [dict(zip(entry.seeds, entry.scores, strict=True)) for entry in counted]
    seeds = [seed for seed in (by_seed or [{}])[0] if all(seed in scores for scores in by_seed)]
    whole = all(entry.mean is not None for entry in entries)
    scores = tuple(fmean(scores[seed] for scores in by_seed) for seed in seeds) if whole else ()
    return Average(name, counted, scores, mean_of(scores), interval(scores), _against(counted))


def _against(entries: Sequence[Entry]) -> Difference | None:
    """The mean of the targets' differences; the rows of each target are drawn by themselves."""
    known = [(one.against.mean, one.gaps) for one in entries if one.against and one.gaps is not None]
    if not known or len(known) < len(entries):
        return None
    least = min(len(gaps) for _, gaps in known)  # large sets have fewer draws
    draws = np.mean([gaps[:least] for _, gaps in known], axis=0)
    return difference(fmean(mean for mean, _ in known), draws)


def best(table: Iterable[Line]) -> Line | None:
    """The line with the best average; none if no line is finished."""
    done = [line for line in table if line.mean is not None]
    return max(done, key=lambda line: line.mean or 0.0, default=None)


def best_shared(table: Iterable[Line]) -> Line | None:
    """The best of MPT's lines; see `best`."""
    return best(line for line in table if line.shares)
