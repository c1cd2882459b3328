"""Texts in the forms that Python users have them, as rows with named fields. Loads without torch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weft.errors import DataError, did_you_mean

WHAT = "give a list, Series or array of strings, a DataFrame, or a list of dicts or tuples"


def field_rows(texts: Any, fields: Sequence[str] = ()) -> list[dict[str, str]]:
    """Each text's fields, by name.

    Strings have the field `text`; tuples `text1`, `text2`; rows of a table and dicts those that they name.

    Args:
        texts: strings, Series, array, DataFrame, `datasets` data set, or a list of dicts or tuples.
        fields: that are wanted, and must be there; none: all.

    Raises:
        DataError: if these are no texts, or a row lacks a field; with its number, from 0.
    """
    if isinstance(texts, str | bytes | Mapping) or not isinstance(_listed(texts), Iterable):
        raise DataError(f"texts are many, and this is a {type(texts).__name__}", fix=WHAT, code="D05")
    rows = [_row(one, number) for number, one in enumerate(_listed(texts))]
    if not rows:
        raise DataError("there are no texts", fix=WHAT, code="D13")
    wanted = list(fields or rows[0])
    return [{name: _value(row, name, number) for name in wanted} for number, row in enumerate(rows)]


def _listed(texts: Any) -> Any:
    """A DataFrame's rows as dicts; all else as it is."""
    return texts.to_dict("records") if hasattr(texts, "columns") and hasattr(texts, "to_dict") else texts


def _row(one: Any, number: int) -> dict[str, Any]:
    if isinstance(one, Mapping):
        return {str(name): value for name, value in one.items()}
    if isinstance(one, str):
        return {"text": one}
    if isinstance(one, Sequence) or getattr(one, "ndim", 0) == 1:
        values = list(one)
        return {"text": values[0]} if len(values) == 1 else {f"text{i}": v for i, v in enumerate(values, 1)}
    raise DataError(f"this is no text but {one!r:.60}", where=f"row {number}", fix=WHAT, code="D05")


def _value(row: Mapping[str, Any], name: str, number: int) -> str:
    if name not in row:
        cause = f"there is no {name!r}; the row has {', '.join(row) or 'nothing'}"
        raise DataError(cause, where=f"row {number}", fix=did_you_mean(name, row), code="D01")
    if not isinstance(row[name], str):
        cause = f"{name!r} is no text but {row[name]!r:.60}"
        raise DataError(cause, where=f"row {number}", fix="complete the rows or remove them", code="D02")
    return str(row[name])
