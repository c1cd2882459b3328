"""Checks of open answers: rows that have none, and answers that do not stand in the text they are of."""

from weft.checks.findings import Findings
from weft.checks.overlap import normal
from weft.checks.used_rows import Used, share
from weft.errors import DataError
from weft.tasks import template

TAKEN_FROM = {"qa": "context", "record": "passage"}  # format -> the field that its answers are words of


def check_open_answers(used: Used, found: Findings) -> None:
    """Rows whose answer is empty, and answers that their text does not hold."""
    _unanswered(used, found)
    _elsewhere(used, found)


def _unanswered(used: Used, found: Findings) -> None:
    """D03: rows without any answer, which are left out, unless the task says so itself."""
    if "" in used.spec.drop:
        return
    there = {*used.row_of}
    gone = [(n, row) for n, row in enumerate(used.rows, start=1) if n not in there]
    empty = [n for n, row in gone if used.task.reason(row) == "no answer"]
    if empty:
        cause = f"{share(len(empty), len(used.rows))} rows have no answer, and are left out"
        fix = "complete the rows or remove them"
        found.warn(DataError(cause, where=used.at_rows(empty), fix=fix, code="D03"))


def _elsewhere(used: Used, found: Findings) -> None:
    """D25: questions of which no accepted answer stands in the text that they are asked of."""
    names, field = template.names(used.spec.source), TAKEN_FROM.get(used.spec.format)
    if field not in names:
        return
    at = names.index(field)
    missing = [
        place
        for place, (i, fields) in enumerate(zip(used.chosen, used.inputs, strict=True))
        if not any(normal(one) in normal(fields[at]) for one in used.examples[i].accepted)
    ]
    if missing:
        cause = f"{share(len(missing), len(used.chosen))} answers do not stand in the {field}"
        fix = f"give the {field} that holds them, or remove the rows; else a model learns to make answers up"
        found.warn(DataError(cause, where=used.at(missing), fix=fix, code="D25"))
