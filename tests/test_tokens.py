"""Rows as flat arrays of tokens: the same as row by row, kept on the disk, and proven when read back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft import storage
from weft.data import encoding
from weft.data.batch import Encoded
from weft.data.encoding import EncodedTask, encode_task
from weft.data.token_store import SUFFIX, TokenRows, TokenStore, key_of
from weft.errors import DataError, ResourceError
from weft.tasks import Example

modest = settings(max_examples=100, deadline=None)
TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)
PAIRS = st.lists(st.tuples(TOKENS, TOKENS), max_size=8)
WORDS = ["yes", "no", "film", "book", "the", "is", "unheard", "red"]


def examples(count, seed=0, longest=9):
    """Texts of unlike length, each of them different, with answers of one or two words."""
    draw = np.random.default_rng(seed)

    def words(least, most):
        return " ".join(WORDS[i] for i in draw.integers(0, len(WORDS), draw.integers(least, most)))

    return [Example(f"{words(1, longest)} {i}", words(1, 3)) for i in range(count)]


@pytest.fixture
def small(monkeypatch):
    """Tasks of four rows are large, and the tokenizer is given three texts at a time."""
    monkeypatch.setattr(encoding, "LARGE", 4)
    monkeypatch.setattr(encoding, "CHUNK", 3)


@pytest.fixture
def store(tmp_path):
    """A store in a folder that is not there yet."""
    return TokenStore(tmp_path / "tokens")


def files_of(store):
    """The files of a store."""
    return sorted(store.folder.glob("*"))


# arrays


@modest
@given(PAIRS, PAIRS)
def test_rows_come_back_as_they_went_in(pairs, others):
    """One by one, in slices, from the end, and joined with others."""
    rows, more = ([Encoded(*pair) for pair in one] for one in (pairs, others))
    flat, both = TokenRows.of(rows), TokenRows.joined([TokenRows.of(rows), TokenRows.of(more)])
    assert list(flat) == rows
    assert list(both) == rows + more
    assert [both[-i - 1] for i in range(len(both))] == [*reversed(rows + more)]
    assert both[1:4] == tuple((rows + more)[1:4])
    assert flat.lengths.tolist() == [len(row.source) for row in rows]
    assert both.lengths.tolist() == EncodedTask("a", tuple(rows + more)).lengths.tolist()
    with pytest.raises(IndexError):
        flat[len(flat)]


def test_rows_are_told_apart_by_their_content():
    """However long, rows that differ in one token, or in where a row ends, are written in other words."""
    rows = [Encoded((i, i + 1), (1,)) for i in range(3000)]
    other = [*rows[:1500], Encoded((0, 0), (1,)), *rows[1501:]]
    moved = [
        Encoded((*rows[0].source, rows[1].source[0]), (1,)),
        Encoded(rows[1].source[1:], (1,)),
        *rows[2:],
    ]
    assert repr(TokenRows.of(rows)) == repr(TokenRows.of(rows))
    assert len({repr(EncodedTask("a", TokenRows.of(one))) for one in (rows, other, moved)}) == 3


def test_a_row_takes_its_tokens_and_little_more():
    """Four bytes a token and sixteen a row, whatever Python's tuples would take."""
    flat = TokenRows.of(Encoded(tuple(range(50)), (1, 2)) for _ in range(1000))
    assert len(flat.to_bytes(0)) == 32 + 1000 * (16 + 4 * 52)


# many texts at once


@pytest.mark.parametrize("limit", [1, 4, 256])
def test_many_at_once_are_encoded_as_one_by_one(backbone, small, limit):
    """Texts, answers, and how many were cut, for every family."""
    rows = [*examples(10), Example("film   book", "yes"), *examples(3, seed=1)]
    task = encode_task("a", rows, backbone, limit)
    texts = [backbone.text_tokens(one.source, limit) for one in rows]
    assert list(task.rows) == [backbone.encode(one.source, one.target, limit) for one in rows]
    assert task.cut == sum(cut for _, cut in texts)
    assert (task.cut > 0) == (limit < 256)


def test_no_rows_are_no_rows(backbones):
    """An empty task has none, and nothing was cut."""
    task = encode_task("a", [], backbones["t5"], 8)
    assert (len(task), task.cut, list(task.rows)) == (0, 0, [])


@pytest.mark.parametrize("name", ["llama-prefix", "t5", "bert"])
def test_a_text_without_a_token_is_refused(backbones, small, name):
    """Among many as alone, also where the tokenizer puts special tokens around every text."""
    rows = [*examples(5), Example("", "yes")]
    with pytest.raises(DataError, match="has no token") as caught:
        encode_task("a", rows, backbones[name], 8)
    assert caught.value.code == "D03"


# the store


class Counted:
    """A backbone's tokenizer that counts its calls."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, 0

    def __call__(self, *args, **kw):
        self.calls += 1
        return self.tokenizer(*args, **kw)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@pytest.fixture
def counting(make_backbone):
    """A backbone whose tokenizer counts its calls."""
    backbone = make_backbone("t5")
    backbone.tokenizer = Counted(backbone.tokenizer)
    return backbone


def test_a_large_task_is_tokenised_once(counting, store, small):
    """The second time its rows are mapped from one file, and are the same."""
    rows = examples(10)
    first = encode_task("a", rows, counting, 4, store)
    calls = counting.tokenizer.calls
    again = encode_task("b", rows, counting, 4, TokenStore(store.folder))
    assert counting.tokenizer.calls == calls > 0
    assert isinstance(again.rows.sources.base, np.memmap | np.ndarray)
    assert not again.rows.sources.flags.writeable
    assert (list(again.rows), again.cut) == (list(first.rows), first.cut)
    assert again.cut > 0
    assert len(files_of(store)) == 1


def test_a_small_task_needs_no_file(counting, store, small):
    """Below the limit nothing is written."""
    encode_task("a", examples(3), counting, 4, store)
    assert files_of(store) == []


def test_whatever_changes_a_token_changes_the_key(counting, store, small):
    """Another text, answer, order, limit, family or base model is another file."""
    rows = examples(5)
    encode_task("a", rows, counting, 4, store)
    encode_task("a", rows, counting, 5, store)
    encode_task("a", rows[::-1], counting, 4, store)
    encode_task("a", [*rows[:4], Example(rows[4].source, "other")], counting, 4, store)
    counting.base_hash = "another"
    encode_task("a", rows, counting, 4, store)
    assert len(files_of(store)) == 5


@modest
@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), max_size=3), st.data())
def test_texts_have_one_key_and_share_it_with_none(texts, draw):
    """Where one text ends and the next begins counts as well."""
    other = draw.draw(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), max_size=3))
    assert (key_of(["a"], texts) == key_of(["a"], other)) == (texts == other)
    assert key_of(["b"], texts) != key_of(["a"], texts)


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty"])
def test_a_damaged_file_is_made_anew(counting, store, small, damage):
    """A flipped bit anywhere, a torn or longer file: the rows are right, and the file is replaced."""
    rows = examples(8)
    right = list(encode_task("a", rows, counting, 4, store).rows)
    [path] = files_of(store)
    whole = path.read_bytes()
    places = range(0, len(whole), 37) if damage == "flip" else [0]
    for place in places:
        flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        path.write_bytes({"flip": flipped, "cut": whole[:-1], "grow": whole + b"\0", "empty": b""}[damage])
        calls = counting.tokenizer.calls
        assert list(encode_task("a", rows, counting, 4, store).rows) == right
        assert counting.tokenizer.calls > calls
        assert [one.read_bytes() for one in files_of(store)] == [whole]


def test_a_file_under_another_name_is_not_taken(counting, store, small):
    """The bytes must be those of the name, so a file of another task cannot stand in."""
    encode_task("a", examples(8), counting, 4, store)
    [path] = files_of(store)
    key = key_of(["x"], [])[:32]
    path.rename(path.with_name(f"{key}-{'0' * 64}{SUFFIX}"))
    assert store.get(key) is None


def test_a_disk_that_refuses_does_not_end_the_run(counting, store, small, monkeypatch):
    """The rows stay in memory."""

    def full(*_):
        raise ResourceError("no space", code="R06")

    monkeypatch.setattr(storage, "write_proven", full)
    rows = examples(8)
    task = encode_task("a", rows, counting, 4, store)
    assert list(task.rows) == [counting.encode(one.source, one.target, 4) for one in rows]


def test_rows_outlive_their_file(counting, store, small):
    """A file that another process removes stays readable to those that have mapped it."""
    rows = examples(8)
    encode_task("a", rows, counting, 4, store)
    task = encode_task("a", rows, counting, 4, store)
    for path in files_of(store):
        path.unlink()
    assert list(task.rows) == [counting.encode(one.source, one.target, 4) for one in rows]
