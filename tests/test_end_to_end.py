"""The main job through the command line, on tiny models of both families."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import build_lm, build_tokenizer
from tiny_job import EXPERIMENT, FULL, command, write_job

import weft
from weft import cli, runs, stages, storage
from weft.checks import validation
from weft.errors import ArtifactError, ConfigError, DataError, NumericError, WeftError
from weft.models.text_cache import TextCache
from weft.runs.config import AnyRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.serving import predictor
from weft.training.runner import Prepared

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", params=["t5-prefix", "llama-prefix", "llama-suffix"])
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model, tasks, an experiment, and its finished runs."""
    family, _, position = request.param.partition("-")
    folder = tmp_path_factory.mktemp(request.param)
    full = FULL if request.param != "llama-suffix" else ""
    write_job(folder, family, position, EXPERIMENT + full)
    assert command("run", folder / "tiny.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


def no_weights(*_: object, **__: object) -> None:
    """Stands where the model is loaded."""
    pytest.fail("weights were loaded")


def of(job: Path, start: str) -> list[runs.Run]:
    """The finished runs whose name starts so."""
    return [run for run in runs.finished(job / "runs") if run.id.startswith(start)]


def test_every_run_is_there_and_whole(job: Path, capsys: Capture) -> None:
    """Two teachers, one source, and for two targets and two seeds every trained row and its scores."""
    extra = 4 if "suffix" not in job.name else 0
    assert len(of(job, "teachers-")) == 2
    assert len(of(job, "source-")) == 1
    assert len(of(job, "adapt-")) == 4 * 4 + 2 + extra
    assert len(of(job, "evaluate-")) == 5 * 4 + 2 * 2 + extra
    for run in runs.finished(job / "runs"):
        assert command("doctor", run.path) == 0, capsys.readouterr()


def test_parameters_per_task(job: Path) -> None:
    """Counts by formula: P*D, P*D + P + D, the group's share, the factors alone."""
    shape = json.loads((job / "base" / "config.json").read_text("utf-8"))
    P, D = 4, shape.get("d_model") or shape["hidden_size"]
    counts = {run.result()["parameters_per_task"] for run in of(job, "adapt-")}
    assert {P * D, P * D + P + D, (P * D + 2 * (P + D)) / 2, P + D} <= counts


def test_loss_has_its_terms(job: Path) -> None:
    """Source training logs L_PLM, L_Logits and L_Hidden at every step, and they add up to the loss."""
    lines = of(job, "source-")[0].lines("metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert line["lm"] + line["logits"] + line["hidden"] == pytest.approx(line["loss"], rel=1e-5)
        assert min(line["lm"], line["logits"], line["hidden"]) > 0


def test_a_finished_experiment_is_not_run_again(
    job: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call changes no run and gives the same table; its last line is the report."""
    times = {path: path.stat().st_mtime_ns for path in (job / "runs").glob("*/manifest.json")}
    monkeypatch.setattr("weft.runs.workspace.load_backbone", no_weights)
    assert command("run", job / "tiny.yaml", "--runs", job / "runs", "--quiet") == 0
    out = capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in (job / "runs").glob("*/manifest.json")}
    assert "MPT mean" in out
    report = Path(out.strip().splitlines()[-1].removeprefix("report: "))
    assert report.read_text("utf-8").lstrip().lower().startswith("<!doctype html")


def test_dry_run_loads_no_weights(job: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan names jobs, parameters, memory and time; the model is never loaded."""
    monkeypatch.setattr("weft.runs.workspace.load_backbone", no_weights)
    assert command("run", job / "tiny.yaml", "--runs", job / "other", "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.count("\nto do  ") + out.startswith("to do  ") == int(
        out.split(" runs, ")[1].split(" to do")[0]
    )
    assert "runs, " in out
    assert "numbers" in out
    assert not (job / "other").exists()


def test_scores_agree_with_the_stored_predictions(job: Path) -> None:
    """Accuracy counted from predictions.jsonl is the one in result.json."""
    for run in of(job, "evaluate-"):
        lines = run.lines("predictions.jsonl")
        for task, scores in run.result()["scores"].items():
            own = [line for line in lines if line["task"] == task]
            right = sum(line["answer"] in line["references"] for line in own)
            assert scores["metrics"]["accuracy"] == pytest.approx(100 * right / len(own))
            assert scores["rows"] == len(own) == 12


def test_the_same_run_again_gives_the_same_bytes(job: Path) -> None:
    """Training is deterministic: a second run elsewhere has the same tensors, bit for bit."""
    first = of(job, "adapt-mpt-gamma-s0")[0]
    parents = [run.path for run in runs.finished(job / "runs") if run.id.startswith(("teachers", "source"))]
    again = Workspace(job / "again")
    again.root.mkdir(exist_ok=True)
    for path in parents:
        target = again.root / path.name
        if not target.exists():
            target.symlink_to(path)
    assert again.run_id(first.config()) == first.id
    second = stages.perform(first.config(), again)
    one, two = first.tensors(), second.tensors()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_predict_mixes_tasks_in_one_batch(job: Path) -> None:
    """Rows of two runs answered together get what each run gives alone."""
    names = [of(job, f"adapt-mpt-{task}-s0")[0].id for task in ("gamma", "delta")]
    texts = ["the good film", "the bad dog river", "the fine city story man"]
    both = predictor.load(*names, root=job / "runs")
    mixed = both.predict([{"text": text, "task": task} for text in texts for task in ("gamma", "delta")])
    for name, task in zip(names, ("gamma", "delta"), strict=True):
        alone = predictor.load(name, root=job / "runs").predict([{"text": text} for text in texts])
        own = [one for one in mixed if one.task == task]
        assert [one.answer for one in own] == [one.answer for one in alone]
        for ours, theirs in zip(own, alone, strict=True):
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
            assert sum(ours.probabilities.values()) == pytest.approx(1)
    assert [(one.row, one.task) for one in mixed[:3]] == [(0, "gamma"), (1, "delta"), (2, "gamma")]


def test_a_row_without_a_task_is_answered_for_all(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text under many tasks; with suffix prompts it is read once."""
    read, whole = [], TextCache._compute
    monkeypatch.setattr(TextCache, "_compute", lambda self, *a: read.extend(a[0]) or whole(self, *a))
    model = predictor.load(of(job, "adapt-mpt-gamma+delta-s0")[0].id, root=job / "runs")
    found = model.predict([{"text": "the good film cat"}], generate=True)
    assert [one.task for one in found] == ["gamma", "delta"]
    assert all(isinstance(one.written, str) for one in found)
    assert len(read) == ("suffix" in job.name)


def codes(config: AnyRun, workspace: Workspace) -> set[str]:
    """The codes of what the pass over one run finds wrong."""
    return {fault.code for fault in validation.check_runs([config], workspace).findings.errors}


def test_a_parent_that_does_not_fit_is_found_without_weights(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another prompt length, another base model: named by the pass, before a model is loaded."""
    monkeypatch.setattr("weft.runs.workspace.load_backbone", no_weights)
    workspace, config = Workspace(job / "runs"), of(job, "adapt-mpt-gamma-s0")[0].config()
    assert codes(config, workspace) == set()
    longer = config.prompt.model_copy(update={"length": 5})
    assert codes(config.model_copy(update={"prompt": longer}), workspace) == {"C15"}
    family = "t5" if job.name.startswith("t5") else "llama"
    build_lm(family, seed=9).save_pretrained(tmp_path / "base")
    build_tokenizer(ends_texts=family == "t5").save_pretrained(tmp_path / "base")
    other = config.base.model_copy(update={"model": str(tmp_path / "base")})
    assert codes(config.model_copy(update={"base": other}), workspace) == {"C13"}


def test_what_the_machine_refuses_is_found_without_weights(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number format that the device does not compute with, and a folder that cannot be written."""

    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("not implemented for this device")

    config = of(job, "adapt-mpt-gamma-s0")[0].config()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "ones", refuses)
        assert codes(config, Workspace(job / "runs")) == {"C19"}
    monkeypatch.setattr("weft.checks.validation.os.access", lambda path, mode: False)
    assert codes(config, Workspace(job / "runs")) == {"R08"}


def test_predict_names_the_bad_row(job: Path) -> None:
    """A missing field and an unknown task are named with their row."""
    model = predictor.load(of(job, "adapt-mpt-gamma-s0")[0].id, root=job / "runs")
    with pytest.raises(DataError, match="no 'text'") as fault:
        model.predict([{"text": "the film"}, {"txt": "the film"}])
    assert "row 2" in fault.value.where
    assert "'txt'" in str(fault.value) or "txt" in fault.value.fix
    with pytest.raises(DataError, match="no task 'gama'") as fault:
        model.predict([{"text": "the film", "task": "gama"}])
    assert "'gamma'" in fault.value.fix


def test_predict_command(job: Path, tmp_path: Path, capsys: Capture) -> None:
    """RUN... FILE: one JSON line a row, from CSV."""
    (tmp_path / "new.csv").write_text("text\nthe good film\nthe bad dog\n", "utf-8")
    run = of(job, "adapt-prompt-tuning-gamma-s0")[0].id
    assert command("predict", run, tmp_path / "new.csv", "--runs", job / "runs") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["row"] for line in lines] == [0, 1]
    assert {line["task"] for line in lines} == {"gamma"}
    assert all(line["answer"] in ("positive", "negative") for line in lines)


def test_evaluate_command_on_dev_rows(job: Path, capsys: Capture) -> None:
    """A source run is scored on all its tasks."""
    run = of(job, "source-")[0].id
    assert command("evaluate", run, "--split", "dev", "--runs", job / "runs") == 0
    out = capsys.readouterr().out
    assert out.startswith("alpha {")
    assert "\nbeta {" in out


def test_one_stage_from_its_own_file(job: Path, capsys: Capture) -> None:
    """`weft adapt` with task files and a source run; the path of the folder is the last line."""
    source = of(job, "source-")[0].config()
    (job / "adapt.yaml").write_text(
        f"tasks: [tasks/gamma.yaml]\nbase: {{model: {job / 'base'}, dtype: float32}}\n"
        f"prompt: {{length: 4, position: {source.prompt.position}}}\nsource: {of(job, 'source-')[0].id}\n"
        "method: {name: mpt, start: alpha}\n"
        "optim: {lr: {shared: 0.1, factors: 0.1}, steps: 2, batch_size: 4}\n",
        "utf-8",
    )
    assert command("adapt", job / "adapt.yaml", "--runs", job / "runs", "--set", "seed=7") == 0
    path = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert path.name.startswith("adapt-mpt-gamma-s7-")
    assert runs.Run(path).result()["start"]["gamma"]["from"] == "alpha"


def test_another_base_model_is_refused(job: Path, tmp_path: Path) -> None:
    """The same folder name with other weights: the hash differs, and the error says so."""
    run = of(job, "adapt-mpt-gamma-s0")[0]
    family = "t5" if job.name.startswith("t5") else "llama"
    build_lm(family, seed=9).save_pretrained(tmp_path / "base")
    build_tokenizer(ends_texts=family == "t5").save_pretrained(tmp_path / "base")
    copy = runs.Run(tmp_path / "runs" / run.id)
    copy.path.mkdir(parents=True)
    for file in run.path.iterdir():
        if file.is_file():
            (copy.path / file.name).write_bytes(file.read_bytes())
    text = (copy.path / "config.yaml").read_text("utf-8").replace(str(job / "base"), str(tmp_path / "base"))
    (copy.path / "config.yaml").write_text(text, "utf-8")
    storage.seal(copy.path, storage.names(copy.path))
    with pytest.raises(ArtifactError, match="another base model"):
        predictor.load(run.id, root=tmp_path / "runs")


def test_a_changed_prompt_file_is_refused(job: Path, tmp_path: Path, capsys: Capture) -> None:
    """One flipped bit: loading refuses, `doctor` names the file."""
    run = of(job, "adapt-mpt-delta-s0")[0]
    copy = tmp_path / run.id
    copy.mkdir()
    for file in run.path.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    data = bytearray((copy / runs.TENSORS).read_bytes())
    data[-3] ^= 1
    (copy / runs.TENSORS).write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="SHA-256"):
        predictor.load(copy)
    assert command("doctor", copy) == 4
    assert runs.TENSORS in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils")  # PEFT asks for an old name
def test_export_to_peft(job: Path, tmp_path: Path) -> None:
    """Stock PEFT loads the two files and writes the same tokens; a suffix prompt is refused."""
    from peft import AutoPeftModelForCausalLM, AutoPeftModelForSeq2SeqLM

    run = of(job, "adapt-mpt-gamma-s0")[0]
    if job.name.startswith("llama-suffix"):
        assert command("export", run.id, "gamma", tmp_path / "peft", "--runs", job / "runs") == 2
        return
    assert command("export", run.id, "gamma", tmp_path / "peft", "--runs", job / "runs") == 0
    auto = AutoPeftModelForSeq2SeqLM if job.name.startswith("t5") else AutoPeftModelForCausalLM
    theirs = auto.from_pretrained(tmp_path / "peft").eval()
    ours = predictor.load(run.id, root=job / "runs").model
    for text in ("the good film", "the bad dog river cat"):
        tokens = ours.backbone.text_tokens(text)[0]
        mine = ours.backbone.generate(ours.begin([tokens], [0]), 5)[0]
        ids = torch.tensor([tokens])
        out = theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False
        )[0].tolist()
        echoed = 1 if job.name.startswith("t5") else len(tokens)  # the start token, or the text
        written = out[echoed:]
        end = ours.backbone.tokenizer.eos_token_id
        assert list(mine) == (written[: written.index(end)] if end in written else written)


def test_errors_are_messages_not_tracebacks(job: Path, capsys: Capture) -> None:
    """A misspelt key, a missing file, an unknown run: code and remedy, and no traceback."""
    assert command("run", job / "tiny.yaml", "--runs", job / "runs", "--set", "sedes=1") == 2
    assert "did you mean 'seeds'?" in capsys.readouterr().err
    assert command("run", job / "nothing.yaml") == 2
    assert command("evaluate", "adapt-nothing", "--runs", job / "runs") == 4
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "fix:" in err
    before, sys.argv = sys.argv, ["weft", "run", str(job / "nothing.yaml"), "--debug"]
    try:
        with pytest.raises(ConfigError):
            cli.main()
    finally:
        sys.argv = before


def test_one_failed_teacher_does_not_lose_the_others(
    job: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One teacher's training breaks: the other is finished, and a second call makes only what is missing."""
    real = stages.teachers

    def broken(config: TeacherRun, workspace: Workspace) -> Prepared:
        if config.tasks[0].name == "alpha":
            raise NumericError("planted fault")
        return real(config, workspace)

    monkeypatch.setattr(stages, "teachers", broken)
    arguments = ("run", job / "tiny.yaml", "--runs", tmp_path / "runs", "--quiet")
    assert command(*arguments) == 6
    assert "planted fault" in capsys.readouterr().err
    first = {
        run.id: (run.path / "manifest.json").stat().st_mtime_ns for run in runs.finished(tmp_path / "runs")
    }
    assert sum(name.startswith("teachers-beta") for name in first) == 1
    assert not any(name.startswith(("source", "adapt-mpt")) for name in first)
    monkeypatch.setattr(stages, "teachers", real)
    assert command(*arguments) == 0
    after = {
        run.id: (run.path / "manifest.json").stat().st_mtime_ns for run in runs.finished(tmp_path / "runs")
    }
    assert first.items() <= after.items()
    assert after.keys() == {run.id for run in of(job, "")} & after.keys()


def test_a_missing_file_is_named_before_any_weights_load(
    job: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's dev file is gone: exit code 3 and its name, and no model was loaded."""
    (tmp_path / "tasks").mkdir()
    for file in (job / "tasks").iterdir():
        (tmp_path / "tasks" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tasks" / "beta-dev.jsonl").unlink()
    (tmp_path / "tiny.yaml").write_text((job / "tiny.yaml").read_text("utf-8"), "utf-8")
    monkeypatch.setattr("weft.runs.workspace.load_backbone", no_weights)
    assert command("run", tmp_path / "tiny.yaml", "--runs", tmp_path / "runs", "--quiet") == 3
    assert "beta-dev.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("--help",), ("run", "--help"), ("config", "AdaptRun"), ("tasks", "--help")]
)
def test_help_needs_no_torch(words: tuple[str, ...]) -> None:
    """Importing weft, and asking for help, leave torch and transformers alone."""
    code = (
        "import sys; from weft import cli; sys.argv = ['weft', *sys.argv[1:]]\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules or 'transformers' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("False")
    assert done.stdout


def test_public_names() -> None:
    """`__all__` is sorted and complete, and every name is there."""
    assert weft.__all__ == sorted(weft.__all__)
    for name in weft.__all__:
        assert getattr(weft, name) is not None
    classes = {name: value for name, value in vars(weft).items() if isinstance(value, type)}
    assert {name for name, value in classes.items() if issubclass(value, WeftError)} <= set(weft.__all__)
