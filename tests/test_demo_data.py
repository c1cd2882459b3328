"""The demo's rows: as many as declared, balanced, sealed, and none a copy of another."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from weft.config.files import load_config
from weft.config.task import TaskSpec
from weft.tasks import from_spec, load_spec

DEMO = Path(__file__).resolve().parents[1] / "demo"
SOURCE_ROWS = {"train": 100, "dev": 40, "test": 40}
SIZES = {
    **dict.fromkeys(("sentiment", "topic", "question", "spam", "paraphrase"), SOURCE_ROWS),
    "urgency": {"train": 72, "test": 120},
    "banking": {"train": 96, "test": 120},
    "formality": {"train": 64, "test": 120},
}
TASKS = sorted(SIZES)
NEAR = 0.15
SHARE = 0.02


def rows_of(name):
    """Every row of a task under `split:line`, read without weft."""
    return {
        f"{split}:{number}": json.loads(line)
        for split in SIZES[name]
        for number, line in enumerate(
            (DEMO / "data" / name / f"{split}.jsonl").read_text("utf-8").splitlines(), start=1
        )
    }


def words_of(row):
    """The words of a row's texts, in lower case and without punctuation."""
    text = " ".join(str(value) for key, value in row.items() if key != "label")
    return tuple(re.findall(r"[a-z0-9']+", text.lower()))


def grams_of(words):
    """The 3-grams of words; a text of fewer words is one gram."""
    return {words[i : i + 3] for i in range(len(words) - 2)} or {words}


def near_duplicates(rows, limit=NEAR):
    """Pairs of rows whose sets of 3-grams have a Jaccard index above the limit."""
    grams = {name: grams_of(words_of(row)) for name, row in rows.items()}
    holders = defaultdict(list)
    for name, found in grams.items():
        for gram in found:
            holders[gram].append(name)
    shared = Counter(
        (one, other) for names in holders.values() for i, one in enumerate(names) for other in names[i + 1 :]
    )
    pairs = {}
    for (one, other), count in shared.items():
        index = count / (len(grams[one]) + len(grams[other]) - count)
        if index > limit:
            pairs[frozenset((one, other))] = index
    return pairs


def test_demo_has_these_tasks_and_no_others():
    """Task files, data folders and the table above name the same eight tasks."""
    assert [path.stem for path in sorted((DEMO / "tasks").glob("*.yaml"))] == TASKS
    assert [path.name for path in sorted((DEMO / "data").iterdir())] == TASKS
    assert len(TASKS) == 8


@pytest.mark.parametrize("name", TASKS)
def test_splits_have_their_rows(name):
    """As many rows as declared, in the files that the task file names, and no other file."""
    task = from_spec(load_spec(DEMO / "tasks" / f"{name}.yaml"))
    assert {split: len(task.load(split)) for split in task.splits} == SIZES[name]
    files = sorted(path.name for path in (DEMO / "data" / name).iterdir())
    assert files == sorted(f"{split}.jsonl" for split in SIZES[name])


@pytest.mark.parametrize("name", TASKS)
def test_labels_are_balanced_in_every_split(name):
    """Every label has as many rows as every other, and every one is in the task file."""
    labels = load_config(DEMO / "tasks" / f"{name}.yaml", TaskSpec).labels
    rows = rows_of(name)
    for split, size in SIZES[name].items():
        counts = Counter(row["label"] for place, row in rows.items() if place.startswith(f"{split}:"))
        assert counts == dict.fromkeys(labels, size // len(labels))


@pytest.mark.parametrize("name", TASKS)
def test_test_rows_are_those_that_were_sealed(name):
    """The rows that scores are made of are the ones of the list, byte for byte."""
    listed = dict(
        reversed(line.split("  ", 1)) for line in (DEMO / "test-rows.sha256").read_text("utf-8").splitlines()
    )
    data = (DEMO / "data" / name / "test.jsonl").read_bytes()
    assert listed[f"{name}/test.jsonl"] == hashlib.sha256(data).hexdigest()
    assert len(listed) == len(TASKS)


def test_no_text_stands_twice():
    """No text occurs twice: not in a split, not in two splits, not in two tasks."""
    places = defaultdict(list)
    for name in TASKS:
        for place, row in rows_of(name).items():
            places[words_of(row)].append(f"{name}/{place}")
    assert len(places) > 1000
    assert {" ".join(words): found for words, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", TASKS)
def test_no_row_is_nearly_another(name):
    """No two rows of a task share more than 15 % of their 3-grams."""
    assert near_duplicates(rows_of(name)) == {}


@pytest.mark.parametrize("name", TASKS)
def test_no_phrase_runs_through_a_task(name):
    """No 3-gram is in more than 2 % of a task's rows (3 are always allowed): rows come from no template."""
    rows = rows_of(name)
    counts = Counter(gram for row in rows.values() for gram in grams_of(words_of(row)))
    limit = max(3, int(SHARE * len(rows)))
    assert {" ".join(gram): count for gram, count in counts.items() if count > limit} == {}


@pytest.mark.parametrize("name", TASKS)
def test_planted_copies_are_found(name):
    """The finder finds a copy with two words changed of every row of eleven words or more."""
    rows = rows_of(name)
    long = {place: row for place, row in rows.items() if len(words_of(row)) >= 11}
    assert len(long) > 5
    for place, row in long.items():
        words = list(words_of(row))
        words[len(words) // 3], words[2 * len(words) // 3] = "xyzzy", "plugh"
        found = near_duplicates({**rows, "planted": {"text": " ".join(words), "label": row["label"]}})
        assert frozenset((place, "planted")) in found


def test_index_of_two_rows_by_hand():
    """Two texts of five words that share two of four different 3-grams: index 1/2."""
    rows = {"a": {"text": "One two three, four five."}, "b": {"text": "one two three four SIX"}}
    assert near_duplicates(rows) == {frozenset("ab"): 0.5}
    assert near_duplicates(rows, limit=0.5) == {}
