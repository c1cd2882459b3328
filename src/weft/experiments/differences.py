"""Small tables: every row's distance from the reference row, with interval and p. Loads without torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.evaluation.paired import Difference
from weft.experiments.entries import DASH
from weft.experiments.lines import Average, Line
from weft.experiments.small_tables import SmallTable

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan

SURE = 0.05
HEAD = ("method", "difference", "95 % interval", "p", "above", "below")


def compared(table: Sequence[Line]) -> bool:
    """Whether any row stands beside a reference row."""
    return any(entry.against for line in table for entry in line.entries)


def differences(table: Sequence[Line], plan: "Plan") -> list[SmallTable]:
    """A table for each average of the experiment; none where nothing is compared."""
    if not compared(table):
        return []
    label = plan.experiment.compared_with
    others = [line for line in table if line.label != label]
    return [
        SmallTable(
            f"Differences from {label}, {average.head}",
            HEAD,
            tuple((line.label, *_cells(line.averages[i])) for line in others),
        )
        for i, average in enumerate(table[0].averages)
    ]


def _cells(average: Average) -> tuple[str, ...]:
    known = [entry.against for entry in average.entries if entry.against]
    if not known:
        return (DASH,) * (len(HEAD) - 1)
    above = sum(one.p < SURE and one.mean > 0 for one in known)
    below = sum(one.p < SURE and one.mean < 0 for one in known)
    return *_texts(average.against), str(above), str(below)


def _texts(one: Difference | None) -> tuple[str, str, str]:
    """`+1.2`, `-0.3 to +2.6`, `0.114`."""
    if one is None:
        return DASH, DASH, DASH
    return _signed(one.mean), f"{_signed(one.low)} to {_signed(one.high)}", f"{one.p:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", "−")


def said(table: Sequence[Line]) -> list[str]:
    """What a reader of these tables must know."""
    if not compared(table):
        return []
    counts = {len(one.gaps) for line in table for one in line.entries if one.gaps is not None}
    draws = " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))
    return [
        f"Differences: paired bootstrap over scored rows, {draws} draws with return, the same for every row "
        "of the table and every seed. Seeds are not drawn, and p is not corrected for the number of "
        f"comparisons. Above, below: targets with p < {SURE}."
    ]
