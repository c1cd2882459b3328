"""Rows from CSV, TSV, JSONL and Parquet, read strictly: cells stay text, broken lines are errors."""

import csv
import io
import itertools
import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from weft.errors import DataError
from weft.storage import strict_json
from weft.tasks.task import Row

LONGEST_LINE = 1 << 20  # bytes of a line, and characters of a cell
ELSEWHERE = (
    "name a file that is there; to score a finished run on rows that lie elsewhere: "
    "weft evaluate RUN FILE, or --data FOLDER"
)
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, as column -> value; CSV and TSV cells stay text.

    Raises:
        DataError: with file and line, if the file cannot be read or a line is not a row.
    """
    check_file(path)
    if path.suffix == ".parquet":
        rows = _parquet(path)
    elif path.suffix == ".jsonl":
        rows = _json_lines(_text(path), path)
    else:
        rows = _table(_text(path), path, "\t" if path.suffix == ".tsv" else ",")
    if not rows:
        raise DataError(
            "the file has no rows",
            where=str(path),
            fix="give it a row below the names of columns",
            code="D13",
        )
    return rows


def check_file(path: Path) -> None:
    """Refuse what is not a readable file of a known format.

    Raises:
        DataError: saying what it is.
    """
    if path.suffix not in FORMATS:
        raise DataError(
            f"{path.suffix or 'no suffix'!r} is not a format that weft reads",
            where=str(path),
            fix=f"use one of {', '.join(FORMATS)}",
            code="D23",
        )
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(
            f"cannot open the file: {error.strerror}",
            where=str(path),
            fix=ELSEWHERE,
            code="D23",
        ) from None
    if not stat.S_ISREG(mode):
        raise DataError(
            "this is not an ordinary file", where=str(path), fix="name a file with rows", code="D23"
        )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = b"".join(_lines(file, path))
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", where=str(path), code="D23") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"not UTF-8: byte {error.start} is {data[error.start]:#04x}",
            where=f"{path}:{line}",
            fix="save the file as UTF-8",
            code="D08",
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError("a NUL character", where=f"{path}:{line}", fix="save the file as UTF-8", code="D08")
    return text


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The file's lines; one that is too long is refused before more of it is read."""
    for number in itertools.count(1):
        line = file.readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            raise _too_long(f"{path}:{number}")
        if not line:
            return
        yield line


def _too_long(where: str) -> DataError:
    return DataError(
        f"a line or cell of more than {LONGEST_LINE:,} bytes",
        where=where,
        fix="cut the text into rows, or check that the file has line ends",
        code="D22",
    )


def _table(text: str, path: Path, delimiter: str) -> list[Row]:
    """Rows of a CSV or TSV file; every row must have as many cells as the header.

    A quote in a TSV is a sign like any other, as in the files of GLUE: there a cell never holds a tab.
    """
    csv.field_size_limit(LONGEST_LINE)
    lines = io.StringIO(text, newline="")
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    start = 1  # line where the row that is being read begins
    try:
        for cells in reader:
            start = reader.line_num + 1
            if header is None:
                header = _header(cells, path, delimiter)
            elif cells:
                rows.append(_row(header, cells, f"{path}:{reader.line_num}"))
    except csv.Error as error:
        if "field larger than" in str(error):
            raise _too_long(f"{path}:{start}") from None
        raise DataError(
            f"broken line: {error}", where=f"{path}:{start}", fix="close every quote", code="D07"
        ) from None
    return rows


def _header(cells: list[str], path: Path, delimiter: str) -> list[str]:
    other = (
        next((sign for sign in ";\t,|" if sign != delimiter and sign in cells[0]), None) if cells else None
    )
    if len(cells) == 1 and other:
        raise DataError(
            f"the header has one column and {other!r} in it",
            where=f"{path}:1",
            fix=f"separate the columns by {delimiter!r}",
            code="D07",
        )
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if twice:
        raise DataError(f"column named twice: {', '.join(twice)}", where=f"{path}:1", code="D07")
    return cells


def _row(header: list[str], cells: list[str], where: str) -> Row:
    if len(cells) != len(header):
        raise DataError(
            f"{len(cells)} cells under {len(header)} columns",
            where=where,
            fix="quote cells that hold the separator",
            code="D07",
        )
    return dict(zip(header, cells, strict=True))


def _json_lines(text: str, path: Path) -> list[Row]:
    return [
        _json_row(line, f"{path}:{number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _json_row(line: str, where: str) -> Row:
    try:
        row = strict_json(line.encode())
        json.dumps(row, ensure_ascii=False).encode()  # half a character cannot be written
    except ValueError as error:
        raise DataError(f"not a JSON object: {error}", where=where, code="D07") from None
    if not isinstance(row, dict):
        raise DataError(f"a row must be a JSON object, not {type(row).__name__}", where=where, code="D07")
    return row


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"not a readable Parquet file: {error}", where=str(path), code="D07") from None
    for number, row in enumerate(rows, start=1):
        _check_cells(row, f"{path}, row {number}")
    return rows


def _check_cells(row: Row, where: str) -> None:
    """Refuse a cell that is too long; a float that is no number is a gap, as Parquet writers mean it."""
    for column, value in row.items():
        if isinstance(value, float) and math.isnan(value):
            row[column] = None
        elif isinstance(value, str) and len(value) > LONGEST_LINE:
            raise _too_long(f"{where} ({column})")
