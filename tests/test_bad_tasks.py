"""Bad rows in open tasks, MultiRC and E2E: each fault is found before weights load, with counts."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import WORDS
from test_bad_inputs import base, no_weights
from tiny_job import command

from weft.runs import workspace
from weft.tasks import BUILTIN, from_spec, holdout, load_spec

__all__ = ["base"]  # a fixture
EXPERIMENT = """\
name: small
base: {model: base, dtype: float32}
prompt: {length: 4}
limits: {source_tokens: 40}
tasks: [builtin]
sources: [nq, newsqa]
targets: [searchqa, multirc, e2e]
seeds: [0]
teachers:
  optim: {lr: {prompt: 0.1}, steps: 2, batch_size: 2}
source:
  optim: {lr: {shared: 0.1, factors: 0.1}, steps: 2, batch_size: 2}
rows:
  - label: MPT
    method: {name: mpt}
    optim: {lr: {shared: 0.1, factors: 0.1}, steps: 2, batch_size: 2}
"""
Row = dict[str, object]
SIZES = {"train": 20, "validation": 10, "test": 10}


def asked(words: tuple[str, ...], _: int) -> Row:
    """A question of MRQA: the answer stands in the context."""
    return {"question": words[0], "context": " ".join(words[1:]), "answers": [words[2]]}


def judged(words: tuple[str, ...], number: int) -> Row:
    """An answer of MultiRC, two a question."""
    text = {"paragraph": " ".join(words), "question": words[0], "answer": words[1]}
    return {**text, "label": number % 2, "idx": {"paragraph": number // 4, "question": number // 2}}


def told(words: tuple[str, ...], _: int) -> Row:
    """A text of E2E."""
    return {"meaning_representation": " ".join(words), "human_reference": words[0]}


MADE = {"nq": asked, "newsqa": asked, "searchqa": asked, "multirc": judged, "e2e": told}


def change(file: str, edit: Callable[[list[Row]], object]) -> Callable[[Path], None]:
    """The rows of a file, changed in place."""

    def changed(world: Path) -> None:
        path = world / "data" / f"{file}.parquet"
        rows = pq.read_table(path).to_pylist()
        edit(rows)
        pq.write_table(pa.Table.from_pylist(rows), path)

    return changed


def update(file: str, count: int, **values: object) -> Callable[[Path], None]:
    """The first rows of a file with other values."""
    return change(file, lambda rows: [row.update(values) for row in rows[:count]])


def without(file: str, column: str) -> Callable[[Path], None]:
    """A file without a column."""
    return change(file, lambda rows: [row.pop(column) for row in rows])


def seen(world: Path) -> None:
    """Two training rows of nq among those that SearchQA is scored on."""
    rows = from_spec(load_spec(BUILTIN / "nq.yaml"), world / "data").rows("train")
    change("searchqa/validation", lambda own: [own[i].update(rows[i]) for i in range(2)])(world)


@pytest.fixture
def world(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sound experiment on built-in tasks, where loading weights is a failure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEFT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(workspace, "load_backbone", no_weights)
    monkeypatch.setattr(holdout, "ROWS", 8)  # of a train file, for dev
    (tmp_path / "base").symlink_to(base)
    (tmp_path / "small.yaml").write_text(EXPERIMENT, "utf-8")
    words = itertools.permutations(WORDS[8:20], 4)
    for name, make in MADE.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for file, size in SIZES.items():
            rows = [make(next(words), number) for number in range(size)]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / name / f"{file}.parquet")
    return tmp_path


LONG = " ".join(["book"] * 60)
SEARCHQA, MULTIRC, E2E = "searchqa/validation", "multirc/train", "e2e/test"
TEN = "of 10"  # rows of a file that is scored


def far(rows: list[Row]) -> None:
    """The first row's answer behind many words."""
    rows[0]["context"] = f"{LONG} {rows[0]['context']}"


FAULTS = {
    "no column": (without("nq/train", "context"), "D01", "there is no column 'context'"),
    "no question's number": (without("multirc/validation", "idx"), "D01", "no column 'idx.paragraph'"),
    "no meaning": (without(E2E, "meaning_representation"), "D01", "no column 'meaning_representation'"),
    "a strange label": (update(MULTIRC, 3, label=7), "D06", "labels without a word: '7' (3 rows)"),
    "no label": (update(MULTIRC, 2, label=None), "D02", "2 rows have no 'label': row 1, 2"),
    "an empty question": (update(SEARCHQA, 1, question=None), "D02", "the row has no 'question'"),
    "an empty answer": (update(SEARCHQA, 2, answers=[" "]), "D03", f"2 {TEN} (20.0 %) rows have no answer"),
    "no answer at all": (update(SEARCHQA, 10, answers=[]), "D13", "no row of the file has an answer"),
    "an empty reference": (
        update(E2E, 1, human_reference=""),
        "D03",
        f"1 {TEN} (10.0 %) rows have no answer",
    ),
    "another answer": (
        update(SEARCHQA, 3, answers=["zebra"]),
        "D25",
        f"3 {TEN} (30.0 %) answers do not stand in the context",
    ),
    "answers cut off": (
        change(SEARCHQA, far),
        "D15",
        f"1 {TEN} (10.0 %) answers stand in the part of the text that is cut off",
    ),
    "rows of a source": (
        seen,
        "D11",
        f"2 {TEN} (20.0 %) test rows stand in the training rows of nq, 2 of them letter for letter",
    ),
}
ERRORS = {"D01", "D02", "D06", "D11", "D13"}


def test_sound_rows_have_no_such_fault(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None of the codes below."""
    assert command("validate", "small.yaml") == 0
    said = capsys.readouterr().out
    assert not [code for _, code, _ in FAULTS.values() if f"WEFT-{code}" in said]


@pytest.mark.parametrize("name", FAULTS)
def test_bad_rows_are_found_before_training(
    world: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """With the code and how many rows; what cannot be trained or scored is an error."""
    edit, code, cause = FAULTS[name]
    edit(world)
    status = command("validate", "small.yaml")
    printed = capsys.readouterr()
    assert f"WEFT-{code}: " in printed.out + printed.err
    assert cause in " ".join((printed.out + printed.err).split())
    assert (status != 0) == (code in ERRORS)
