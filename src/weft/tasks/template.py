"""Templates: `{field}` stands for a column. A row fills one; a text that it made gives the fields back."""

import re
from collections.abc import Callable, Mapping

FIELD = re.compile(r"\{([^{}]*)\}")


def names(template: str) -> list[str]:
    """The fields, in their order; a field that stands twice is named twice."""
    return FIELD.findall(template)


def fill(template: str, row: Mapping[str, object]) -> str:
    """The template with the row's values."""
    value: Callable[[re.Match[str]], str] = lambda match: str(row[match[1]])  # noqa: E731
    return FIELD.sub(value, template)


def fields(template: str, text: str) -> tuple[str, ...]:
    """The values that stand in a text at its template's fields; the whole text if it is of another form.

    What stands between two fields ends the first one where it occurs first: of `{a} / {b}`, the text
    `1 / 2 / 3` gives `1` and `2 / 3`.
    """
    pattern = "(.*?)".join(re.escape(part) for part in FIELD.split(template)[::2])
    found = re.fullmatch(pattern, text, re.DOTALL)
    return found.groups() if found and found.groups() else (text,)
