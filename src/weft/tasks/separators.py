"""What separates the columns of a table: its format's own sign, or another one that the header shows.

Spreadsheets of countries that write 1,5 for one and a half put semicolons into CSV files. A `.txt` file may
have tabs, commas or semicolons. Some programs say the sign in a line before the header: `sep=;`. Loads
without torch.
"""

import csv
import io
import re
from itertools import islice

from weft.errors import DataError
from weft.tasks.tables import LONGEST_LINE

SIGNS = {".csv": ",;", ".tsv": "\t", ".txt": "\t,;"}  # of each format, its own one first
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
DECLARED = re.compile(r'("?)sep=([,;\t])\1(?=[\r\n])', re.IGNORECASE)


def separator(text: str, where: str, kind: str) -> str:
    """The sign that a first line declares, or that the header has between its names.

    Of several in the header, the one that every row has as often.

    Args:
        text: of the table.
        where: its file.
        kind: the suffix of its format, one of `SIGNS`.

    Raises:
        DataError: where two signs would do, or a `.txt` file has none.
    """
    if declared := DECLARED.match(text):
        return declared[2]
    signs = SIGNS[kind]
    if len(signs) == 1 or not text.strip():
        return signs[0]
    shown = [sign for sign in signs if max(_widths(text, sign, 1), default=0) > 1]
    even = [sign for sign in shown if len(_widths(text, sign)) == 1] if len(shown) > 1 else shown
    if len(even) > 1:
        raise _fault(
            f"columns may be separated by {' or by '.join(NAMES[sign] for sign in even)}: every row has as "
            "many of these as the header",
            where,
            "quote names and cells that hold the sign which does not separate columns, or save it as JSONL",
        )
    if not shown and kind == ".txt":
        raise _fault(
            "the first line has no tab, comma or semicolon between names of columns",
            where,
            "write such a line before the rows; a table of one column has the suffix .csv",
        )
    return [*even, *shown, signs[0]][0]


def undeclared(text: str) -> str:
    """The text with a blank line where it declares its separator: lines keep their numbers."""
    declared = DECLARED.match(text)
    return text[declared.end() :] if declared else text


def _widths(text: str, sign: str, most: int | None = None) -> set[int]:
    """Numbers of cells of the first rows, or of all, with this sign between cells."""
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign)
    try:
        return {len(cells) for cells in islice((cells for cells in reader if cells), most)}
    except csv.Error:  # a cell that is too long to be one
        return set()


def _fault(cause: str, where: str, fix: str) -> DataError:
    return DataError(cause, where=f"{where}:1", fix=fix, code="D07")
