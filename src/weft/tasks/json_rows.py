"""Rows of JSON text: one object a line, or a list of objects."""

import json
import re
from typing import Any

from weft.errors import DataError
from weft.storage import strict_json
from weft.tasks.task import Row

LINE_FIX = "write one JSON object a line; a list of objects has the suffix .json"
LIST_FIX = "write a list of objects, [{...}, {...}], or one object a line; pandas: to_json(orient='records')"


def json_lines(text: str, where: str) -> list[Row]:
    """One object a line; blank lines are skipped.

    Raises:
        DataError: with the line.
    """
    return [
        _line(line, f"{where}:{number}")
        for number, line in enumerate(re.split(r"\r\n?|\n", text), start=1)
        if line.strip()
    ]


def json_rows(text: str, where: str) -> list[Row]:
    """A list of objects; or one object a line, as some programs name `.json` too.

    Raises:
        DataError: for what is neither.
    """
    first = text.lstrip()[:1]
    if first != "[":
        return json_lines(text, where) if _is_lines(text) else _refuse_object(where)
    rows: list[Row] = _value(text, where, "JSON list", LIST_FIX)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise _no_object(row, f"{where}, row {number}", LIST_FIX)
    return rows


def _is_lines(text: str) -> bool:
    """Whether the text is not one object, or one of single values alone, which is a row."""
    try:
        value = strict_json(text.encode())
    except ValueError:
        return True
    whole = len(text.strip().splitlines()) == 1
    return (
        whole and isinstance(value, dict) and not any(isinstance(one, list | dict) for one in value.values())
    )


def _refuse_object(where: str) -> list[Row]:
    raise DataError(
        "the file holds one JSON object, and no list of rows", where=where, fix=LIST_FIX, code="D07"
    )


def _line(line: str, where: str) -> Row:
    row = _value(line, where, "JSON object", LINE_FIX)
    if not isinstance(row, dict):
        raise _no_object(row, where, LINE_FIX)
    return row


def _no_object(row: object, where: str, fix: str) -> DataError:
    return DataError(
        f"a row must be a JSON object, not {type(row).__name__}", where=where, fix=fix, code="D07"
    )


def _value(text: str, where: str, what: str, fix: str) -> Any:
    try:
        value = strict_json(text.encode())
        json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be written
    except ValueError as error:
        raise DataError(f"not a {what}: {error}", where=where, fix=fix, code="D07") from None
    return value
