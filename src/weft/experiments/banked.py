"""Which runs of an experiment a bank is filled from. Loads without torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.errors import ArtifactError, ConfigError, UnsupportedError, did_you_mean
from weft.experiments.config import Entry as Row
from weft.experiments.entries import Entry
from weft.experiments.lines import best, lines

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan


def evaluations(entries: Sequence[Entry], plan: "Plan", label: str | None = None) -> list[str]:
    """Evaluations of one row of the table at the first seed, which name runs and give scores.

    Args:
        entries: the scores of the experiment.
        plan: its runs.
        label: of the row; none: the one with the best average among those that a bank keeps.

    Raises:
        ConfigError: if there is no such row.
        UnsupportedError: if a bank does not keep what the row's method leaves.
        ArtifactError: if no row, or not all of this one, is finished.
    """
    row = _best(entries, plan) if label is None else _named(plan.experiment.rows, label)
    seed = plan.experiment.seeds[0]
    cells = [cell for cell in plan.cells if cell.row == row.label and cell.seed == seed]
    return list(dict.fromkeys(cell.run for cell in cells))


def _best(entries: Sequence[Entry], plan: "Plan") -> Row:
    kept = {row.label: row for row in plan.experiment.rows if row.method.fits_bank}
    top = best(line for line in lines(entries, plan) if line.label in kept)
    if top is None:
        raise ArtifactError(
            "no row that a bank keeps is finished on all targets", fix="run the experiment to its end first"
        )
    return kept[top.label]


def _named(rows: Sequence[Row], label: str) -> Row:
    known = {row.label: row for row in rows}
    if label not in known:
        fix = did_you_mean(label, known)
        raise ConfigError(f"the experiment has no row {label!r}", where="--row", fix=fix, code="C12")
    if not known[label].method.fits_bank:
        kept = ", ".join(row.label for row in rows if row.method.fits_bank) or "none of its rows"
        raise UnsupportedError(
            f"a bank does not keep what {label!r} leaves", where="--row", fix=f"it keeps: {kept}", code="C16"
        )
    return known[label]
