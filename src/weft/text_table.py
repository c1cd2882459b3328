"""Tables for a terminal, in which wide signs count as many columns as they fill. Loads without torch."""

import shutil
import unicodedata
from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

NARROWEST, NARROW = 40, 8  # of a screen, of a column that is shortened
JOINERS = "\u200c\u200d"  # between letters of some scripts, and between emoji


def screen_width() -> int:
    """Columns of the terminal, or as COLUMNS says; 80 where there is neither."""
    return max(NARROWEST, shutil.get_terminal_size((80, 24)).columns)


def columns(text: str) -> int:
    """Columns that a text fills; of several lines, the widest."""
    return max(map(cell_len, text.split("\n")))


def filled(text: str, most: int) -> str:
    """A text on lines that are not too long."""
    console = Console(file=StringIO(), width=most, color_system=None, legacy_windows=False)
    return "\n".join(line.plain.rstrip() for line in Text(text).wrap(console, most))


def plain(text: str) -> str:
    """A text on one line, without signs that steer a terminal or turn the direction of what follows."""
    return " ".join("".join(map(_plain_sign, text)).split())


def _plain_sign(sign: str) -> str:
    kind = unicodedata.category(sign)
    if kind == "Cf" and sign not in JOINERS:
        return ""
    return " " if kind in ("Cc", "Cs", "Zl", "Zp") else sign


def shorten(text: str, most: int) -> str:
    """A text in so many columns: its start and its end, for names often differ in their last word alone."""
    if cell_len(text) <= most:
        return text
    tail, end, start = (most - 1) // 3, min(len(text), most), max(0, len(text) - most)
    while cell_len(text[start:]) > tail:
        start += 1
    while cell_len(text[:end]) > most - 1 - tail:
        end -= 1
    return f"{text[:end]}…{text[start:]}"


def room(head: Sequence[str], body: Sequence[Sequence[str]], most: int, gap: int = 2) -> int:
    """Columns of the screen that a table leaves for one column more."""
    widths = [max(columns(row[i]) for row in [head, *body]) for i in range(len(head))]
    return most - sum(widths) - gap * len(widths)


def fitted(head: Sequence[str], body: Sequence[Sequence[str]], most: int) -> list[list[str]]:
    """The rows of a table with the names in the first column shortened, so that no line is too long."""
    least = max(NARROW, room(head[1:], [row[1:] for row in body], most))
    return [[shorten(name, least), *cells] for name, *cells in body]


def render(
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    align: str,
    *,
    most: int = 80,
    gap: int = 2,
    folds: int = 0,
) -> str:
    """Cells as lines of text.

    Args:
        head: names of the columns.
        body: cells, row by row.
        align: one sign a column: `<` to the left, `>` to the right.
        most: columns of the screen.
        gap: spaces between columns.
        folds: the column that takes the width that is left, on several lines where it must.
    """
    # rich sets one space between columns itself
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for i, (text, side) in enumerate(zip(head, align, strict=True)):
        fold = i == folds % len(head)
        table.add_column(
            Text(text), justify="left" if side == "<" else "right", no_wrap=not fold, overflow="fold"
        )
    for row in body:
        table.add_row(*map(Text, row))
    out = StringIO()
    Console(file=out, width=most, color_system=None, force_terminal=False, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().split("\n"))
