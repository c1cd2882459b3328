"""When two spellings of a column's name or of a label are the same. Values are compared as they are first."""

import re
import unicodedata
from collections.abc import Collection, Iterable

WHOLE = re.compile(r"([+-]?\d+)\.0*")  # 1.0 is the number 1


def normal(text: str) -> str:
    """A text without what nobody sees: blanks around it, and how its accents are composed (NFC)."""
    return unicodedata.normalize("NFC", text).strip()


def same_name(name: str, known: Iterable[object]) -> object:
    """The one of the known names that a name spells; none if there is none."""
    wanted = normal(name)
    return next((one for one in known if normal(str(one)) == wanted), None)


def same_value(value: str, known: Collection[str]) -> str | None:
    """The one of the known values that a value spells; none if there is none.

    Besides what nobody sees, programs differ in how they write whole numbers (1, 1.0) and truth values
    (True, true, TRUE).
    """
    if value in known:
        return value
    wanted = _plain(value)
    return next((one for one in known if _plain(one) == wanted), None)


def _plain(value: str) -> str:
    value = normal(value)
    if value.lower() in ("true", "false"):
        return value.lower()
    number = WHOLE.fullmatch(value)
    return number[1] if number else value
