"""Names of a bank's tasks: any text of one line. They are keys of the index, and never become paths."""

import unicodedata

from weft.errors import ConfigError

LONGEST = 200  # signs
REFUSED = ("Cc", "Cs", "Zl", "Zp")  # controls, halves of signs, ends of lines and paragraphs


def checked(name: str) -> str:
    """A name in the one spelling (Unicode NFC) in which it is kept and looked up.

    Raises:
        ConfigError: if it is empty, too long, has a blank at an end, or signs that no screen shows.
    """
    found = unicodedata.normalize("NFC", name)
    if cause := _fault(found):
        raise ConfigError(
            f"{ascii(name)[:80]} is no name of a task: {cause}",
            where="task name",
            fix=f"one line of 1 to {LONGEST} signs, without blanks at its ends",
            code="A12",
        )
    return found


def _fault(name: str) -> str:
    if not 1 <= len(name) <= LONGEST:
        return f"it has {len(name):,} signs"
    if name != name.strip():
        return "it has a blank at an end"
    strange = [sign for sign in name if unicodedata.category(sign) in REFUSED]
    return f"the sign U+{ord(strange[0]):04X} is not allowed" if strange else ""
