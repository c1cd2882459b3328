"""Templates: what becomes text and how, what is refused, and fields of fields."""

import datetime
import decimal
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.config.task import TaskSpec
from weft.errors import ConfigError, DataError
from weft.tasks import from_spec, template


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is ", "as it is "),
        ("", ""),
        (b"caf\xc3\xa9", "café"),
        (bytearray(b"x"), "x"),
        (3, "3"),
        (True, "True"),
        (2.5, "2.5"),
        (np.int64(7), "7"),
        (np.float32(0.5), "0.5"),
        (np.str_("word"), "word"),
        (np.array("word"), "word"),
        (torch.tensor(3), "3"),
        (np.float32(0.1), "0.1"),
        (datetime.date(2026, 11, 28), "2026-11-28"),
        (decimal.Decimal("1.10"), "1.10"),
    ],
)
def test_single_values_become_text(value, text):
    """As the module says; NumPy's as Python's."""
    assert template.fill("<{a}>", {"a": value}) == f"<{text}>"


@pytest.mark.parametrize(
    "value",
    [None, float("nan"), np.ma.masked, np.array(None), np.float32("nan"), np.float64("nan"), pd.NA, pd.NaT],
)
def test_what_is_missing_is_refused(value):
    """Null, and what pandas writes for it: no text says `nan`."""
    assert template.missing("a", {"a": value})
    with pytest.raises(DataError, match="'a' is empty") as caught:
        template.fill("{a}", {"a": value})
    assert caught.value.code == "D02"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a", "b"], "holds a list"),
        ((), "holds a list"),
        ({"x"}, "holds a list"),
        (np.array(["a"]), "holds a list"),
        ({"text": "t"}, "{a.text}"),
        (b"\xff\xfe", "no UTF-8"),
    ],
)
def test_what_has_parts_is_refused(value, message):
    """Lists, objects and bytes of another code; the remedy is named."""
    assert not template.missing("a", {"a": value})
    with pytest.raises(DataError) as caught:
        template.fill("{a}", {"a": value})
    assert message in str(caught.value)


def test_fields_of_fields():
    """`{a.b.c}`; a column of that very name comes first; what is not there is named."""
    row = {"a": {"b": {"c": 5}, "n": None}, "a.n": "own"}
    assert template.fill("{a.b.c} {a.n}", row) == "5 own"
    assert not template.has("a.x", row)
    with pytest.raises(DataError, match=r"no 'a\.x'; it has a, a\.n"):
        template.fill("{a.x}", row)


def test_names_are_found_in_another_spelling():
    """Composed accents, blanks around a column's name, a number as a name; the very name comes first."""
    assert template.fill("{caf\u00e9}", {"cafe\u0301": "x"}) == "x"
    assert template.fill("{cafe\u0301.a}", {" caf\u00e9": {"a ": "x"}}) == "x"
    assert template.fill("{0}", {0: "x"}) == "x"
    assert template.fill("{text}", {"text ": "other", "text": "x"}) == "x"
    assert template.missing("text", {"text ": None})
    assert template.has("text", {" text": None})
    with pytest.raises(DataError, match="no 'text'; it has Text"):
        template.fill("{text}", {"Text": "x"})


@given(st.dictionaries(st.sampled_from("abc"), st.text() | st.integers() | st.booleans(), min_size=3))
def test_a_text_is_the_template_with_its_values(row):
    """As str.format writes it."""
    assert template.fill("x {a} y {b}{c} z", row) == f"x {row['a']} y {row['b']}{row['c']} z"


def spec_of(tmp_path, **more):
    given = {"name": "t", "source": "{text}", "target": "{label}", "folder": str(tmp_path), **more}
    return TaskSpec.model_validate({"files": {"train": "train.jsonl"}, **given})


def rows_in(tmp_path, *rows):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_bytes_of_a_parquet_file_are_text(tmp_path):
    """Columns without a type of text, as several programs write them, in texts and answers."""
    table = pa.table({"text": pa.array([b"so good"], pa.binary()), "label": pa.array([b"yes"], pa.binary())})
    pq.write_table(table, tmp_path / "t.parquet")
    [one] = from_spec(spec_of(tmp_path, files={"train": "t.parquet"})).load("train")
    assert (one.source, one.target) == ("so good", "yes")


def test_a_list_of_answers_is_no_answer(tmp_path):
    """The row is named, and the key that takes a list."""
    rows_in(tmp_path, {"text": "a", "label": "yes"}, {"text": "b", "label": ["yes", "YES"]})
    with pytest.raises(DataError, match="'label' holds a list") as caught:
        from_spec(spec_of(tmp_path)).load("train")
    assert "row 2" in str(caught.value.where)
    assert "references" in str(caught.value.fix)


def test_rows_without_an_answer_are_dropped_by_one_word(tmp_path):
    """An empty cell and null alike, where `""` is among what is dropped; they are counted."""
    rows_in(tmp_path, {"text": "a", "label": "yes"}, {"text": "b", "label": None}, {"text": "c", "label": ""})
    task = from_spec(spec_of(tmp_path, drop=[""]))
    assert [one.source for one in task.load("train")] == ["a"]
    assert task.accounting("train") == {
        "read": 3,
        "used": 1,
        "dropped": {"no answer": 1, "answer '' is left out": 1},
    }
    with pytest.raises(DataError, match="1 rows have no 'label': row 2"):
        from_spec(spec_of(tmp_path)).load("train")


def test_a_column_of_objects_gives_its_parts(tmp_path):
    """In the rows of a file, with the fault of a row that lacks one."""
    rows_in(tmp_path, {"text": {"body": "a"}, "label": "yes"})
    assert from_spec(spec_of(tmp_path, source="{text.body}")).load("train")[0].source == "a"
    rows_in(tmp_path, {"text": {"body": "a"}, "label": "yes"}, {"text": {}, "label": "no"})
    with pytest.raises(DataError, match=r"1 rows have no 'text\.body': row 2"):
        from_spec(spec_of(tmp_path, source="{text.body}")).load("train")


@pytest.mark.parametrize("source", ["{{text}}", "Review: {{ text }}"])
def test_braces_of_other_template_languages_are_refused(tmp_path, source):
    """They would stand around every text."""
    with pytest.raises((ConfigError, ValueError), match=r"write \{text\}"):
        spec_of(tmp_path, source=source)
