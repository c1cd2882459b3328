"""Rows from tables, JSON, JSON lines and Parquet, read strictly: cells stay text, faults are errors.

Text is UTF-8, or UTF-16 that says so by its first bytes; it may be compressed by gzip.
"""

import codecs
import gzip
import itertools
import math
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from weft.errors import DataError
from weft.storage import sha256_file, sha256_json
from weft.tasks.json_rows import json_lines, json_rows
from weft.tasks.separators import NAMES, SIGNS, separator, undeclared
from weft.tasks.tables import LONGEST_LINE, quotes_are_marks, table, too_long
from weft.tasks.task import Row

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")
PACKED = ".gz"
INPUT = (Path("-"), Path("/dev/stdin"))
ELSEWHERE = (
    "name a file that is there; to score a finished run on rows that lie elsewhere: "
    "weft evaluate RUN FILE, or --data FOLDER"
)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, as column -> value; CSV and TSV cells stay text.

    Args:
        path: the file; `-` is standard input, as JSON lines.

    Raises:
        DataError: with file and line, if the file cannot be read or a line is not a row.
    """
    if path in INPUT:
        where, rows = "standard input", json_lines(_input(), "standard input")
    else:
        check_file(path)
        where, rows = str(path), _rows(path)
    if not rows:
        fix = "give one row or more; a table has a header line before them"
        raise DataError("the file has no rows", where=where, fix=fix, code="D13")
    return rows


def check_file(path: Path) -> None:
    """Refuse what is not a readable file of a known format.

    Raises:
        DataError: saying what it is.
    """
    if format_of(path) not in FORMATS:
        raise DataError(
            f"{path.suffix or 'no suffix'!r} is not a format that weft reads",
            where=str(path),
            fix=f"use one of {', '.join(FORMATS)}; text may be packed as {PACKED}",
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


def content_hash(path: Path) -> str:
    """SHA-256 of a file, and of whether its quotes are marks where that is not the format's own rule.

    Raises:
        DataError: as `check_file`, and for a table that may have tabs and is no text.
    """
    check_file(path)
    digest = sha256_file(path)
    return sha256_json(["quotes are marks", digest]) if _has_marks(path) else digest


def _has_marks(path: Path) -> bool:
    """Whether a table with tabs has quotes that are marks."""
    kind = format_of(path)
    if kind not in (".tsv", ".txt"):
        return False
    text, sign = _columns(path, kind)
    return sign == "\t" and quotes_are_marks(text)


def separated(path: Path) -> str:
    """What separates the columns of a table where it is not the sign of its format, such as `semicolons`.

    Empty for other files.

    Raises:
        DataError: as `read_rows`.
    """
    kind = format_of(path)
    if path in INPUT or len(SIGNS.get(kind, "")) < 2:
        return ""
    _, sign = _columns(path, kind)
    return "" if sign == SIGNS[kind][0] else NAMES[sign]


def format_of(path: Path) -> str:
    """The suffix that says the format, in lower case: `.csv` of `rows.CSV` and `rows.csv.gz`."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(PACKED)).suffix
    return name[-len(suffix + PACKED) :] if suffix == ".parquet" and name.endswith(PACKED) else suffix


def _rows(path: Path) -> list[Row]:
    kind, where = format_of(path), str(path)
    if kind == ".parquet":
        return _checked(_parquet(path), where)
    if kind == ".json":
        return _checked(json_rows(_text(path, whole=True), where), where)
    if kind == ".jsonl":
        return json_lines(_text(path, whole=False), where)
    text, sign = _columns(path, kind)
    return table(text, where, sign)


def _columns(path: Path, kind: str) -> tuple[str, str]:
    """A table's text, and what separates its columns."""
    text = _text(path, whole=False)
    return undeclared(text), separator(text, str(path), kind)


def _text(path: Path, *, whole: bool) -> str:
    """A file's text. Long lines are refused, except where the file is one value."""
    try:
        with path.open("rb") as file:
            content = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
            data = content.read() if whole else b"".join(_lines(content.readline, str(path)))
    except (OSError, EOFError, zlib.error) as error:
        cause = f"cannot read the file: {getattr(error, 'strerror', None) or error}"
        raise DataError(cause, where=str(path), code="D23") from None
    return decoded(data, str(path))


def _input() -> str:
    return decoded(b"".join(_lines(sys.stdin.buffer.readline, "standard input")), "standard input")


def decoded(data: bytes, where: str) -> str:
    """Text of bytes, without a mark at its beginning.

    Raises:
        DataError: with the line, if it is no text.
    """
    try:
        text = data.decode("utf-16" if data[:2] in UTF16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        code = "UTF-16" if data[:2] in UTF16 else "UTF-8"
        raise DataError(
            f"not {code}: byte {error.start} is {data[error.start]:#04x}",
            where=f"{where}:{line}",
            fix=_packed(data) or "save the file as UTF-8",
            code="D08",
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        fix = _packed(data) or "save the file as UTF-8"
        raise DataError("a NUL character", where=f"{where}:{line}", fix=fix, code="D08")
    return text


def _packed(data: bytes) -> str:
    """What to do with an archive or a workbook under a wrong name; nothing for other data."""
    zipped = data.startswith(b"PK\3\4")
    return "this is a zip archive or a workbook: unpack it, or save the sheet as CSV UTF-8" if zipped else ""


def _lines(readline: Callable[[int], bytes], where: str) -> Iterator[bytes]:
    """The file's lines; one that is too long is refused before more of it is read."""
    for number in itertools.count(1):
        line = readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            raise too_long(f"{where}:{number}")
        if not line:
            return
        yield line


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"not a readable Parquet file: {error}", where=str(path), code="D07") from None
    return rows


def _checked(rows: list[Row], where: str) -> list[Row]:
    """Refuse a cell that is too long; a float that is no number is a gap, as Parquet writers mean it."""
    for number, row in enumerate(rows, start=1):
        for column, value in row.items():
            if isinstance(value, float) and math.isnan(value):
                row[column] = None
            elif isinstance(value, str) and len(value) > LONGEST_LINE:
                raise too_long(f"{where}, row {number} ({column})")
    return rows
