"""The main job through the command line, on tiny models of both families."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build_lm, build_tokenizer
from rich.cells import cell_len
from tiny_job import EXPERIMENT, FULL, command, write_job
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

import weft
from weft import cli, runs, stages, storage
from weft.cli import answers
from weft.errors import ArtifactError, ConfigError, NumericError, WeftError
from weft.experiments import validation
from weft.models.text_cache import TextCache
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, TeacherRun
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
    """Training is deterministic: a second run elsewhere, in the same company, has the same tensors."""
    first = of(job, "adapt-mpt-gamma-s0")[0]
    parents = [run.path for run in runs.finished(job / "runs") if run.id.startswith(("teachers", "source"))]
    again = Workspace(job / "again")
    again.root.mkdir(exist_ok=True)
    for path in parents:
        target = again.root / path.name
        if not target.exists():
            target.symlink_to(path)
    assert again.run_id(first.config()) == first.id
    names = first.env().get("together", [first.id])
    company = [runs.Run(job / "runs" / name).config() for name in names]
    found = dict(stages.perform_together(company, again))
    one, two = first.tensors(), found[first.id].tensors()
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


def adapt(job: Path, task: str, **limits: int) -> None:
    """`weft adapt` on one task, with limits of its own."""
    place = "suffix" if "suffix" in job.name else "prefix"
    (job / "one.yaml").write_text(
        f"tasks: [tasks/{task}.yaml]\nbase: {{model: {job / 'base'}, dtype: float32, attention: eager}}\n"
        f"prompt: {{length: 4, position: {place}}}\nmethod: {{name: prompt_tuning}}\nlimits: {limits}\n"
        "optim: {lr: {prompt: 0.1}, steps: 2, batch_size: 4}\n",
        "utf-8",
    )
    assert command("adapt", job / "one.yaml", "--runs", job / "runs", "--quiet") == 0


def test_every_run_keeps_its_own_limit_on_texts(job: Path) -> None:
    """Runs with unlike limits, loaded together, answer in one batch as each alone."""
    before = {run.id for run in of(job, "adapt-")}
    for task, limit in (("gamma", 3), ("delta", 9)):
        adapt(job, task, source_tokens=limit)
    names = [run.id for run in of(job, "adapt-") if run.id not in before]
    texts = [f"the good film is {word} story {word} city" for word in ("bad", "fine", "not", "true", "up")]
    rows = [{"text": text} for text in texts]
    together = predictor.load(*names, root=job / "runs").predict(rows, generate=True)
    for name in names:
        alone = predictor.load(name, root=job / "runs").predict(rows, generate=True)
        for one, other in zip([one for one in together if one.task == alone[0].task], alone, strict=True):
            assert replace(one, probabilities=None) == replace(other, probabilities=None)
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        cut = len({tuple(one.probabilities.values()) for one in alone}) == 1  # all texts begin alike
        assert cut == ("gamma" in name)


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


def test_a_parent_of_another_kind_is_found_without_weights(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other answer words, a start that is none of its tasks, a run without such a prompt, a changed file."""
    monkeypatch.setattr("weft.runs.workspace.load_backbone", no_weights)
    workspace, config = Workspace(job / "runs"), of(job, "adapt-mpt-gamma-s0")[0].config()
    teacher, source = of(job, "teachers-alpha")[0], of(job, "source-")[0].config()
    scored, spot = of(job, "evaluate-")[0], of(job, "adapt-prompt-tuning-gamma-s0")
    assert codes(source, workspace) == set()
    words = source.tasks[0].model_copy(update={"labels": {"y": "good", "n": "bad"}})
    assert codes(source.model_copy(update={"tasks": (words, *source.tasks[1:])}), workspace) == {"C14"}
    other = config.method.model_copy(update={"start": "delta"})
    assert codes(config.model_copy(update={"method": other}), workspace) == {"C12"}
    assert codes(config.model_copy(update={"source": None}), workspace) == {"C12"}
    for name in (teacher.id, scored.id):
        assert codes(config.model_copy(update={"source": name}), workspace) == {"C12"}
    assert codes(
        source.model_copy(update={"teachers": {**source.teachers, "beta": scored.id}}), workspace
    ) == {"C12"}
    [nearest] = [run.config() for run in spot if run.config().teachers]
    assert codes(nearest, workspace) == set()
    assert codes(nearest.model_copy(update={"teachers": {}}), workspace) == {"C12"}
    named = nearest.method.model_copy(update={"start": "alpha"})
    assert codes(nearest.model_copy(update={"method": named}), workspace) == set()
    named = nearest.method.model_copy(update={"start": "gamma"})
    assert codes(nearest.model_copy(update={"method": named}), workspace) == {"C12"}
    kept = (teacher.path / "prompts.safetensors").read_bytes()
    (teacher.path / "prompts.safetensors").write_bytes(kept[:-4] + b"\0\0\0\1")
    try:
        assert codes(source, workspace) - {"C12", "C14"}
    finally:
        (teacher.path / "prompts.safetensors").write_bytes(kept)


def test_what_the_machine_refuses_is_found_without_weights(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number format that the device does not compute with, and a folder that cannot be written."""

    ones = torch.ones

    def refuses(*sizes: int, **given: Any) -> torch.Tensor:
        if "device" in given:
            raise RuntimeError("not implemented for this device")
        return ones(*sizes, **given)

    config = of(job, "adapt-mpt-gamma-s0")[0].config()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "ones", refuses)
        assert codes(config, Workspace(job / "runs")) == {"C19"}
    monkeypatch.setattr("weft.experiments.validation.os.access", lambda path, mode: False)
    assert codes(config, Workspace(job / "runs")) == {"R08"}


def test_predict_names_the_bad_row(job: Path) -> None:
    """A missing field and an unknown task: the row says so, with the remedy, and the others are answered."""
    names = [of(job, f"adapt-mpt-{task}-s0")[0].id for task in ("gamma", "delta")]
    model = predictor.load(*names, root=job / "runs")
    rows = [
        {"text": "the film", "task": "gamma"},
        {"txt": "the film", "task": "delta"},
        {"text": "x", "task": "gama"},
    ]
    good, missing, unknown = model.predict(rows)
    assert (good.row, good.error) == (0, None)
    assert good.answer in ("positive", "negative")
    assert (missing.row, missing.task, missing.answer, unknown.task) == (1, "delta", None, None)
    assert "no 'text'; it has txt" in missing.error
    assert "no task 'gama' (did you mean 'gamma'?; a column 'task' says" in unknown.error


def test_a_column_task_chooses_nothing_where_there_is_one_task(
    job: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A to-do list has such a column too."""
    (tmp_path / "new.csv").write_text("text,task\nthe good film,paint the door\nthe bad dog,\n", "utf-8")
    run = of(job, "adapt-prompt-tuning-gamma-s0")[0].id
    assert command("predict", run, tmp_path / "new.csv", "--runs", job / "runs") == 0
    assert [json.loads(line)["task"] for line in capsys.readouterr().out.splitlines()] == ["gamma"] * 2


def test_rows_that_cannot_be_answered_are_named_at_the_end(
    job: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Exit code 3; all others are answered, and each of them says why."""
    lines = ["text", "the good film", '"  "', "\u200b\u200b", "the bad dog"]
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n", "utf-8")
    run = of(job, "adapt-prompt-tuning-gamma-s0")[0].id
    assert command("predict", run, tmp_path / "new.csv", "--runs", job / "runs") == 3
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [one["answer"] is None for one in found] == [False, True, True, False]
    assert all("blank" in one["error"] for one in found[1:3])
    assert "2 answers are missing" in told.err
    assert "rows 2, 3" in told.err


def test_predict_command(job: Path, tmp_path: Path, capsys: Capture) -> None:
    """RUN... FILE: one JSON line a row, from CSV."""
    (tmp_path / "new.csv").write_text("text\nthe good film\nthe bad dog\n", "utf-8")
    run = of(job, "adapt-prompt-tuning-gamma-s0")[0].id
    assert command("predict", run, tmp_path / "new.csv", "--runs", job / "runs") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["row"] for line in lines] == [0, 1]
    assert {line["task"] for line in lines} == {"gamma"}
    assert all(line["answer"] in ("positive", "negative") for line in lines)


def predicting(job: Path, file: Path) -> tuple[object, ...]:
    """The command that answers a file's rows by one of the runs."""
    return ("predict", of(job, "adapt-prompt-tuning-gamma-s0")[0].id, file, "--runs", job / "runs")


def test_predict_writes_the_form_that_the_file_is_named_for(
    job: Path, tmp_path: Path, capsys: Capture
) -> None:
    """JSON lines, or CSV with the same answers; another form is refused before anything is read."""
    (tmp_path / "new.csv").write_text("text\nthe good film\nthe bad dog\n", "utf-8")
    words = predicting(job, tmp_path / "new.csv")
    for name in ("out.jsonl", "out.csv"):
        assert command(*words, "--out", tmp_path / name) == 0
        assert capsys.readouterr().out == f"{tmp_path / name}\n"
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [one["answer"] for one in cells] == [one["answer"] for one in lines]
    for cell, line in zip(cells, lines, strict=True):
        assert float(cell["probability"]) == line["probabilities"][line["answer"]]
        assert json.loads(cell["probabilities"]) == line["probabilities"]
    assert command("predict", "no-run", "no-file.csv", "--out", tmp_path / "out.tsv") == 2
    assert "answers are not written as .tsv" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_terminal_gets_a_table(
    job: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """On a terminal people read; the lines fit. `--json` is for programs there too."""
    text = "the good film " + "was very long " * 5
    (tmp_path / "new.csv").write_text(f'text\n{text}\n日本語\n" "\n', "utf-8")
    words = predicting(job, tmp_path / "new.csv")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert command(*words) == 3
    shown = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, shown)) <= columns
    assert shown[0].split() == ["row", "answer", "sure", "text"]
    assert shown[-1] == "2 answers, 1 fault"
    assert command(*words, "--json") == 3
    first, other, fault = map(json.loads, capsys.readouterr().out.splitlines())
    assert shown[2].split()[:2] == ["1", first["answer"]]
    assert f"{100 * first['probabilities'][first['answer']]:.1f} %" in shown[2]
    assert "日本語" in next(line for line in shown if line.startswith("  2 "))
    assert (other["error"], fault["answer"]) == (None, None)


def test_predict_reads_standard_input(job: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """`-` for a file: JSON lines in, JSON lines out, with the file's own label."""
    data = b'{"text": "the good film"}\n\n{"text": "the bad dog"}\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
    run = of(job, "adapt-prompt-tuning-gamma-s0")[0].id
    assert command("predict", run, "-", "--runs", job / "runs") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["row"] for line in lines] == [0, 1]
    labels = runs.find(job / "runs", run).config().tasks[0].labels
    assert all(labels[line["label"]] == line["answer"] for line in lines)


def test_predict_does_not_write_over_its_rows(job: Path, tmp_path: Path, capsys: Capture) -> None:
    """By whichever name the file goes."""
    path = tmp_path / "new.csv"
    path.write_text("text\nthe good film\n", "utf-8")
    (tmp_path / "link").symlink_to(path)
    run = of(job, "adapt-prompt-tuning-gamma-s0")[0].id
    for out in (path, tmp_path / "link"):
        assert command("predict", run, path, "--out", out, "--runs", job / "runs") == 2
        assert "--out is the file with the rows" in capsys.readouterr().err
    assert path.read_text("utf-8") == "text\nthe good film\n"
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path, tmp_path / "pipe", Path("-"), Path("/dev/stdout")):
        with pytest.raises(ConfigError, match="--out is not an ordinary file"):
            answers.check_out(out, path)


def test_predict_refuses_options_that_it_does_not_have(job: Path, capsys: Capture) -> None:
    """None of them is a file or a run."""
    assert command("predict", "run", "rows.csv", "--ouut", "new.jsonl", "--runs", job / "runs") == 2
    assert "there is no option '--ouut'" in capsys.readouterr().err


def test_a_prompt_as_an_array_serves_stock_models(job: Path, tmp_path: Path) -> None:
    """As prompt.json says: embeddings of the tokens, and the prompt in its place, give the same answer."""
    run = of(job, "adapt-mpt-gamma-s0")[0]
    words = ("export", run.id, "gamma", tmp_path / "out", "--to", "numpy", "--runs", job / "runs")
    assert command(*words) == 0
    about = json.loads((tmp_path / "out" / "prompt.json").read_text("utf-8"))
    prompt = torch.from_numpy(np.load(tmp_path / "out" / "prompt.npy"))[None]
    assert about["position"] == job.name.rstrip("0").partition("-")[2]
    ours = predictor.load(run.id, root=job / "runs").answerers[0].model
    tokens = ours.backbone.text_tokens(about["text"].format(text="the good film"))[0]
    mine = ours.backbone.generate(ours.begin([tokens], [0]), 5)[0]
    stock = (AutoModelForSeq2SeqLM if "t5" in job.name else AutoModelForCausalLM).from_pretrained(
        job / "base"
    )
    text = stock.get_input_embeddings()(torch.tensor([tokens]))
    parts = [text, prompt] if about["position"] == "suffix" else [prompt, text]
    out = stock.generate(inputs_embeds=torch.cat(parts, 1), max_new_tokens=5, do_sample=False)[0].tolist()
    written, end = out[1:] if "t5" in job.name else out, ours.backbone.tokenizer.eos_token_id
    assert list(mine) == (written[: written.index(end)] if end in written else written)


def test_evaluate_command_on_dev_rows(job: Path, tmp_path: Path, capsys: Capture) -> None:
    """A source run is scored on all its tasks; beside the experiment's runs, which other tests count."""
    own = shutil.copytree(job / "runs", tmp_path / "runs")
    run = of(job, "source-")[0].id
    assert command("evaluate", run, "--split", "dev", "--runs", own) == 0
    out = capsys.readouterr().out
    scored = runs.Run(Path(out.splitlines()[-1])).result()["scores"]
    for task in ("alpha", "beta"):
        line = next(one.split() for one in out.splitlines() if one.startswith(f"{task} "))
        assert line[:4] == [task, "10", "accuracy", f"{scored[task]['metrics']['accuracy']:.1f}"]


def test_evaluate_prints_one_object_for_programs(job: Path, capsys: Capture) -> None:
    """The scores of result.json, and what follows from the answers; nothing else on standard output."""
    run = of(job, "adapt-prompt-tuning-gamma-s0")[0].id
    assert command("evaluate", run, "--json", "--runs", job / "runs") == 0
    found = json.loads(capsys.readouterr().out)
    scored = runs.Run(Path(found["folder"]))
    lines, gamma = scored.lines("predictions.jsonl"), found["tasks"]["gamma"]
    assert (found["run"], found["split"], list(found["tasks"])) == (run, "test", ["gamma"])
    scores = scored.result()["scores"]["gamma"]
    assert {name: gamma[name] for name in scores} == scores
    for i, true in enumerate(gamma["confusion"]["answers"]):
        for j, given in enumerate(gamma["confusion"]["answers"]):
            pairs = [(line["references"], line["answer"]) for line in lines]
            assert gamma["confusion"]["counts"][i][j] == pairs.count(([true], given))
    top = [max(line["probabilities"].values()) for line in lines]
    assert gamma["sureness"]["mean"] == pytest.approx(100 * sum(top) / len(top))


LEAKY = """
name: leaky
base: {{model: {base}, dtype: float32, attention: eager}}
prompt: {{length: 4, position: {position}}}
limits: {{test_rows: 8}}
tasks: [tasks]
sources: [alpha, beta]
targets: [gamma, delta]
allow: [leaks, duplicates]
seeds: [0]
generate: false
eval_batch: 5
teachers:
  optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
source:
  optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
rows:
  - {{label: majority, method: {{name: majority}}}}
  - label: prompt tuning
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
  - label: SPoT
    method: {{name: prompt_tuning, start: nearest}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
  - label: MPT
    method: {{name: mpt}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
"""
LEAKED = {"gamma": 3, "alpha": 5, "beta": 7}  # task -> the training row that is also a test row of gamma


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment in which three test rows of gamma stand in training rows, one of each task."""
    folder = tmp_path_factory.mktemp("leaky")
    write_job(folder, "t5", "prefix", LEAKY)
    path = folder / "tasks" / "gamma-test.jsonl"
    lines = path.read_text("utf-8").splitlines()
    for place, task in enumerate(LEAKED):
        train = (folder / "tasks" / f"{task}-train.jsonl").read_text("utf-8").splitlines()
        lines[place] = json.dumps({**json.loads(train[LEAKED[task]]), "label": "y"})
    path.write_text("\n".join(lines), "utf-8")
    assert command("run", folder / "tiny.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


def warned(capsys: Capture) -> str:
    """What stands on standard error, in one line."""
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("method", "tasks"),
    [
        ("prompt-tuning-gamma", ["gamma"]),
        ("mpt-gamma", ["alpha", "beta", "gamma"]),
        ("prompt-tuning-delta", []),
    ],
)
def test_evaluate_says_which_scored_rows_were_trained_on(
    leaky: Path, capsys: Capture, method: str, tasks: list[str]
) -> None:
    """Its own training rows, and those of its source and teachers; counted in `result.json` too."""
    name = next(run.id for run in of(leaky, f"adapt-{method}") if not run.config().teachers)
    capsys.readouterr()
    assert command("evaluate", name, "--runs", leaky / "runs") == 0
    out, err = capsys.readouterr()
    said = " ".join(err.split())
    for task in LEAKED:
        cause = f"1 of 12 (8.3 %) test rows stand in the training rows of {task}, 1 of them letter for letter"
        assert (f"warning: WEFT-D11: {cause}" in said) == (task in tasks)
        place = f"row {list(LEAKED).index(task) + 1} = training row {LEAKED[task] + 1}"
        assert (place in said) == (task in tasks)
    target = method.rsplit("-", 1)[1]
    result = runs.Run(Path(out.splitlines()[-1])).result()
    assert result["leaks"] == {target: {"rows": len(tasks), "by_task": dict.fromkeys(tasks, 1), "unread": []}}


def test_what_evaluations_note_is_what_the_pass_over_the_experiment_found(leaky: Path) -> None:
    """One count of leaks: that of `weft validate` is that of an MPT or SPoT run; nothing trained, no leak."""
    checked = validation.check_file(leaky / "tiny.yaml", {}, Workspace(leaky / "runs"))
    for run in of(leaky, "evaluate-"):
        config = run.config()
        assert isinstance(config, EvaluateRun)
        if config.limits.test_rows != 8:  # of another test
            continue
        trained = runs.find(leaky / "runs", config.run).config() if config.run else None
        found = run.result()["leaks"][config.tasks[0].name]
        if isinstance(trained, AdaptRun) and (trained.source or trained.teachers):
            assert {**checked.leaks[config.tasks[0].name], "unread": []} == found
        if trained is None:
            assert found == {"rows": 0, "by_task": {}, "unread": []}


def test_leaks_are_those_of_what_the_folders_still_hold(leaky: Path, tmp_path: Path, capsys: Capture) -> None:
    """Without its parents a run is compared with its own rows; rows that are gone are named."""
    run = next(one for one in of(leaky, "adapt-mpt-gamma"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / run.id).symlink_to(run.path)
    assert command("evaluate", run.id, "--runs", tmp_path / "runs") == 0
    said = warned(capsys)
    assert "training rows of gamma" in said
    assert "training rows of alpha" not in said
    for parent in of(leaky, "source-"):
        (tmp_path / "runs" / parent.id).symlink_to(parent.path)
    file = leaky / "tasks" / "alpha-train.jsonl"
    file.rename(tmp_path / "away")
    try:
        assert command("evaluate", run.id, "--rows", "9", "--runs", tmp_path / "runs") == 0
    finally:
        (tmp_path / "away").rename(file)
    out, err = capsys.readouterr()
    said = " ".join(err.split())
    assert "leaks were not looked for: cannot open the file" in said
    assert "alpha-train.jsonl" in said
    assert "training rows of beta" in said
    noted = runs.Run(Path(out.splitlines()[-1])).result()["leaks"]["gamma"]
    assert noted == {"rows": 2, "by_task": {"beta": 1, "gamma": 1}, "unread": ["alpha"]}


def test_adapt_warns_of_test_rows_that_it_trains_on(
    leaky: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is trained: rows of the task itself, and of its source's tasks; else nothing."""
    monkeypatch.setattr("weft.runs.workspace.load_backbone", no_weights)
    source = of(leaky, "source-")[0].id
    for task, count in (("gamma", 3), ("delta", 0)):
        (leaky / "adapt.yaml").write_text(
            f"tasks: [tasks/{task}.yaml]\nbase: {{model: {leaky / 'base'}, dtype: float32}}\n"
            f"prompt: {{length: 4, position: prefix}}\nsource: {source}\nmethod: {{name: mpt}}\n"
            "optim: {lr: {shared: 0.1, factors: 0.1}, steps: 2, batch_size: 4}\n",
            "utf-8",
        )
        assert command("adapt", leaky / "adapt.yaml", "--runs", leaky / "runs", "--dry-run") == 0
        said = warned(capsys)
        assert said.count("WEFT-D11: 1 of 12 (8.3 %) test rows stand in the training rows of") == count
        assert ("row 1 = training row 4" in said) == (task == "gamma")


def test_evaluate_takes_the_settings_of_the_table(leaky: Path, capsys: Capture) -> None:
    """With the experiment's cap, batch and writing, it is the table's own run, which is not run again."""
    run = of(leaky, "adapt-mpt-gamma")[0].id
    before = {one.id for one in of(leaky, "evaluate-")}
    settings = ("limits.test_rows=8", "batch_size=5", "generate=false")
    sets = [word for one in settings for word in ("--set", one)]
    assert command("evaluate", run, *sets, "--runs", leaky / "runs") == 0
    scored = runs.Run(Path(capsys.readouterr().out.splitlines()[-1]))
    assert scored.id in before
    result = scored.result()["scores"]["gamma"]
    assert (result["rows"], result["written"]) == (8, None)
    assert command("evaluate", run, "--rows", "8", *sets[2:], "--runs", leaky / "runs") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(scored.path)


def test_evaluate_scores_all_rows_or_as_many_as_are_asked_for(leaky: Path, capsys: Capture) -> None:
    """Without a cap all 12; with `--rows` the same five every time; what cannot be is refused."""
    run = of(leaky, "adapt-mpt-delta")[0].id
    found = []
    for words in ((), ("--rows", 5), ("--rows", 5, "--set", "batch_size=2")):
        assert command("evaluate", run, *words, "--runs", leaky / "runs") == 0
        scored = runs.Run(Path(capsys.readouterr().out.splitlines()[-1]))
        found.append([line["text"] for line in scored.lines("predictions.jsonl")])
    assert [len(texts) for texts in found] == [12, 5, 5]
    assert found[1] == found[2]
    assert set(found[1]) < set(found[0])
    assert command("evaluate", run, "--rows", "0", "--runs", leaky / "runs") == 2
    assert "command line (limits.test_rows)" in warned(capsys)
    assert command("evaluate", run, "--set", "bach_size=2", "--runs", leaky / "runs") == 2
    assert "did you mean 'batch_size'?" in warned(capsys)


def test_too_few_rows_for_the_shots_is_a_warning_in_training(leaky: Path, capsys: Capture) -> None:
    """40 rows where 50 are asked for: all of them are trained on, and the run says so."""
    (leaky / "few.yaml").write_text(
        f"tasks: [tasks/delta.yaml]\nbase: {{model: {leaky / 'base'}, dtype: float32}}\n"
        "prompt: {length: 4, position: prefix}\nmethod: {name: prompt_tuning}\nshots_total: 50\n"
        "optim: {lr: {prompt: 0.1}, steps: 1, batch_size: 4}\n",
        "utf-8",
    )
    assert command("adapt", leaky / "few.yaml", "--runs", leaky / "runs") == 0
    out, err = capsys.readouterr()
    assert "warning: task delta, train: 25 rows of 'other' are asked for, and there are 20" in err
    assert "warning: WEFT-D13: 25 rows of 'other' are asked for" in err
    assert runs.Run(Path(out.splitlines()[-1])).result()["rows"]["delta"]["train"] == 40


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
    ours = predictor.load(run.id, root=job / "runs").answerers[0].model
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


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils")
def test_export_of_all_tasks_to_peft(job: Path, tmp_path: Path, capsys: Capture) -> None:
    """Stock PEFT composes the prompts of the run, task by task, and writes the same tokens."""
    from peft import AutoPeftModelForCausalLM, AutoPeftModelForSeq2SeqLM

    run, plain = of(job, "source-")[0], of(job, "teachers-alpha")[0]
    code = command("export", run.id, "*", tmp_path / "peft", "--runs", job / "runs")
    if job.name.startswith("llama-suffix"):
        assert code == 2
        return
    assert code == 0
    assert command("export", plain.id, "*", tmp_path / "none", "--runs", job / "runs") == 2
    assert "no shared prompt" in capsys.readouterr().err
    assert json.loads((tmp_path / "peft" / "tasks.json").read_text()) == ["alpha", "beta"]
    auto = AutoPeftModelForSeq2SeqLM if job.name.startswith("t5") else AutoPeftModelForCausalLM
    theirs = auto.from_pretrained(tmp_path / "peft").eval()
    ours = predictor.load(run.id, root=job / "runs").answerers[0].model
    with torch.no_grad():
        prompts = theirs.get_prompt(2, torch.arange(2))
        torch.testing.assert_close(prompts, ours.prompts(torch.arange(2)), rtol=1e-5, atol=1e-7)
    tokens = ours.backbone.text_tokens("the good film")[0]
    ids, end = torch.tensor([tokens]), ours.backbone.tokenizer.eos_token_id
    for number in range(2):
        mine = ours.backbone.generate(ours.begin([tokens], [number]), 5)[0]
        out = theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), task_ids=torch.tensor([number]),
            max_new_tokens=5, do_sample=False,
        )[0].tolist()  # fmt: skip
        written = out[1 if job.name.startswith("t5") else len(tokens) :]
        assert list(mine) == (written[: written.index(end)] if end in written else written)


def test_records_of_runs_give_the_same_table_and_hold_no_text(
    job: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Packed and unpacked elsewhere; the experiment has its page left to do, and no path is told."""
    import tarfile

    from benchmarks import records

    def table(root: Path) -> str:
        capsys.readouterr()
        assert command("table", job / "tiny.yaml", "--runs", root, "--format", "markdown") == 0
        return capsys.readouterr().out

    records.pack(job / "runs", tmp_path / "records.tar.xz")
    with tarfile.open(tmp_path / "records.tar.xz") as archive:
        archive.extractall(tmp_path / "again", filter="data")
    assert table(tmp_path / "again") == table(job / "runs")
    assert command("run", job / "tiny.yaml", "--runs", tmp_path / "again", "--dry-run") == 0
    assert " 0 to do" in capsys.readouterr().out
    assert command("run", job / "tiny.yaml", "--runs", tmp_path / "again", "--quiet") == 0
    [page] = (tmp_path / "again").glob("*.html")
    assert "prompts of these runs are not at hand" in page.read_text("utf-8")
    said = b"".join(path.read_bytes() for path in (tmp_path / "again").glob("*/*.json*"))
    assert b"the good" not in said
    assert str(job).encode() not in b"".join(
        path.read_bytes() for path in (tmp_path / "again").glob("*/env.json")
    )


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
