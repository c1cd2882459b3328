"""Templates: `{field}` stands for a column, `{a.b}` for field b of what column a holds.

A row fills a template; a text that it made gives the fields back. Values become text here, and nowhere else:
text as it is, bytes as UTF-8, numbers, truth values and dates as Python writes them. What is missing (null or
NaN) and what has parts (lists, objects) is refused, so that no text says `nan` or `['a', 'b']` unseen.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from weft.errors import DataError, did_you_mean
from weft.tasks.values import same_name

FIELD = re.compile(r"\{([^{}]*)\}")
Values = Mapping[Any, object]


def names(template: str) -> list[str]:
    """The fields, in their order; a field that stands twice is named twice."""
    return FIELD.findall(template)


def fill(template: str, row: Values) -> str:
    """The template with the row's values.

    Raises:
        DataError: for a field that is not there, is missing or is no single value.
    """
    value: Callable[[re.Match[str]], str] = lambda match: written(match[1], row)  # noqa: E731
    return FIELD.sub(value, template)


def values(template: str, row: Values) -> tuple[str, ...]:
    """The row's values at the template's fields, as text, in their order.

    Raises:
        DataError: as `fill`.
    """
    return tuple(written(name, row) for name in names(template))


def spans(template: str, values: Sequence[str]) -> list[tuple[int, int]]:
    """Where each value begins and ends in the text that the template makes of them."""
    found, start = [], 0
    for before, value in zip(FIELD.split(template)[::2], values, strict=False):
        start += len(before)
        found.append((start, start + len(value)))
        start += len(value)
    return found


def shows(text: str) -> bool:
    """Whether a text has a character that can be seen: neither a space nor a control or format sign."""
    return any(unicodedata.category(sign)[0] not in "ZC" for sign in text)


def has(name: str, row: Values) -> bool:
    """Whether a row has a field, be it null; a name is found in another spelling, see `weft.tasks.values`."""
    return _key(name, row) is not None or _inside(name, row) is not None


def missing(name: str, row: Values) -> bool:
    """Whether a row has nothing in a field: no such field, null, or NaN."""
    value: Any = held(name, row)
    if value is None or type(value).__name__ == "NAType":  # pandas.NA has no truth value
        return True
    return not _has_parts(value) and bool(value != value)


def written(name: str, row: Values) -> str:
    """A field of a row as text.

    Raises:
        DataError: saying what it holds instead.
    """
    if not has(name, row):
        there = [str(column) for column in row]
        cause = f"the row has no {name!r}; it has {', '.join(there) or 'nothing'}"
        raise DataError(cause, fix=did_you_mean(name, there), code="D01")
    if missing(name, row):
        fix = "complete the rows or remove them"
        raise DataError(f"the row's {name!r} is empty (null or NaN)", fix=fix, code="D02")
    return _text(name, held(name, row))


def held(name: str, row: Values) -> object:
    """What a row holds in a field; none if there is no such field."""
    key = _key(name, row)
    value: Any = _inside(name, row) if key is None else row[key]
    if getattr(value, "shape", None) == () and not isinstance(value, np.generic):  # an array of no axis
        return None if value is np.ma.masked else value.item()
    return value


def _key(name: str, row: Values) -> object:
    """The key of a field as the row spells it; none if there is none."""
    return name if name in row else same_name(name, row)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            cause = f"{name!r} holds bytes that are no UTF-8 text"
            raise DataError(cause, fix="write the column as text", code="D05") from None
    if isinstance(value, Mapping):
        fix = f"name a part of it: {{{name}.{next(iter(value), 'field')}}}"
        raise DataError(f"{name!r} holds an object with fields of its own", fix=fix, code="D05")
    if _has_parts(value):
        fix = "give one value a row; all accepted answers of a question are named under 'references'"
        raise DataError(f"{name!r} holds a list", fix=fix, code="D05")
    return str(value)


def _has_parts(value: Any) -> bool:
    """Lists, sets, arrays; NumPy's single numbers have a shape too, of no axis."""
    return not isinstance(value, str | bytes | bytearray) and (
        hasattr(value, "__iter__") and getattr(value, "shape", (1,)) != ()
    )


def _inside(name: str, row: Values) -> object:
    """What lies at `a.b`; none if nothing does."""
    value: Any = row
    for part in name.split("."):
        key = _key(part, value) if isinstance(value, Mapping) else None
        if key is None:
            return None
        value = value[key]
    return value


def fields(template: str, text: str) -> tuple[str, ...]:
    """The values that stand in a text at its template's fields; the whole text if it is of another form.

    What stands between two fields ends the first one where it occurs first: of `{a} / {b}`, the text
    `1 / 2 / 3` gives `1` and `2 / 3`.
    """
    pattern = "(.*?)".join(re.escape(part) for part in FIELD.split(template)[::2])
    found = re.fullmatch(pattern, text, re.DOTALL)
    return found.groups() if found and found.groups() else (text,)
