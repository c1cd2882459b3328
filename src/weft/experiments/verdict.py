"""What the averages of an experiment say, in sentences. Loads without torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.experiments.entries import Entry
from weft.experiments.lines import Line, best, best_shared, lines
from weft.experiments.rates import chosen_rates

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan


def verdict(entries: Sequence[Entry], plan: "Plan") -> list[str]:
    """What the averages say, in sentences: the best row, and where the best MPT row stands."""
    table = lines(entries, plan)
    top, ours = best(table), best_shared(table)
    if top is None:
        return ["No row is finished on all targets yet, so there is nothing to compare."]
    tops = [line for line in table if line.mean is not None and _gap(line, top) == 0]
    names = " and ".join(f"{line.label} ({line.text()})" for line in tops)
    said = [f"The best average over targets: {names}."]
    if ours is None:
        said.append("There is no MPT row that is finished on all targets.")
    else:
        said.append(_place(ours, best(line for line in table if not line.shares)))
        rivals = dict.fromkeys(line.kind for line in table if line.keeps == "soft")
        said += [_against(ours, best(line for line in table if line.kind == kind), kind) for kind in rivals]
        said += _choice(table)
    return said + chosen_rates(table, plan) + _left_out(table)


def _place(ours: Line, other: Line | None) -> str:
    """Whether the best MPT row wins against the best of all other rows."""
    if other is None:
        return "No row other than MPT is finished on all targets."
    stand, them = _stand(ours, other), f"{other.label}{_sure(ours, other)}"
    if _gap(ours, other) > 0:
        verb = "wins" if "outside" in _sure(ours, other) else "is ahead"
        return f"MPT {verb}: {ours.label} is {stand} the best other row, {them}."
    return f"MPT does not win: its best row, {ours.label}, is {stand} {them}."


def _against(ours: Line, rival: Line | None, name: str) -> str:
    if rival is None:
        return f"There is no comparison with {name}: no such row is finished on all targets."
    label = "" if rival.label.casefold() in name.casefold() else f" ({rival.label})"
    return f"{ours.label} is {_stand(ours, rival)} {name}{label}{_sure(ours, rival)}."


def _stand(one: Line, other: Line) -> str:
    gap = _gap(one, other)
    return f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}" if gap else "level with"


def _gap(one: Line, other: Line) -> float:
    """Difference of two averages, as shown."""
    assert one.mean is not None
    assert other.mean is not None
    return round(one.mean - other.mean, 1)


def _sure(one: Line, other: Line) -> str:
    """How far a difference can be trusted; what does not train has no spread over seeds."""
    halves = [line.half if line.trains else 0.0 for line in (one, other)]
    if any(half is None for half in halves):
        return " (a single seed says little)"
    inside = abs(_gap(one, other)) <= sum(half or 0.0 for half in halves)
    return " (within the intervals)" if inside else " (outside the intervals)"


def _choice(table: list[Line]) -> list[str]:
    rows = sum(line.shares and line.mean is not None for line in table)
    said = f"The best of {rows} MPT rows was picked by these very scores, which favours it."
    return [said] if rows > 1 else []


def _left_out(table: list[Line]) -> list[str]:
    labels = [line.label for line in table if line.mean is None]
    return [f"Without a score on every target, and left out: {', '.join(labels)}."] if labels else []
