"""A finished run is used where its base model, its rows and its folder were not when it was trained."""

import json
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from conftest import build_lm, build_tokenizer
from tiny_job import BAD, GOOD, command, rows_of, write_job

import weft
from weft.errors import ArtifactError, ConfigError
from weft.runs import Run, config_file, find, finished
from weft.serving import predictor

Capture = pytest.CaptureFixture[str]
ADAPT = """
base: {{model: base, dtype: float32, attention: eager}}
prompt: {{length: 4}}
tasks: [{tasks}]
method: {{name: prompt_tuning, start: fresh}}
shots: 6
optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
"""
ONE, TWO = "adapt-prompt-tuning-gamma-s0", "adapt-prompt-tuning-gamma+delta-s0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, tasks, and a run of one task and of two, trained from another folder than theirs."""
    folder, other = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("other")
    write_job(folder, "t5", "prefix")
    for name, tasks in (("one", "tasks/gamma.yaml"), ("two", "tasks/gamma.yaml, tasks/delta.yaml")):
        (folder / f"{name}.yaml").write_text(ADAPT.format(tasks=tasks), "utf-8")
        with chdir(other):  # the base model is named relative to the file
            assert command("adapt", folder / f"{name}.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


@pytest.fixture
def away(trained: Path, tmp_path: Path) -> Path:
    """The same in another place; where it was trained there is nothing any more."""
    shutil.copytree(trained, tmp_path / "here")
    for name in ("base", "tasks"):
        (trained / name).rename(trained / f"{name}.away")
    yield tmp_path / "here"
    for name in ("base", "tasks"):
        (trained / f"{name}.away").rename(trained / name)


def named(folder: Path, start: str) -> str:
    """The id of the run whose name starts so."""
    [found] = [run.id for run in finished(folder / "runs") if run.id.startswith(f"{start}-")]
    return found


def scores(capsys: Capture, *arguments: object) -> tuple[Run, dict[str, int]]:
    """The run of an evaluation, and how many rows of each task it scored."""
    capsys.readouterr()
    assert command("evaluate", *arguments, "--quiet") == 0, capsys.readouterr()
    run = Run(Path(capsys.readouterr().out.splitlines()[-1]))
    return run, {name: one["rows"] for name, one in run.result()["scores"].items()}


def refused(capsys: Capture, code: int, *arguments: object) -> str:
    """The message of a command that ends with a code, in one line; it says what to do."""
    capsys.readouterr()
    assert command(*arguments) == code
    said = " ".join(capsys.readouterr().err.split())
    assert "fix:" in said
    return said


def test_another_place_of_the_base_model_gives_the_same_answers(away: Path, trained: Path) -> None:
    """Its files are the same; where they lay in training is gone."""
    rows = [{"text": "the good film"}, {"text": "the bad dog"}]
    run = trained / "runs" / named(trained, ONE)
    with pytest.raises(ArtifactError, match="no such folder") as fault:
        weft.load(run)
    assert "--base" in fault.value.fix
    moved = weft.load(run, base=away / "base").predict(rows)
    (trained / "base.away").rename(trained / "base")
    before = weft.load(run).predict(rows)
    (trained / "base").rename(trained / "base.away")
    assert moved == before


def test_another_base_model_is_refused_with_both_hashes(
    away: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every command that answers, before its weights are loaded, and without a folder for the answers."""
    build_lm("t5", seed=9).save_pretrained(tmp_path / "other")
    build_tokenizer(ends_texts=True).save_pretrained(tmp_path / "other")
    monkeypatch.setattr("weft.runs.workspace.load_backbone", lambda *_, **__: pytest.fail("weights"))
    run = named(away, ONE)
    here = Run(away / "runs" / run).env()["embedding_hash"][:12]
    (tmp_path / "new.csv").write_text("text,label\nthe good film,y\n", "utf-8")
    where = ("--runs", away / "runs", "--base", tmp_path / "other")
    for words in (
        ("predict", run, tmp_path / "new.csv"),
        ("evaluate", run, tmp_path / "new.csv"),
        ("export", run, "gamma", tmp_path / "out"),
    ):
        said = refused(capsys, 4, *words, *where)
        assert f"another base model (hash of embeddings): {here}, and here it is " in said
    assert not list((away / "runs").glob("evaluate-*"))


def test_an_export_needs_the_base_model_where_it_is(away: Path, tmp_path: Path) -> None:
    """Its description names the folder that was given."""
    words = ("export", named(away, ONE), "gamma", tmp_path / "out", "--runs", away / "runs")
    assert command(*words) == 4
    assert command(*words, "--base", away / "base") == 0
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))
    assert said["base_model_name_or_path"] == str(away / "base")


def test_a_model_in_two_places_is_given_once(away: Path) -> None:
    """What `base` says must not be passed over."""
    from weft.runs.workspace import Workspace

    with pytest.raises(ConfigError, match="itself"):
        predictor.load(named(away, ONE), base=away / "base", workspace=Workspace(away / "runs"))


def test_rows_are_taken_from_the_folder_that_is_named(away: Path, capsys: Capture, tmp_path: Path) -> None:
    """Task files name files of their own; --data says where they are, before where they were."""
    place = ("--runs", away / "runs", "--base", away / "base")
    said = refused(capsys, 3, "evaluate", named(away, ONE), *place)
    assert "cannot open the file" in said
    assert "evaluate RUN FILE" in said
    run, rows = scores(capsys, named(away, ONE), *place, "--data", away / "tasks")
    assert rows == {"gamma": 12}
    assert run.config().tasks[0].files["test"] == str(away / "tasks" / "gamma-test.jsonl")
    assert run.result()["leaks"]["gamma"] == {"rows": 0, "by_task": {}, "unread": []}
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "gamma-test.jsonl").write_text(rows_of("gamma", (GOOD, BAD), 4, 50), "utf-8")
    other, rows = scores(capsys, named(away, ONE), *place, "--data", tmp_path / "few")
    assert rows == {"gamma": 4}
    assert other.id != run.id


def test_a_folder_without_the_rows_is_refused(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    """Else the rows of training's folder would be scored, and nobody would see it."""
    run = named(trained, ONE)
    said = refused(capsys, 3, "evaluate", run, "--runs", trained / "runs", "--data", tmp_path)
    assert "no file of the run's tasks" in said
    assert "gamma-test.jsonl" in said


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_labelled_file_is_scored(away: Path, tmp_path: Path, capsys: Capture, suffix: str) -> None:
    """In the columns of the run's one task; the evaluation names the file, and its id has its hash."""
    rows = [json.loads(line) for line in rows_of("gamma", (GOOD, BAD), 6, 0).splitlines()]
    file = tmp_path / f"new{suffix}"
    _write(file, rows)
    where = (file, "--runs", away / "runs", "--base", away / "base")
    run, found = scores(capsys, named(away, ONE), *where)
    assert found == {"gamma": 6}
    [task] = run.config().tasks
    assert (task.files, task.folder) == ({"test": file.name}, str(tmp_path))
    assert [line["text"] for line in run.lines("predictions.jsonl")] == [row["text"] for row in rows]
    _write(file, [{**row, "label": "y"} for row in rows])
    again, _ = scores(capsys, named(away, ONE), *where)
    assert again.id != run.id


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    if file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return
    sign = "\t" if file.suffix == ".tsv" else ","
    if file.suffix == ".jsonl":
        lines = [json.dumps(row) for row in rows]
    else:
        lines = [sign.join(rows[0]), *(sign.join(row.values()) for row in rows)]
    file.write_text("\n".join(lines) + "\n", "utf-8")


MIXED = [
    {"text": "the good film", "label": "y", "task": "gamma"},
    {"text": "the bad film", "label": "n", "task": "delta"},
    {"text": "the bad dog", "label": "n", "task": "gamma"},
]


def test_a_column_says_which_task_a_row_is_of(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    """Each task is scored on its own rows, and the others are counted as those of another."""
    _write(tmp_path / "new.jsonl", MIXED)
    run, found = scores(capsys, named(trained, TWO), tmp_path / "new.jsonl", "--runs", trained / "runs")
    assert found == {"gamma": 2, "delta": 1}
    texts = [(line["task"], line["text"]) for line in run.lines("predictions.jsonl")]
    assert texts == [("gamma", "the good film"), ("gamma", "the bad dog"), ("delta", "the bad film")]
    assert run.result()["rows"]["delta"] == {"read": 3, "used": 1, "dropped": {"another task": 2}}


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({"task": "gama"}, (), "its 'task' is 'gama' (did you mean 'gamma'?)"),
        ({"task": ""}, (), "it does not say"),
        ({"task": None}, (), "it does not say"),
        ({}, ("--task", "gama"), "the run has no task 'gama'"),
        ({}, ("--task", "delta"), "the row says that it is of task 'gamma'"),
        ({"label": "maybe"}, (), "labels without a word: 'maybe'"),
        ({"label": None}, (), "1 rows have no 'label'"),
        ({"text": None}, (), "1 rows have no 'text'"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(
    trained: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    words: tuple[str, ...],
    said: str,
) -> None:
    """Before any weights load; no row is left out in silence."""
    monkeypatch.setattr("weft.runs.workspace.load_backbone", lambda *_, **__: pytest.fail("weights"))
    _write(tmp_path / "new.jsonl", [*MIXED, {**MIXED[0], **change}])
    code = 2 if "no task" in said and words else 3
    where = (tmp_path / "new.jsonl", "--runs", trained / "runs")
    assert said in refused(capsys, code, "evaluate", named(trained, TWO), *where, *words)


def test_all_rows_may_be_of_one_task(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    """A file without the column, and --task; without it the file is refused."""
    rows = [{key: row[key] for key in ("text", "label")} for row in MIXED]
    _write(tmp_path / "new.jsonl", rows)
    where = (named(trained, TWO), tmp_path / "new.jsonl", "--runs", trained / "runs")
    assert "--task NAME (gamma, delta)" in refused(capsys, 3, "evaluate", *where)
    assert scores(capsys, *where, "--task", "delta")[1] == {"delta": 3}


def test_predict_answers_for_the_task_that_is_named(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    """Whatever a column of that name means; without the option such rows say why they have no answer."""
    _write(tmp_path / "new.jsonl", [{"text": "the good film", "task": "water the plants"}])
    where = (named(trained, TWO), tmp_path / "new.jsonl", "--runs", trained / "runs")
    assert "another name if it means something else" in refused(capsys, 3, "predict", *where)
    capsys.readouterr()
    assert command("predict", *where, "--task", "delta") == 0
    assert json.loads(capsys.readouterr().out)["task"] == "delta"
    assert "no task 'delt'" in refused(capsys, 2, "predict", *where, "--task", "delt")


def test_a_column_that_a_text_shows_chooses_no_task(make_backbone) -> None:
    """It is a text there, as any other column."""
    import torch

    from weft.config.task import TaskSpec
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel
    from weft.prompts.bank import SoftPrompts
    from weft.tasks import from_spec

    names = ("a", "b")
    tasks = tuple(
        from_spec(TaskSpec(name=name, source=source, target="{y}", labels={"0": "no", "1": "yes"}))
        for name, source in zip(names, ("{task}", "{text}"), strict=True)
    )
    backbone = make_backbone("llama-suffix")
    prompts = SoftPrompts(torch.zeros(2, 2, backbone.width), names)
    model = TunedModel(backbone, prompts, {}, names)
    predict = predictor.Predictor([TunedAnswerer(model, tasks, (16,) * len(tasks))]).predict
    assert [one.task for one in predict([{"task": "the film", "text": "the dog"}])] == ["a", "b"]


def test_a_run_is_named_by_its_folder_from_everywhere(away: Path, tmp_path: Path, capsys: Capture) -> None:
    """Its evaluation lies beside it."""
    (tmp_path / "new.csv").write_text("text,label\nthe good film,y\n", "utf-8")
    with chdir(tmp_path):
        path = Path("here", "runs", named(away, ONE))
        run, _ = scores(capsys, path, "new.csv", "--base", Path("here", "base"))
    assert run.path.parent == away / "runs"
    assert run.config().base.model == str(away / "base")


def test_a_relative_base_model_lies_beside_the_file_that_names_it(trained: Path) -> None:
    """So the run has its whole path, whatever the current folder was."""
    config = find(trained / "runs", named(trained, ONE)).config()
    assert config.base.model == str(trained / "base")


def test_names_that_weft_knows_are_no_folders(tmp_path: Path) -> None:
    """A folder of that name, beside a file or where the command runs, changes nothing."""
    from weft.config.model import BaseConfig
    from weft.models.base_folder import located

    (tmp_path / "pocket").mkdir()
    (tmp_path / "mine").mkdir()
    assert located(BaseConfig(model="pocket"), tmp_path).model == "pocket"
    assert located(BaseConfig(model="mine"), tmp_path).model == str(tmp_path / "mine")
    assert located(BaseConfig(model="some/hub-id"), tmp_path).model == "some/hub-id"


def test_what_was_written_before_the_key_has_the_same_name(trained: Path) -> None:
    """A task without `only` is named as it was before there was the key."""
    from weft.runs import identity

    config = find(trained / "runs", named(trained, ONE)).config()
    kept = identity(config, base_hash="b", data_hashes={})
    marked = config.tasks[0].model_copy(update={"only": {"task": "gamma"}})
    assert identity(config.model_copy(update={"tasks": (marked,)}), base_hash="b", data_hashes={}) != kept
    values = config.model_dump(mode="json")
    del values["tasks"][0]["only"]
    old = config_file.KINDS["adapt"].model_validate(values)
    assert identity(old, base_hash="b", data_hashes={}) == kept
