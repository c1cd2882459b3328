"""Lists of tasks: rows, sources and licences at 80 columns, and how answers are spread."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef
from tiny_job import command

from weft.cli import tasks_text
from weft.config.task import TaskSpec
from weft.tasks import BUILTIN, find_specs, from_spec
from weft.tasks.spread import spread
from weft.text_table import columns

SPECS = find_specs([BUILTIN])
COLA = {"sentence": ["a", "b", "c", "d", "e"], "label": [0, 1, 0, 1, 1]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that has CoLA alone."""
    (tmp_path / "cola").mkdir()
    for file in ("train", "validation"):
        pyarrow.parquet.write_table(pyarrow.table(COLA), tmp_path / "cola" / f"{file}.parquet")
    return tmp_path


def test_every_built_in_task_has_its_line_and_its_source(data: Path) -> None:
    """Its rows where they are at hand, its hub id, its licence; no line is too long."""
    said = tasks_text.listing(list(SPECS.values()), data, 80)
    assert max(map(columns, said.splitlines())) <= 80
    assert [part.split()[0] for part in said.split("\n\n")[:5]] == [
        "glue",
        "superglue",
        "mrqa",
        "others",
        "nlg",
    ]
    flat = " ".join(said.split())
    for name, spec in SPECS.items():
        assert f"\n{name} " in said
        assert f"licence: {spec.licence}" in flat
        hub = f"hub: {spec.hub.path} {spec.hub.name or ''}".strip() if spec.hub else ""
        assert not hub or f"{hub} (not tried); licence" in flat
    assert "cola 5 2 3 matthews 2 at hand" in flat
    assert "clinc150 — — — accuracy 150 not here" in flat
    assert "squad — — — squad_f1 open not here" in flat


def test_own_tasks_are_listed_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Splits that they lack are shown as such; a built-in task may be named beside them."""
    monkeypatch.delenv("WEFT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"x": "a", "y": "b"}) + "\n", "utf-8")
    text = 'name: own\nfiles: {train: rows.jsonl}\nsource: "{x}"\ntarget: "{y}"\n'
    (tmp_path / "own.yaml").write_text(text, "utf-8")
    assert command("tasks") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["task", "train", "dev", "test", "metric", "answers", "data"]
    assert [line.split() for line in said[2:]] == [["own", "1", "—", "—", "accuracy", "open", "at", "hand"]]
    assert command("tasks", "own.yaml", "builtin/cb") == 0
    said = capsys.readouterr().out
    assert "superglue" in said.splitlines()[0]
    assert "\nown " in said
    assert command("tasks", "builtin/cbb") == 2
    assert "there is no built-in task 'cbb'" in capsys.readouterr().err


def test_answers_are_counted_and_the_commonest_is_scored(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each answer, and one for each metric; what is undefined has none."""
    assert command("tasks", "builtin/cola", "builtin/rte", "--answers", "--data", str(data)) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "cola train dev test"
    assert lines[2].startswith("correct 3 ")
    assert lines[3].startswith("wrong 2 ")
    assert lines[4] == "always the commonest: matthews — — —"
    assert lines[5].startswith("always the commonest: accuracy 60.0 ")
    assert lines[-1] == "rte: its rows are not here"


def test_long_lists_of_answers_are_cut(tmp_path: Path) -> None:
    """Open answers to five, with how many more there are; answers that nobody sees are named."""
    rows = [{"x": f"t{i}", "y": f"answer {i}\n{'long ' * 20}" if i else "a"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    spec = TaskSpec(name="t", files={"train": "rows.jsonl"}, source="{x}", target="{y}", folder=str(tmp_path))
    said = tasks_text.answers(spec, None, 80).splitlines()
    assert len(said) == 2 + tasks_text.OPEN + 2
    assert said[-2].split() == ["…", "3", "more", "—"]
    assert max(map(columns, said)) <= 80


def test_spread_against_scikit_learn(tmp_path: Path) -> None:
    """Counts of all closed answers, one of which has no row; scores of the constant answer."""
    labels = [0, 2, 0, 2, 2, 0, 2]
    rows = [{"x": f"t{i}", "y": label} for i, label in enumerate(labels)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    spec = TaskSpec(
        name="t", files={"train": "rows.jsonl"}, source="{x}", target="{y}", folder=str(tmp_path),
        labels={"0": "no", "1": "maybe", "2": "yes"}, positive="yes",
        metrics=("accuracy", "f1_macro", "f1_binary", "matthews"),
    )  # fmt: skip
    found = spread(from_spec(spec), "train")
    assert list(found.counts.items()) == [("yes", 4), ("no", 3), ("maybe", 0)]
    assert found.majority == "yes"
    constant = [2] * 7
    assert found.scores["accuracy"] == pytest.approx(400 / 7)
    macro = f1_score(labels, constant, average="macro", labels=[0, 1, 2], zero_division=0)
    assert found.scores["f1_macro"] == pytest.approx(100 * macro)
    assert found.scores["f1_binary"] == pytest.approx(100 * 8 / 11)
    assert found.scores["matthews"] is None
    assert matthews_corrcoef(labels, constant) == 0
