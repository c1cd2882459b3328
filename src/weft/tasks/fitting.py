"""Whether every row of a file fits its task, by columns, values and labels; and which rows are the task's."""

from collections import Counter
from collections.abc import Iterable

from weft.config.task import TaskSpec
from weft.errors import DataError, did_you_mean
from weft.tasks import template
from weft.tasks.formats import fields_of, put_together
from weft.tasks.task import Row
from weft.tasks.values import normal, same_value

Numbered = list[tuple[int, Row]]  # template fields, with the number of the row they come from


def checked(spec: TaskSpec, rows: list[Row], where: str) -> list[Row]:
    """All rows of a file, of which every one fits the task; put together as the format counts them.

    Args:
        spec: the task.
        rows: of the file.
        where: the file, for messages.

    Raises:
        DataError: with the rows that do not fit.
    """
    if not any(belongs(spec, row) for row in rows):
        wanted = ", ".join(f"{column} = {value!r}" for column, value in spec.only.items())
        raise DataError(
            f"no row of the file is one of {spec.name!r}: {wanted}",
            where=f"{where} (only)",
            fix="see to the columns and values under 'only', or leave it out",
            code="D13",
        )
    fields = [
        (number, row) for number, row in _numbered(spec, rows, where) if not dropped(spec, row, empty=True)
    ]
    _check_columns(spec, fields, where)
    kept = [(number, row) for number, row in fields if not dropped(spec, row)]
    if not kept:
        raise DataError("no row of the file has an answer", where=where, code="D13")
    _check_labels(spec, kept, where)
    return put_together(spec.format, rows)


def _numbered(spec: TaskSpec, rows: list[Row], where: str) -> Numbered:
    """Template fields of all rows of the task, with the rows' numbers from 1."""
    found: Numbered = []
    for number, row in enumerate(rows, start=1):
        if not belongs(spec, row):
            continue
        try:
            found += [(number, fields) for fields in fields_of(spec.format, row)]
        except DataError as error:
            place = f"{where}, row {number}" + (f" ({error.where})" if error.where else "")
            raise DataError(error.cause, where=place, fix=error.fix, code=error.code) from None
    return found


def _check_columns(spec: TaskSpec, rows: Numbered, where: str) -> None:
    """Every field of the template is a column, and has a value in every row."""
    needed = dict.fromkeys(template.names(spec.source + spec.target + spec.group))
    found = {str(column) for _, row in rows for column in row}
    for column in [*needed, *([spec.references] if spec.references else [])] if rows else ():
        if not any(template.has(column, row) for _, row in rows):
            raise DataError(
                f"there is no column {column!r}; the file has {', '.join(sorted(found))}",
                where=f"{where} (template of task {spec.name})",
                fix=did_you_mean(column, found),
                code="D01",
            )
        empty = [number for number, row in rows if template.missing(column, row)]
        if empty:
            raise DataError(
                f"{len(empty)} rows have no {column!r}: row {', '.join(map(str, empty[:5]))}",
                where=where,
                fix="complete the rows or remove them",
                code="D02",
            )
    for number, row in rows:
        _check_values(needed, row, f"{where}, row {number}")


def _check_values(columns: Iterable[str], row: Row, where: str) -> None:
    """Every value that a template shows can be written as text."""
    for column in columns:
        try:
            template.written(column, row)
        except DataError as error:
            raise DataError(error.cause, where=where, fix=error.fix, code=error.code) from None


def _check_labels(spec: TaskSpec, rows: Numbered, where: str) -> None:
    """Every value of the target has its word, and no target is empty."""
    values = [(number, template.fill(spec.target, row)) for number, row in rows]
    empty = [number for number, value in values if not value.strip()]
    if empty:
        raise DataError(
            f"{len(empty)} rows have an empty target: row {', '.join(map(str, empty[:5]))}",
            where=where,
            fix="complete the rows or remove them",
            code="D03",
        )
    known = spec.labels
    strange = [(number, value) for number, value in values if known and same_value(value, known) is None]
    if strange:
        counts = Counter(value for _, value in strange).most_common(5)
        raise DataError(
            f"labels without a word: {', '.join(f'{value!r} ({count} rows)' for value, count in counts)}",
            where=f"{where}, first in row {strange[0][0]}",
            fix=_label_fix(spec, strange[0][1]),
            code="D06",
        )


def _label_fix(spec: TaskSpec, value: str) -> str:
    """What to do about a value without a word."""
    near = [one for one in spec.labels or {} if normal(one).casefold() == normal(value).casefold()]
    if near:
        return f"{value!r} and {near[0]!r} differ in capitals: write one of them, or give both the same word"
    return f"add them under 'labels' of task {spec.name!r}, which has {', '.join(spec.labels or {})}"


def belongs(spec: TaskSpec, row: Row) -> bool:
    """Whether a row of the task's files is one of the task."""
    return all(column in row and str(row[column]) == value for column, value in spec.only.items())


def dropped(spec: TaskSpec, fields: Row, *, empty: bool = False) -> bool:
    """Whether a row's answer is one of those that are left out; an empty one is where `""` stands among them.

    Args:
        spec: the task.
        fields: of its templates.
        empty: ask for empty answers alone.
    """
    if any(template.missing(name, fields) for name in template.names(spec.target)):
        return "" in spec.drop and all(template.has(name, fields) for name in template.names(spec.target))
    return not empty and same_value(template.fill(spec.target, fields), spec.drop) is not None
