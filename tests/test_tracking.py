"""Trackers are told what runs log, each step once, and never change or stop a run."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from tiny_job import SHORT, command, write_job

from weft import storage
from weft.errors import ConfigError, ResourceError, UnsupportedError
from weft.runs import Run, finished
from weft.runs.config import EvaluateRun
from weft.runs.folder import LOG
from weft.tracking import Telling, asked, companion, telling
from weft.tracking.trackers import Trackers

ROWS = """
  - label: prompt tuning
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 12, batch_size: 6, eval_every: 4}}
  - {{label: majority, method: {{name: majority}}}}
"""
# A tracker's client: what it is told are lines of a file; and it can fail in every way that clients have.
CLIENT = """
import json, os, threading, time
from pathlib import Path

class Run:
    def __init__(self, name, how):
        self.path = Path(os.environ["TRACKIO_DIR"], f"{name}.jsonl")
        self.add({"init": how})

    def add(self, value):
        with open(self.path, "a") as file:
            file.write(json.dumps(value) + "\\n")

    def log(self, values, step):
        fail("log" if step > 1 else "")
        self.add({"step": step, **values})
        fail("taken" if step > 1 else "")

    def finish(self):
        fail("finish")
        self.add("finish")

def fail(where):
    place, _, how = os.environ.get("TRACKIO_FAILS", "").partition(" ")
    if where and place == where:
        if how == "exits":
            raise SystemExit(3)
        if how == "dies":
            os._exit(3)
        if how == "hangs":
            time.sleep(1000)
        raise OSError("no\\nspace")

def init(project, name, **how):
    print("* a line on standard output")
    fail("init")
    return Run(name, {"project": project, **how})
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """An experiment, and its runs without a tracker."""
    path = write_job(tmp_path_factory.mktemp("job"), "llama", "suffix", SHORT + ROWS)
    assert command("run", path, "--runs", path.parent / "runs", "--quiet") == 0
    return path


@pytest.fixture
def client(tmp_path, monkeypatch):
    """The client above in the place of trackio's; the folder of what it is told."""
    package = tmp_path / "packages" / "trackio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(CLIENT, "utf-8")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "told"))
    (tmp_path / "told").mkdir()
    yield tmp_path / "told"
    sys.modules.pop("trackio", None)


def told(folder: Path, run: str) -> list[dict]:
    """What the client was told of a run."""
    return [json.loads(line) for line in (folder / f"{run}.jsonl").read_text().splitlines()]


def steps(lines: list[dict]) -> list[dict]:
    """Of that, what are steps of a training."""
    return [line for line in lines if "loss" in line]


def numbers(root: Path) -> dict[str, dict[str, bytes]]:
    """Every finished run's numbers, bit by bit."""
    names = ("prompts.safetensors", "result.json", "predictions.jsonl", LOG)
    return {
        run.id: {name: (run.path / name).read_bytes() for name in names if (run.path / name).exists()}
        for run in finished(root)
    }


def expected_outcome(run: Run) -> dict[str, object]:
    """What came out, written down from the run's files as they are."""
    result = json.loads((run.path / "result.json").read_text())
    if isinstance(run.config(), EvaluateRun):
        [(task, scores)] = result["scores"].items()
        found = {f"test/{task}/{name}": value for name, value in scores["metrics"].items()}
        written = scores["written"] or {}
        return found | {f"test/{task}/written/{name}": value for name, value in written.items()}
    names = ["dev", "best_step", "steps", "trained_parameters", "parameters_per_task"]
    found = {f"result/{name}": result[name] for name in names if result.get(name) is not None}
    return found | {"result/seconds": json.loads((run.path / "timing.json").read_text())["seconds"]}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_experiment_is_told_whole(job, client, tmp_path, workers, capsys):
    """Every run, those of one batch too: settings, every step, and what came out; the bits are the same."""
    on = ("--track", "trackio", "--quiet", "--workers", workers)
    assert command("run", job, "--runs", tmp_path / "runs", *on) == 0
    assert numbers(tmp_path / "runs") == numbers(job.parent / "runs")
    out, err = capsys.readouterr()
    assert "warning" not in err
    assert "standard output" not in out
    runs = finished(tmp_path / "runs")
    assert {path.stem for path in client.iterdir()} == {run.id for run in runs}
    for run in runs:
        first, *lines, last = told(client, run.id)
        how = first["init"]
        assert (how["project"], how["resume"]) == ("tiny", "allow")
        assert how["config"]["stage"] == run.config().stage
        assert how["config"]["tasks"] == ", ".join(task.name for task in run.config().tasks)
        assert last == "finish"
        assert lines[:-1] == run.lines(LOG)
        outcome = lines[-1]
        assert outcome.pop("step") == (run.lines(LOG)[-1]["step"] if run.lines(LOG) else 0)
        assert outcome == expected_outcome(run)
    log = (tmp_path / "runs" / ".trackers" / "log").read_text()
    assert log.count("standard output") == len(runs)


MORE = ["taken dies", "log hangs", "init raises", "log exits", "finish raises", "init hangs"]


@pytest.mark.parametrize("how", ["log raises", *(pytest.param(how, marks=pytest.mark.slow) for how in MORE)])
def test_a_tracker_that_fails_harms_no_run(job, client, tmp_path, monkeypatch, capsys, how):
    """Whatever happens to its client: the runs are those without a tracker, and each fault is told once."""
    monkeypatch.setenv("TRACKIO_FAILS", how)
    if how.endswith("hangs"):
        monkeypatch.setattr(companion, "LEAVE", 3.0)
    config = job.parent / "teachers.yaml"
    config.write_text(
        f"base: {{model: {job.parent / 'base'}, dtype: float32, attention: eager}}\n"
        "prompt: {length: 4, position: suffix}\ntasks: [tasks/alpha.yaml, tasks/beta.yaml]\n"
        "optim: {lr: {prompt: 0.1}, steps: 4, batch_size: 6}\n",
        "utf-8",
    )
    plain, other = tmp_path / "plain", tmp_path / "runs"
    assert command("teachers", config, "--runs", plain, "--quiet") == 0
    capsys.readouterr()
    assert command("teachers", config, "--runs", other, "--quiet", "--track", "trackio") == 0
    err = " ".join(capsys.readouterr().err.split())
    assert numbers(other) == numbers(plain)
    one_by_one = len(numbers(plain)) if how.split()[1] in ("raises", "exits") else 1
    assert err.count("warning:") == one_by_one
    if how.endswith("raises"):
        assert "OSError: no space" in err
        assert err.count("--to trackio --project weft") == one_by_one
    monkeypatch.delenv("TRACKIO_FAILS")
    names = [run.id for run in finished(other)]
    assert command("track", *names, "--to", "trackio", "--runs", other) == 0  # tells what is missing
    for name in names:
        found = [line["step"] for line in steps(told(client, name))]
        assert found == sorted(set(found)), "no step twice"
        assert len(found) >= 3, "one step at most was lost with the tracker"


@pytest.mark.slow
def test_a_run_that_was_stopped_tells_no_step_twice(job, client, tmp_path, monkeypatch):
    """Asked to end in the middle, and without its checkpoints: each step comes once, as it is kept."""
    append, count = storage.append_line, []

    def stop_at_nine(path, line):
        append(path, line)
        if "adapt" in str(path) and json.loads(line)["step"] == 9:
            count.append(path.parent.name)
            os.kill(os.getpid(), signal.SIGTERM)

    on = ("--track", "trackio", "--quiet", "--runs", tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "append_line", stop_at_nine)
        assert command("run", job, *on) == 143
    begun = {name: [line["step"] for line in steps(told(client, name))] for name in set(count)}
    assert all(found == list(range(1, 10)) for found in begun.values())
    for name in begun:
        for path in (tmp_path / "runs" / name).glob("checkpoint-*"):
            path.unlink()  # it begins anew
    assert command("run", job, *on) == 0
    assert numbers(tmp_path / "runs") == numbers(job.parent / "runs")
    for name in begun:
        kept = Run(tmp_path / "runs" / name).lines(LOG)
        assert steps(told(client, name)) == kept
        assert sum("init" in line for line in told(client, name)) == 2  # taken up again, by its name


def test_a_log_is_read_as_it_is_written(tmp_path):
    """Whole lines of later steps: a torn one waits, and a log that was cut is followed on."""
    run = Run(tmp_path / "run")
    assert telling.later(run, 0) == []
    run.write(LOG, "")
    lines = [{"step": step, "loss": step / 7} for step in range(1, 8)]
    for line in lines[:5]:
        storage.append_line(run.path / LOG, json.dumps(line))
    length = (run.path / LOG).stat().st_size
    with (run.path / LOG).open("a") as file:
        file.write(json.dumps(lines[5])[:9])
    assert telling.later(run, 0) == lines[:5]
    assert telling.later(run, 4) == lines[4:5]
    assert telling.later(run, 5) == []
    storage.cut_log(run.path / LOG, length - len(json.dumps(lines[4])) - 1)
    assert telling.later(run, 5) == []
    for line in lines[4:]:
        storage.append_line(run.path / LOG, json.dumps(line))
    assert telling.later(run, 5) == lines[5:]


def test_a_run_is_told_by_one_process(job, client):
    """Another one that would tell the same run to the same tracker is refused."""
    run, trackers = finished(job.parent / "runs")[0], Trackers(("trackio",), "other", job.parent / "runs")
    with (
        storage.locked(trackers.folder("trackio", run.id)),
        pytest.raises(ResourceError, match="in use"),
    ):
        Telling(run, "trackio", trackers).tell()


def test_finished_runs_are_told_later_and_once(job, client, capsys):
    """The command of its own; a project of another name has notes of its own."""
    root = job.parent / "runs"
    [name] = [run.id for run in finished(root) if run.id.startswith("adapt-prompt-tuning-gamma")]
    for _ in range(2):
        assert command("track", name, "--to", "trackio", "--runs", root, "--project", "P.1") == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [f"{name}  trackio: 12 steps", f"{name}  trackio: told before"]
    assert steps(told(client, name)) == Run(root / name).lines(LOG)
    assert told(client, name)[0]["init"]["project"] == "P.1"
    assert command("track", name, "--to", "trackio,trackio", "--runs", root) == 0
    assert len(steps(told(client, name))) == 24


def test_evaluations_are_told(job, client, tmp_path, capsys):
    """`weft evaluate` has the option too, and prints for programs what it prints without."""
    root = job.parent / "runs"
    [name] = [run.id for run in finished(root) if run.id.startswith("adapt-prompt-tuning-delta")]
    on = ("--runs", root, "--json", "--quiet", "--rows", 5, "--track", "trackio", "--project", "five")
    assert command("evaluate", name, *on) == 0
    found = json.loads(capsys.readouterr().out)
    run = Run(Path(found["folder"]))
    first, outcome, _ = told(client, run.id)
    assert first["init"]["config"]["limits.test_rows"] == 5
    assert first["init"]["config"]["run"] == name
    assert outcome == {"step": 0, **expected_outcome(run)}


def test_options_are_checked_before_anything_is_loaded(job, tmp_path, capsys):
    """A tracker that is not known or not installed, a project that is no name: nothing is begun."""
    root = tmp_path / "runs"
    assert command("run", job, "--runs", root, "--track", "tensorbord") == 2
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert command("run", job, "--runs", root, "--track", "wandb") == 2
        assert "pip install 'weft[wandb]'" in capsys.readouterr().err
        with pytest.raises(UnsupportedError, match="mlflow needs its package"):
            asked(["mlflow"], "weft", root)
    assert not list(root.glob("*-*"))
    for name in ("../x", "", "a/b", "a" * 65):
        with pytest.raises(ConfigError, match="cannot be named"):
            asked(None, name, root)
    assert command("track", "--to", "") == 2


def test_settings_are_one_level(job):
    """Every value of a configuration that is set, by its place; tasks by their names."""
    run = next(one for one in finished(job.parent / "runs") if one.id.startswith("adapt-prompt-tuning-gamma"))
    found = telling.settings(run.config())
    assert found["optim.lr.prompt"] == 0.1
    assert found["base.dtype"] == "float32"
    assert found["base.checkpointing"] is False
    assert found["method.name"] == "prompt_tuning"
    assert found["tasks"] == "gamma"
    assert "source" not in found
    assert all(isinstance(value, str | int | float | bool) for value in found.values())
