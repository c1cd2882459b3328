"""Small tables below the large one, and those of further metrics. Loads without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weft.experiments.entries import DASH, score_text
from weft.experiments.lines import Line

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan


@dataclass(frozen=True)
class SmallTable:
    """A table with its title.

    Attributes:
        title: what it shows.
        head: names of its columns; the first is that of the rows' labels.
        rows: cells under `head`.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def further(table: Sequence[Line], plan: "Plan") -> list[SmallTable]:
    """A table for each target whose further metrics are asked for, with the 95 % t interval over seeds."""
    wanted = plan.experiment.further
    return [
        SmallTable(f"Further metrics of {target}", ("method", *names), _scores(table, target, names))
        for target, names in wanted.items()
    ]


def _scores(table: Sequence[Line], target: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    rows = []
    for line in table:
        [entry] = [one for one in line.entries if one.target == target]
        cells = [score_text(*entry.others[name]) if name in entry.others else DASH for name in names]
        rows.append((line.label, *cells))
    return tuple(rows)
