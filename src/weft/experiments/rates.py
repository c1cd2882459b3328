"""Which learning rate of a small grid is best, where dev rows decide. Loads without torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft import storage
from weft.experiments.config import Entry
from weft.experiments.lines import Line, best

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan


def chosen_rates(table: Sequence[Line], plan: "Plan") -> list[str]:
    """For rows that differ by their rates alone, which has the best average; on dev rows only.

    Test rows choose nothing: there is no such sentence about them.
    """
    if plan.experiment.split != "dev":
        return []
    grids: dict[str, list[Entry]] = {}
    for row in plan.experiment.rows:
        if row.optim is not None:
            grids.setdefault(_all_but_rates(row), []).append(row)
    by_label = {line.label: line for line in table}
    return [_choice(rows, by_label) for rows in grids.values() if len(rows) > 1]


def _all_but_rates(row: Entry) -> str:
    """What rows of one grid have in common."""
    settings = row.model_dump(mode="json", exclude={"label": True, "optim": {"lr"}})
    return storage.sha256_json(settings)


def _choice(rows: Sequence[Entry], table: dict[str, Line]) -> str:
    of = f"{rows[0].method.title} ({', '.join(rate(row) for row in rows)})"
    found = [table[row.label] for row in rows]
    if any(line.mean is None for line in found):
        return f"The rate of {of} is not chosen: a row of the grid is not finished on all targets."
    top = best(found)
    assert top is not None
    picked = next(row for row in rows if row.label == top.label)
    ends = _is_end(picked, rows)
    edge = "; it lies at the end of the grid, so a better one may lie beyond" if ends else ""
    return f"Best rate on dev rows of {of}: {rate(picked)}, average {top.text()}{edge}."


def rate(row: Entry) -> str:
    """`prompt 0.3`, `shared 0.3 factors 0.4`."""
    assert row.optim is not None
    return " ".join(f"{name} {value:g}" for name, value in row.optim.lr.items())


def _is_end(picked: Entry, rows: Sequence[Entry]) -> bool:
    """Whether a rate of the row that was picked is the least or the greatest of its grid."""
    assert picked.optim is not None
    for name, value in picked.optim.lr.items():
        grid = [row.optim.lr[name] for row in rows if row.optim is not None]
        if len(set(grid)) > 1 and value in (min(grid), max(grid)):
            return True
    return False
