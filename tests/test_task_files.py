"""Reading rows: a cell is the text it is, and whatever is no row is refused with its place."""

import csv
import gzip
import hashlib
import io
import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.errors import DataError
from weft.tasks.files import content_hash, read_rows, separated
from weft.tasks.separators import NAMES

modest = settings(max_examples=150, deadline=None)
COLUMNS = ("text", "label", "a b")

cells = st.one_of(
    st.sampled_from(
        ["None", "NA", "N/A", "null", "nan", "01", "1e5", "", " ", "True", '"', '""', "a\nb", "a\r\nb"]
    ),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12),
    st.text(" ,;\t\"'\n\r|ab\u2028\u0085", max_size=12),
)
tables = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=5)
)


def stored(folder, name, data):
    """A file with these bytes."""
    path = Path(folder) / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refusal(path):
    """The error with which a file is refused."""
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert caught.value.exit_code == 3
    return caught.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for the examples of a property."""
    return tmp_path_factory.mktemp("rows")


# CSV and TSV


@modest
@given(table=tables, end=st.sampled_from(["\n", "\r\n"]), every=st.booleans())
def test_cells_come_back_as_they_were_written(folder, table, end, every):
    """What the standard library's writer writes, in either quoting, comes back character for character."""
    header = list(COLUMNS[: len(table[0])])
    text = io.StringIO(newline="")
    every |= any("\r" in cell for row in table for cell in row)  # which Python's writer forgets to quote
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([header, *table])
    table = [*table, ["x"] * len(header)]  # what is empty at the end is no row
    csv.writer(text, lineterminator=end).writerow(table[-1])
    rows = read_rows(stored(folder, "table.csv", text.getvalue()))
    assert rows == [dict(zip(header, row, strict=True)) for row in table]


marked = re.compile(r'".*(""|\\").*"', re.DOTALL)
plain = cells.filter(lambda cell: not set(cell) & set("\t\n\r") and not marked.fullmatch(cell))


@modest
@given(table=st.lists(st.tuples(plain, plain), min_size=1, max_size=5), end=st.sampled_from(["\n", "\r\n"]))
def test_quotes_in_a_tsv_are_plain_signs(folder, table, end):
    """Where a bare cell has one, cells come back character for character, also those that begin with one."""
    table = [*table, ('5" wide', "x")]
    text = end.join("\t".join(cells) for cells in [("text", "label"), *table])
    rows = read_rows(stored(folder, "table.tsv", text))
    assert rows == [{"text": text, "label": label} for text, label in table]


@modest
@given(table=tables, end=st.sampled_from(["\n", "\r\n"]), every=st.booleans())
def test_quotes_that_a_writer_put_into_a_tsv_mark_cells(folder, table, end, every):
    """What the standard library's writer writes with tabs comes back, where its quoting shows."""
    header = list(COLUMNS[: len(table[0])])
    table = [*table, ['a "quoted" word'] * len(header)]
    quoting = csv.QUOTE_ALL if every or any("\r" in x for row in table for x in row) else csv.QUOTE_MINIMAL
    text = io.StringIO(newline="")
    csv.writer(text, "excel-tab", lineterminator=end, quoting=quoting).writerows([header, *table])
    rows = read_rows(stored(folder, "table.tsv", text.getvalue()))
    assert rows == [dict(zip(header, row, strict=True)) for row in table]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"he said ""no"""\t1', 'he said "no"'),
        ('"two\nlines"\t1', "two\nlines"),
        ('"a\ttab"\t1', "a\ttab"),
        ('"yes, it is"\t1', "yes, it is"),  # as Excel saves it
        ('"no comma"\t1', '"no comma"'),
        ('"yes, it is"\t1\nwell, no\t0', '"yes, it is"'),
        ('"a" b\t1', '"a" b'),
        ('say "a"\t1', 'say "a"'),
        ('"\t1', '"'),
    ],
)
def test_one_rule_decides_on_the_quotes_of_a_tsv(tmp_path, line, text):
    """Doubled quotes, tabs, line ends, or commas that are all quoted: then they mark; else they are text."""
    assert read_rows(stored(tmp_path, "a.tsv", f"text\tlabel\n{line}\n"))[0] == {"text": text, "label": "1"}


def test_quoted_header_of_a_tsv_shows_that_all_is_quoted(tmp_path):
    """As pandas quotes with QUOTE_ALL or QUOTE_NONNUMERIC."""
    path = stored(tmp_path, "a.tsv", '"text"\t"label"\n"plain"\t1\n')
    assert read_rows(path) == [{"text": "plain", "label": "1"}]


@pytest.mark.parametrize("cell", ['"he said ""no"""', r'"he said \"no\""'])
def test_tsv_that_is_written_in_two_ways_is_refused(tmp_path, cell):
    """A quoted cell with quotes inside, and a bare cell with one: one of the two would be read wrongly."""
    path = stored(tmp_path, "a.tsv", f'text\tlabel\n5" wide\t1\n{cell}\t0\n')
    error = refusal(path)
    assert (error.code, error.where) == ("D07", f"{path}:3")
    assert "quote every cell that holds a quote" in error.fix


def test_advice_on_a_broken_tsv_fits_how_it_is_written(tmp_path):
    """A line break in a cell of a file with bare quotes: quoting that cell alone would not help."""
    path = stored(tmp_path, "a.tsv", 'text\tlabel\n5" wide\t1\n"two\nlines"\t0\n')
    error = refusal(path)
    assert (error.cause, error.where) == ("1 cells under 2 columns", f"{path}:3")
    assert "every cell that holds a quote" in error.fix


def test_how_quotes_of_a_tsv_are_read_is_part_of_its_hash(tmp_path):
    """A run's name must tell apart texts that are read in another way from the same bytes."""
    data = b'text\tlabel\n"a ""b"""\t1\n'
    digest = content_hash(stored(tmp_path, "a.tsv", data))
    assert digest not in (
        hashlib.sha256(data).hexdigest(),
        content_hash(stored(tmp_path, "b.tsv", data + b"x\t2\n")),
    )
    data = b'text\tlabel\na "b"\t1\n'
    assert content_hash(stored(tmp_path, "c.tsv", data)) == hashlib.sha256(data).hexdigest()


def test_empty_rows_and_columns_of_a_spreadsheet_are_left_out(tmp_path):
    """Columns without name and value, an index as pandas writes it, and rows without values at the end."""
    expected = [{"a": "1", "b": "2"}, {"a": "", "b": ""}, {"a": "3", "b": "4"}]
    data = "a,b,,\n1,2,, \n,,,\n3,4,,\n,,,\n , ,,\n"
    assert read_rows(stored(tmp_path, "a.csv", data)) == expected
    assert read_rows(stored(tmp_path, "a.csv", ",a,b\n0,1,2\n1,,\n2,3,4\n")) == expected
    assert read_rows(stored(tmp_path, "a.csv", 'a\n1\n""\n')) == [{"a": "1"}, {"a": ""}]  # a row was meant


def test_value_under_no_name_is_refused(tmp_path):
    """With its line and column."""
    path = stored(tmp_path, "a.csv", "a,,b,\n1,,2,\n3,x,4,y\n")
    error = refusal(path)
    assert error.cause == "2 columns without a name hold values"
    assert (error.where, error.code) == (f"{path}:3, column 2", "D07")
    assert "name them" in error.fix
    assert refusal(stored(tmp_path, "b.csv", ",,\na,b,c\n")).cause == "the header has no names"


def test_spaces_after_the_commas_of_a_header_are_those_of_the_file(tmp_path):
    """A CSV typed by hand; in any other, a blank is part of its cell."""
    path = stored(tmp_path, "a.csv", 'a, b\n"x, y", "1"\nz, 2\n')
    assert read_rows(path) == [{"a": "x, y", "b": "1"}, {"a": "z", "b": "2"}]
    assert read_rows(stored(tmp_path, "b.csv", "a,b, c\n1, 2, 3\n")) == [{"a": "1", "b": " 2", " c": " 3"}]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_every_line_end_ends_a_line(tmp_path, name, end):
    """Those of old Macs too."""
    text = {"a.csv": "a,b\n1,2\n\n3,4", "a.tsv": "a\tb\n1\t2\n3\t4\n"}.get(name)
    text = text or '{"a": "1", "b": "2"}\n{"a": "3", "b": "4"}\n'
    expected = [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert read_rows(stored(tmp_path, name, text.replace("\n", end))) == expected


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf16_that_says_so_is_read(tmp_path, order):
    """As spreadsheets and shells of Windows write text."""
    data = "\ufefftext\tlabel\ncafé 👍\t1\n".encode(order)
    assert read_rows(stored(tmp_path, "a.tsv", data)) == [{"text": "café 👍", "label": "1"}]
    assert refusal(stored(tmp_path, "b.csv", data + b"x")).cause.startswith("not UTF-16: byte")


def test_workbook_named_csv_is_told(tmp_path):
    """Neither its bytes nor a NUL are what the user has to hear of."""
    path = stored(tmp_path, "a.csv", b"PK\3\4" + bytes(20))
    assert "workbook" in refusal(path).fix
    assert "workbook" in refusal(stored(tmp_path, "b.csv", b"PK\3\4\xff")).fix


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.tsv"])
@pytest.mark.parametrize("length", [1 << 20, (1 << 20) + 1])
def test_line_of_more_than_a_mebibyte_is_refused_with_its_number(tmp_path, name, length):
    """The longest line is 1 MiB with its end, whatever the format."""
    head, before, after = {
        "a.csv": ("a,b\n", "", ",1\n"),
        "a.tsv": ("a\tb\n", "", "\t1\n"),
        "a.jsonl": ('{"a": "1"}\n', '{"a": "', '"}\n'),
    }[name]
    text = "x" * (length - len(before) - len(after))
    path = stored(tmp_path, name, head + before + text + after)
    if length <= 1 << 20:
        assert read_rows(path)[-1]["a"] == text
        return
    error = refusal(path)
    assert (error.code, error.where) == ("D22", f"{path}:2")


def test_long_cell_of_many_lines_or_in_parquet_is_refused(tmp_path):
    """The cap holds for cells that no line shows: a quoted one over many lines, and Parquet's."""
    rows = "\n".join(["x" * 1000] * 1100)
    assert refusal(stored(tmp_path, "a.csv", f'a,b\n"{rows}",2\n')).code == "D22"
    pq.write_table(pa.table({"a": ["1", rows]}), tmp_path / "a.parquet")
    error = refusal(tmp_path / "a.parquet")
    assert (error.code, error.where) == ("D22", f"{tmp_path / 'a.parquet'}, row 2 (a)")


def test_number_that_is_none_in_parquet_is_a_gap(tmp_path):
    """NaN in a column of floats is what writers put for a missing value; it is not the text "nan"."""
    pq.write_table(pa.table({"a": [1.5, float("nan"), None]}), tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet") == [{"a": 1.5}, {"a": None}, {"a": None}]


@pytest.mark.parametrize(
    "cell", ["None", "NA", "null", "NaN", "01", "1.0", "true", "", " a ", "\u2028", "'", "é"]
)
def test_cell_is_text_and_nothing_else(tmp_path, cell):
    """No cell turns into a number, a truth value or a gap, and no blank is lost."""
    assert read_rows(stored(tmp_path, "a.csv", f"a,b\n{cell},1\n")) == [{"a": cell, "b": "1"}]


def test_quoted_cells_hold_commas_quotes_and_lines(tmp_path):
    """Quoting as RFC 4180 has it, by hand."""
    data = 'a,b\r\n"x, ""y""\r\nz",2\r\n'
    assert read_rows(stored(tmp_path, "a.csv", data)) == [{"a": 'x, "y"\r\nz', "b": "2"}]


def test_backslashes_that_are_text_are_read(tmp_path):
    """At the end of a quoted cell, and where quotes are doubled."""
    assert read_rows(stored(tmp_path, "a.csv", 'a,b\n"C:\\","D:\\"\n')) == [{"a": "C:\\", "b": "D:\\"}]
    assert read_rows(stored(tmp_path, "a.csv", 'a,b\n"say \\""x",2\n')) == [{"a": 'say \\"x', "b": "2"}]


def test_last_line_needs_no_end_and_blank_lines_are_skipped(tmp_path):
    """A file without a line end at its end, and one with blank lines, read alike."""
    expected = [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert read_rows(stored(tmp_path, "a.csv", "a,b\n1,2\n3,4")) == expected
    assert read_rows(stored(tmp_path, "a.csv", "a,b\n\n1,2\n\n3,4\n\n")) == expected


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path, name):
    """A file saved by a spreadsheet starts with a mark, which belongs to no name."""
    text = {"a.csv": "a,b\n1,2\n", "a.tsv": "a\tb\n1\t2\n", "a.jsonl": '{"a": "1", "b": "2"}\n'}[name]
    assert read_rows(stored(tmp_path, name, b"\xef\xbb\xbf" + text.encode())) == [{"a": "1", "b": "2"}]


def test_long_cell_is_read(tmp_path):
    """A document of 200,000 characters is a cell like any other."""
    assert read_rows(stored(tmp_path, "a.csv", f"a,b\n{'x' * 200_000},2\n")) == [
        {"a": "x" * 200_000, "b": "2"}
    ]


FAULTS = {
    "cell too many": ("a.csv", b"a,b\n1,2\n3,4,5\n", "3 cells under 2 columns", "D07", 3),
    "cell too few": ("a.csv", b"a,b\n1,2\n3\n", "1 cells under 2 columns", "D07", 3),
    "cell too many after a cell of two lines": (
        "a.csv",
        b'a,b\n"x\ny",2\n3,4,5\n',
        "3 cells under 2",
        "D07",
        4,
    ),
    "cell too many in a TSV": ("a.tsv", b"a\tb\n1\t2\t3\n", "3 cells under 2 columns", "D07", 2),
    "open quote at the end": ("a.csv", b'a,b\n1,2\n3,"4\n', "broken line: unexpected end of data", "D07", 3),
    "text after a quote": ("a.csv", b'a,b\n1,"2"x\n3,4\n', "broken line: ',' expected after '\"'", "D07", 2),
    "cell too many with semicolons": ("a.csv", b"a;b\n1;2\n3;4;5\n", "3 cells under 2 columns", "D07", 3),
    "semicolons or commas": (
        "a.csv",
        b"a;b,c\n1;2,3\n",
        "columns may be separated by commas or by",
        "D07",
        1,
    ),
    "bars in a CSV": ("a.csv", b"a|b\n1|2\n", "the header has one column and '|' in it", "D07", 1),
    "backslashes with semicolons": ("a.csv", b'a;b\nsay \\"x\\",3;2\n', "a quote stands behind a", "D07", 2),
    "no sign in a .txt": ("a.txt", b"one text\nanother\n", "the first line has no tab, comma or", "D07", 1),
    "backslashes": ("a.csv", b'a,b\n1,2\nsay \\"x\\",3\n', "a quote stands behind a backslash", "D07", 3),
    "tabs in a CSV": ("a.csv", b"a\tb\n1\t2\n", "the header has one column and '\\t' in it", "D07", 1),
    "commas in a TSV": ("a.tsv", b"a,b\n1,2\n", "the header has one column and ',' in it", "D07", 1),
    "column twice": ("a.csv", b"a,b,a\n1,2,3\n", "column named twice: a", "D07", 1),
    "latin-1": ("a.csv", b"a,b\n1,2\n\xe9t\xe9,3\n", "not UTF-8: byte 8 is 0xe9", "D08", 3),
    "latin-1 in JSON": ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', "not UTF-8: byte 16 is 0xe9", "D08", 2),
    "UTF-16 without a mark": ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "a NUL character", "D08", 1),
    "column twice in two compositions": (
        "a.csv",
        "é,e\u0301\n1,2\n".encode(),
        "column named twice: ",
        "D07",
        1,
    ),
    "NUL": ("a.csv", b"a,b\n1,2\n\0,3\n", "a NUL character", "D08", 3),
    "NUL in JSON": ("a.jsonl", b'{"a": 1}\n\0\n', "a NUL character", "D08", 2),
    "NaN": ("a.jsonl", b'{"a": 1}\n{"a": NaN}\n', "not a JSON object: NaN is not a JSON number", "D07", 2),
    "infinity": ("a.jsonl", b'{"a": -Infinity}\n', "not a JSON object: -Infinity is not", "D07", 1),
    "key twice": ("a.jsonl", b'{"a": 1, "a": 1}\n', "not a JSON object: a key stands twice", "D07", 1),
    "key twice inside": (
        "a.jsonl",
        b'{"b": {"a": 1, "a": 1}}\n',
        "not a JSON object: a key stands",
        "D07",
        1,
    ),
    "array": ("a.jsonl", b'{"a": 1}\n\n["a"]\n', "a row must be a JSON object, not list", "D07", 3),
    "null": ("a.jsonl", b"null\n", "a row must be a JSON object, not NoneType", "D07", 1),
    "cut line": ("a.jsonl", b'{"a": 1}\n{"a": "te', "not a JSON object: Unterminated string", "D07", 2),
    "two objects on a line": ("a.jsonl", b'{"a": 1} {"a": 2}\n', "not a JSON object: Extra data", "D07", 1),
    "one array of objects": ("a.jsonl", b'[{"a": 1},\n{"a": 2}]\n', "not a JSON object", "D07", 1),
    "endless number": ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", "not a JSON object: Exceeds", "D07", 1),
    "endless nesting": (
        "a.jsonl",
        b'{"a": ' + b"[" * 100_000,
        "not a JSON object: nested too deep",
        "D07",
        1,
    ),
    "header alone": ("a.csv", b"a,b\n", "the file has no rows", "D13", None),
    "empty CSV": ("a.csv", b"", "the file has no rows", "D13", None),
    "empty TSV": ("a.tsv", b"", "the file has no rows", "D13", None),
    "empty JSONL": ("a.jsonl", b"\n\n", "the file has no rows", "D13", None),
    "empty Parquet": ("a.parquet", b"", "not a readable Parquet file", "D07", None),
    "no Parquet": ("a.parquet", b"PAR1" + b"x" * 100 + b"PAR1", "not a readable Parquet file", "D07", None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_has_cause_code_and_place(tmp_path, fault):
    """What is no row is a DataError with its number, the file, and the line where there is one."""
    name, data, cause, code, line = FAULTS[fault]
    path = stored(tmp_path, name, data)
    error = refusal(path)
    assert error.cause.startswith(cause)
    assert error.code == code
    assert error.where == (f"{path}:{line}" if line else str(path))


@pytest.mark.parametrize(
    "fault", ["semicolons or commas", "bars in a CSV", "cell too many", "latin-1", "open quote at the end"]
)
def test_common_faults_say_what_to_do(tmp_path, fault):
    """The faults of spreadsheets carry a remedy."""
    name, data, *_ = FAULTS[fault]
    assert refusal(stored(tmp_path, name, data)).fix


def test_open_quote_is_placed_where_it_was_opened(tmp_path):
    """A quote that is never closed swallows the file; the line to mend is the one where it began."""
    path = stored(tmp_path, "a.csv", 'a,b\n1,"2\n' + "3,4\n" * 100)
    assert refusal(path).where == f"{path}:2"


# signs between columns


@modest
@given(table=tables.filter(lambda table: len(table[0]) > 1), every=st.booleans())
def test_semicolons_are_read_as_a_writer_wrote_them(folder, table, every):
    """With a mark of UTF-8 or without, packed or not; numbers keep their decimal commas."""
    header, text = COLUMNS[: len(table[0])], io.StringIO()
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=";", quoting=quoting).writerows([header, *table, ["1,5"] * len(header)])
    data = b"\xef\xbb\xbf" * every + text.getvalue().encode()
    for name, stuff in (("table.csv", data), ("table.csv.gz", gzip.compress(data)), ("table.txt", data)):
        rows = read_rows(stored(folder, name, stuff))
        assert [tuple(row.values()) for row in rows] == [*map(tuple, table), ("1,5",) * len(header)]
        assert separated(Path(folder) / name) == "semicolons"


@pytest.mark.parametrize(
    ("name", "text", "sign"),
    [
        ("a.csv", "a,b;c\n1,2\n3;4,5\n", ","),  # every row has one comma, and not one semicolon
        ("a.csv", "a,b;c\n1;2\n3,4,5;6\n", ";"),
        ("a.csv", 'a,"b;c"\n1,2\n', ","),  # a quoted sign separates nothing
        ("a.csv", "a\n1;2\n3\n", ","),
        ("a.tsv", "a\tb;c\n1\t2;3\n", "\t"),
        ("a.txt", "a\tb\n1\t2,3\n", "\t"),
        ("a.txt", "a,b\n1,2\n", ","),
        ("a.txt", 'a\tb\n5" wide\t1\n', "\t"),  # tabs with quotes that are signs
    ],
)
def test_the_sign_is_that_of_the_header_and_of_every_row(tmp_path, name, text, sign):
    """What was read before there was a choice is read as before."""
    first = read_rows(stored(tmp_path, name, text))[0]
    head, body = (line.split(sign) for line in text.splitlines()[:2])
    assert (list(first), list(first.values())) == ([cell.strip('"') for cell in head], body)


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("first", ["sep={}\r\n", '"sep={}"\n', "SEP={}\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_a_first_line_may_declare_the_sign(tmp_path, sign, first, name):
    """As a spreadsheet takes it; where every row has another sign as often, it decides."""
    text = first.format(sign) + f"a{sign}b|c\n1{sign}2|3\n"
    file = stored(tmp_path, name, text.replace("|", ";" if sign == "," else ","))
    assert [list(row.values()) for row in read_rows(file)] == [["1", "2;3" if sign == "," else "2,3"]]
    own = "," if name == "a.csv" else "\t"
    assert separated(file) == ("" if sign == own else NAMES[sign])


def test_a_fault_behind_a_declared_sign_has_its_own_line(tmp_path):
    with pytest.raises(DataError, match="3 cells under 2 columns") as caught:
        read_rows(stored(tmp_path, "a.csv", "sep=;\na;b\n1;2\n1;2;3\n"))
    assert str(caught.value.where).endswith("a.csv:4")


def test_marks_in_a_txt_are_part_of_its_hash(tmp_path):
    """As in a TSV file."""
    data = b'"text"\t"label"\n"x"\t1\n'
    digests = {content_hash(stored(tmp_path, name, data)) for name in ("a.tsv", "a.txt")}
    assert len(digests) == 1
    assert digests != {hashlib.sha256(data).hexdigest()}


# JSON lines

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | cells,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(cells, inner, max_size=3),
    max_leaves=5,
)


@modest
@given(rows=st.lists(st.dictionaries(cells, values, max_size=3), min_size=1, max_size=5), ascii=st.booleans())
def test_json_values_come_back_as_they_were_written(folder, rows, ascii):
    """What the standard library writes, escaped or not, comes back equal."""
    text = "".join(json.dumps(row, ensure_ascii=ascii) + "\n" for row in rows)
    assert read_rows(stored(folder, "rows.jsonl", text)) == rows


def test_line_separators_in_a_text_do_not_cut_the_row(tmp_path):
    """U+2028, U+2029 and U+0085 are text inside a JSON string, not ends of a line."""
    text = "x\u2028y\u2029z\u0085"
    data = json.dumps({"a": text}, ensure_ascii=False) + "\n"
    assert read_rows(stored(tmp_path, "a.jsonl", data)) == [{"a": text}]


def test_blank_and_windows_lines_count_but_give_no_rows(tmp_path):
    """Blank lines are skipped, and the lines after them keep their numbers."""
    path = stored(tmp_path, "a.jsonl", b'{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    path = stored(tmp_path, "a.jsonl", b'{"a": 1}\r\n\r\n{"a": \r\n')
    assert refusal(path).where == f"{path}:3"


@pytest.mark.parametrize("text", [r'{"a": "\ud800"}', r'{"\udc00": "a"}'])
def test_half_a_character_is_refused(tmp_path, text):
    """A lone surrogate is no text: no tokenizer could read it."""
    path = stored(tmp_path, "a.jsonl", '{"a": "\\ud83d\\ude00"}\n' + text + "\n")
    assert refusal(path).where == f"{path}:2"


def test_number_too_large_is_refused(tmp_path):
    """1e999 is written as a number and is none; it must not become infinity."""
    path = stored(tmp_path, "a.jsonl", '{"a": 1}\n{"a": 1e999}\n')
    assert refusal(path).where == f"{path}:2"


# JSON in one piece


def test_list_of_objects_is_read(tmp_path):
    """In one line, of any length, or in many; or one object a line under the same suffix."""
    rows = [{"a": "x" * 300_000, "b": i} for i in range(4)]
    assert read_rows(stored(tmp_path, "a.json", json.dumps(rows))) == rows
    assert read_rows(stored(tmp_path, "a.json", json.dumps(rows, indent=1))) == rows
    assert read_rows(stored(tmp_path, "a.json", "\n".join(map(json.dumps, rows)))) == rows
    assert read_rows(stored(tmp_path, "a.json", '{"a": "one row"}\n')) == [{"a": "one row"}]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"data": [{"a": 1}]}', "the file holds one JSON object, and no list of rows"),
        ('{"a": {"0": "x"}}', "the file holds one JSON object, and no list of rows"),
        ('[{"a": 1}, 2]', "a row must be a JSON object, not int"),
        ('[{"a": 1}, {"a": ', "not a JSON list: "),
        ('[{"a": 1, "a": 2}]', "not a JSON list: a key stands twice"),
    ],
)
def test_json_that_is_no_list_of_rows_is_refused(tmp_path, text, cause):
    """With what to write."""
    error = refusal(stored(tmp_path, "a.json", text))
    assert error.cause.startswith(cause)
    assert error.code == "D07"
    assert "a list of objects" in error.fix


def test_long_cell_of_a_json_list_is_refused(tmp_path):
    """The cap on cells holds where there is none on lines."""
    assert refusal(stored(tmp_path, "a.json", json.dumps([{"a": "x" * ((1 << 20) + 1)}]))).code == "D22"


# Parquet


def test_parquet_values_come_back(tmp_path):
    """Text, numbers, lists and gaps of a Parquet file come back as Python has them."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["NA", None], "b": [1, 2], "c": [["x", "y"], []]}), path)
    assert read_rows(path) == [{"a": "NA", "b": 1, "c": ["x", "y"]}, {"a": None, "b": 2, "c": []}]


def test_cut_parquet_is_refused(tmp_path):
    """A download that broke off is refused wherever it broke off."""
    whole = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["text"] * 50}), whole)
    data = whole.read_bytes()
    for length in range(0, len(data), 17):
        assert refusal(stored(tmp_path, "cut.parquet", data[:length])).code == "D07"


def test_parquet_with_a_column_twice_is_refused(tmp_path):
    """Two columns of one name are refused, as in a CSV file."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"]), path)
    assert refusal(path).code == "D07"


def test_parquet_without_rows_is_refused(tmp_path):
    """A header alone is no data."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), path)
    assert refusal(path).code == "D13"


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path):
    """A text column with broken bytes is a DataError, not a traceback."""
    offsets, data = pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.StringArray.from_buffers(1, offsets, data)], names=["a"]), path)
    assert refusal(path).where.startswith(str(path))


# files that are none


@pytest.mark.parametrize("name", ["a.xlsx", "a.log", "a.csv.bz2", "a.gz"])
def test_unknown_suffix_names_the_formats(tmp_path, name):
    """A format that weft does not read is refused, with those that it reads."""
    error = refusal(stored(tmp_path, name, "a,b\n1,2\n"))
    assert error.cause == f"{Path(name).suffix!r} is not a format that weft reads"
    assert error.fix == "use one of .csv, .tsv, .txt, .jsonl, .json, .parquet; text may be packed as .gz"


def test_packed_parquet_is_refused(tmp_path):
    """It is packed in itself."""
    assert refusal(stored(tmp_path, "a.parquet.gz", b"x")).cause.startswith("'.gz' is not a format")


@pytest.mark.parametrize("name", ["A.CSV", "a.csv.gz", "a.CSV.GZ", "a.csv"])
@pytest.mark.parametrize("packed", [True, False])
def test_packed_text_and_capitals_are_read(tmp_path, name, packed):
    """By what the bytes are: browsers unpack a file and keep its name."""
    data = b"a,b\n1,2\n"
    path = stored(tmp_path, name, gzip.compress(data) if packed else data)
    assert read_rows(path) == [{"a": "1", "b": "2"}]


def test_broken_packed_file_is_refused(tmp_path):
    """A download that broke off, and bytes that are no gzip."""
    whole = gzip.compress(b"a,b\n1,2\n" * 50)
    for data in (whole[:-9], whole[:12], whole[:20] + b"xxxx" + whole[24:]):
        error = refusal(stored(tmp_path, "a.csv.gz", data))
        assert error.code in ("D23", "D08")
        assert error.cause.startswith("cannot read the file: ")


def test_standard_input_is_json_lines(monkeypatch):
    """Named `-`; its faults have their lines."""

    def given(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
        return Path("-")

    assert read_rows(given(b'{"a": 1}\n{"a": 2}\n')) == [{"a": 1}, {"a": 2}]
    assert refusal(given(b'{"a": 1}\nx\n')).where == "standard input:2"
    assert refusal(given(b"")).cause == "the file has no rows"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_missing_file_is_named(tmp_path, name):
    """A file that is not there."""
    error = refusal(tmp_path / name)
    assert (error.cause, error.where, error.code) == (
        "cannot open the file: No such file or directory",
        str(tmp_path / name),
        "D23",
    )


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_folder_is_no_file(tmp_path, name):
    """A folder, whatever its name."""
    (tmp_path / name).mkdir()
    error = refusal(tmp_path / name)
    assert (error.cause, error.code) == ("this is not an ordinary file", "D23")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_pipe_does_not_hang(tmp_path, name):
    """A named pipe is refused at once; reading it would wait for ever."""
    os.mkfifo(tmp_path / name)
    error = refusal(tmp_path / name)
    assert (error.cause, error.code) == ("this is not an ordinary file", "D23")


def test_link_to_nothing_is_refused(tmp_path):
    """A dangling link is a missing file."""
    (tmp_path / "a.csv").symlink_to(tmp_path / "gone.csv")
    assert refusal(tmp_path / "a.csv").code == "D23"


def test_link_to_a_file_is_read(tmp_path):
    """A link is as good as its file."""
    (tmp_path / "a.csv").symlink_to(stored(tmp_path, "b.csv", "a,b\n1,2\n"))
    assert read_rows(tmp_path / "a.csv") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
)
def test_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, error):
    """A file without permission, or on a failing disk, is a DataError that names it."""
    path = stored(tmp_path, "a.csv", "a,b\n1,2\n")

    def fail(self, mode):
        raise error

    monkeypatch.setattr(Path, "open", fail)
    assert refusal(path).where.startswith(str(path))
