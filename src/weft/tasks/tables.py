"""Rows of CSV and TSV text, read strictly: cells stay text, broken lines are errors.

A quote marks a cell where commas or semicolons separate cells. Where tabs do, it may be a mark, as
spreadsheets and pandas write it, or a sign like any other, as in the files of GLUE. One rule decides for the
whole file, see `quotes_are_marks`.
"""

import csv
import io
import re

from weft.errors import DataError
from weft.tasks.task import Row
from weft.tasks.values import normal

LONGEST_LINE = 1 << 20  # bytes of a line, and characters of a cell
CELL = re.compile(r'("[^"]*(?:""[^"]*)*"|[^"\t\r\n]*)(\t|\r\n?|\n|\Z)')  # of a TSV file with marks
Lines = list[tuple[int, list[str]]]  # number of the line where a row ends, and its cells


def table(text: str, where: str, delimiter: str) -> list[Row]:
    """Rows of a table; every row must have as many cells as the header.

    Blank lines are skipped, and so are rows without any value at the end, and columns without name and value.

    Raises:
        DataError: with the line.
    """
    if delimiter != "\t":
        _check_backslashes(text, where, delimiter)
    marks = delimiter != "\t" or quotes_are_marks(text)
    lines = _lines(text, where, delimiter, marks)
    if not lines:
        return []
    header = lines[0][1]
    for number, cells in lines[1:]:
        _check_row(header, cells, f"{where}:{number}", delimiter, marks)
    rows = _without_blank_end(lines[1:])
    named = _named(header, rows, where)
    return [{header[k]: cells[k] for k in named} for _, cells in rows]


def too_long(where: str) -> DataError:
    """The fault of a line or cell that is too long to be one."""
    return DataError(
        f"a line or cell of more than {LONGEST_LINE:,} bytes",
        where=where,
        fix="cut the text into rows, or check that the file has line ends",
        code="D22",
    )


def quotes_are_marks(text: str) -> bool:
    """Whether the quotes of a TSV text mark cells, and are no signs of the texts.

    They do where the whole file is written so: no cell has a quote without being quoted, every row has the
    header's number of cells, and quoting shows. It shows where a quoted cell holds a doubled quote, a tab or
    a line end; where the header is quoted; or where the cells with a comma, and only they, are quoted.
    """
    rows = _raw_rows(text) if '"' in text else []
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return False
    quoted = [cell[1:-1] for row in rows for cell in row if cell.startswith('"')]
    bare = [cell for row in rows for cell in row if not cell.startswith('"')]
    commas = all("," in cell for cell in quoted) and not any("," in cell for cell in bare)
    header = all(cell.startswith('"') for cell in rows[0])
    return commas or header or any(re.search(r'["\t\r\n]', cell) for cell in quoted)


def _check_backslashes(text: str, where: str, delimiter: str) -> None:
    """Refuse quotes behind backslashes in a CSV text that doubles none: they would stay in its cells."""
    found = re.search(rf'\\"(?![{delimiter}\r\n]|\Z)', text) if '""' not in text else None
    if found:
        raise DataError(
            'a quote stands behind a backslash: \\"',
            where=f"{where}:{text.count(chr(10), 0, found.start()) + 1}",
            fix="write a quote inside a quoted cell twice, as CSV writers do",
            code="D07",
        )


def _raw_rows(text: str) -> list[list[str]]:
    """Cells with the quotes around them; none if a quote stands where none can mark a cell."""
    rows: list[list[str]] = [[]]
    place = 0
    while place < len(text):
        found = CELL.match(text, place)
        if not found:
            return []
        rows[-1].append(found[1])
        place = found.end()
        if found[2] != "\t":
            rows.append([])
    return [row for row in rows if row not in ([], [""])]


def _lines(text: str, where: str, delimiter: str, marks: bool) -> Lines:
    """The cells of all lines that are not blank."""
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        quoting=csv.QUOTE_MINIMAL if marks else csv.QUOTE_NONE,
        skipinitialspace=_spaced(text, delimiter),
    )
    found: Lines = []
    start = 1  # line where the row that is being read begins
    try:
        for cells in reader:
            start = reader.line_num + 1
            if cells and not found:
                _check_header(cells, where, delimiter)
            if cells:
                found.append((reader.line_num, cells))
    except csv.Error as error:
        if "field larger than" in str(error):
            raise too_long(f"{where}:{start}") from None
        fix = "close every quote, and write a quote inside a quoted cell twice"
        raise DataError(f"broken line: {error}", where=f"{where}:{start}", fix=fix, code="D07") from None
    return found


def _spaced(text: str, delimiter: str) -> bool:
    """Whether a space after the separator is none of the cell: it stands after each one of a CSV header."""
    first = re.match(r"\s*([^\r\n]*)", text)
    names = next(csv.reader([first[1]], delimiter=delimiter), [])[1:] if first and delimiter != "\t" else []
    return bool(names) and all(name.startswith(" ") for name in names)


def _check_header(cells: list[str], where: str, delimiter: str) -> None:
    """Refuse columns that are separated otherwise, have one name, or none."""
    other = next((sign for sign in ";\t,|" if sign != delimiter and sign in cells[0]), None)
    if len(cells) == 1 and other:
        raise DataError(
            f"the header has one column and {other!r} in it",
            where=f"{where}:1",
            fix=f"separate the columns by {delimiter!r}",
            code="D07",
        )
    names = [normal(cell) for cell in cells]
    twice = sorted({cell for cell, name in zip(cells, names, strict=True) if name and names.count(name) > 1})
    if twice:
        cause = f"column named twice: {', '.join(twice)}"
        raise DataError(cause, where=f"{where}:1", fix="give every column a name of its own", code="D07")
    if not any(names):
        fix = "name the columns in the first line"
        raise DataError("the header has no names", where=f"{where}:1", fix=fix, code="D07")


def _check_row(header: list[str], cells: list[str], where: str, delimiter: str, marks: bool) -> None:
    """Refuse a row of another width, and marks in a TSV file whose other quotes are signs of the texts."""
    if len(cells) != len(header):
        cause = f"{len(cells)} cells under {len(header)} columns"
        raise DataError(cause, where=where, fix=_width_fix(delimiter, marks), code="D07")
    if not marks and any(re.fullmatch(r'".*(""|\\").*"', cell) for cell in cells):
        raise DataError(
            "a cell is quoted and has doubled quotes, and other quotes of the file stand in bare cells",
            where=where,
            fix="quote every cell that holds a quote, as CSV writers do, or none; JSONL leaves no such doubt",
            code="D07",
        )


def _width_fix(delimiter: str, marks: bool) -> str:
    if delimiter == ";":
        return "quote cells that hold semicolons: as the header has them, they separate the columns"
    if delimiter == ",":
        return "quote cells that hold the separator"
    if marks:
        return "separate the cells by one tab each, and quote cells that hold one"
    return (
        "write one row a line, and tabs between cells alone. If cells hold tabs or line ends, quote these "
        "and every cell that holds a quote, and write that twice; or save the rows as CSV or JSONL"
    )


def _without_blank_end(rows: Lines) -> Lines:
    """The rows up to the last one with a value: spreadsheets write empty ones of several cells after it."""
    filled = [i for i, (_, cells) in enumerate(rows) if len(cells) == 1 or any(map(str.strip, cells))]
    return rows[: filled[-1] + 1] if filled else []


def _named(header: list[str], rows: Lines, where: str) -> list[int]:
    """The columns with a name; a first one without is an index as pandas writes it, others must be empty.

    Raises:
        DataError: for a value that stands under no name.
    """
    nameless = [k for k, name in enumerate(header) if not name.strip()]
    filled = [(number, k) for number, cells in rows for k in nameless if k and cells[k].strip()]
    if filled:
        count = len({k for _, k in filled})
        raise DataError(
            f"{count} column{'s' if count > 1 else ''} without a name hold values",
            where=f"{where}:{filled[0][0]}, column {filled[0][1] + 1}",
            fix="name them in the first line, or empty them",
            code="D07",
        )
    return [k for k in range(len(header)) if k not in nameless]
