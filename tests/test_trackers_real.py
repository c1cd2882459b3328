"""What trackers' own readers find is what runs logged, value for value: stopped once, and taken up again.

Each needs the tracker's package, which is not among those of development:
pip install 'weft[tensorboard,trackio,wandb,mlflow]'
"""

import importlib.util
import json
import os
import signal
import struct
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from test_tracking import ROWS, expected_outcome
from tiny_job import SHORT, command, write_job
from yaml import safe_load

from weft import storage
from weft.runs import Run, finished
from weft.runs.folder import LOG
from weft.tracking import telling

Values = dict[str, list[tuple[int, float]]]  # of one run: steps and values by name


def tracked(name, tmp_path, monkeypatch):
    """The finished runs of an experiment that was asked to end in the middle; skips without the package."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}: pip install 'weft[{name}]'")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    path = write_job(tmp_path, "llama", "suffix", SHORT + ROWS)
    append = storage.append_line

    def stop_at_seven(file, line):
        append(file, line)
        if "adapt" in str(file) and json.loads(line)["step"] == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    on = ("run", path, "--runs", tmp_path / "runs", "--track", name, "--project", "proven", "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "append_line", stop_at_seven)
        assert command(*on) == 143
    assert command(*on) == 0
    return finished(tmp_path / "runs")


def logged(run: Run) -> Values:
    """What a run logged, and what came out of it."""
    found: Values = defaultdict(list)
    lines = run.lines(LOG)
    for line in lines:
        for name, value in line.items():
            if name != "step":
                found[name].append((line["step"], value))
    for name, value in expected_outcome(run).items():
        found[name].append((lines[-1]["step"] if lines else 0, value))
    return dict(found)


@pytest.mark.slow
def test_tensorboard_reads_back_what_was_logged(tmp_path, monkeypatch, capsys):
    """By its own accumulator of event files; it keeps values in float32."""
    runs = tracked("tensorboard", tmp_path, monkeypatch)
    assert "warning" not in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for run in runs:
            folder = tmp_path / "runs" / ".trackers" / "tensorboard" / "proven" / run.id
            events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
            found = {
                name: [(one.step, one.value) for one in events.Scalars(name)]
                for name in events.Tags()["scalars"]
            }
            expected = logged(run)
            assert found == {
                name: [(step, float(np.float32(value))) for step, value in values]
                for name, values in expected.items()
            }
            [settings] = [safe_load(path.read_text()) for path in folder.glob("*/hparams.yml")]
            assert settings == dict(telling.settings(run.config()))


@pytest.mark.slow
def test_mlflow_reads_back_what_was_logged(tmp_path, monkeypatch, capsys):
    """By its own client, from a store of SQLite."""
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    runs = tracked("mlflow", tmp_path, monkeypatch)
    assert "warning" not in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        client = MlflowClient(store)
        [experiment] = client.search_experiments(filter_string="name = 'proven'")
        there = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
        assert sorted(there) == [run.id for run in runs]
        for run in runs:
            one = there[run.id]
            found = {
                name: sorted(
                    (point.step, point.value) for point in client.get_metric_history(one.info.run_id, name)
                )
                for name in one.data.metrics
            }
            assert found == logged(run)
            assert one.info.status == "FINISHED"
            settings = telling.settings(run.config())
            assert one.data.params == {name: str(value) for name, value in settings.items()}


@pytest.mark.slow
def test_trackio_reads_back_what_was_logged(tmp_path, monkeypatch, capsys):
    """By its own storage, from its local folder."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    runs = tracked("trackio", tmp_path, monkeypatch)
    assert "warning" not in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trackio.sqlite_storage import SQLiteStorage

        for run in runs:
            found: Values = defaultdict(list)
            for line in SQLiteStorage.get_logs("proven", run.id):
                for name, value in line.items():
                    if name not in ("step", "timestamp"):
                        found[name].append((line["step"], value))
            assert found == logged(run)
            kept = SQLiteStorage.get_run_config("proven", run.id)
            assert kept.items() >= telling.settings(run.config()).items()


@pytest.mark.slow
def test_wandb_keeps_what_was_logged(tmp_path, monkeypatch, capsys):
    """In its offline mode: its files, one for each time that the run went on, hold every step once."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    runs = tracked("wandb", tmp_path, monkeypatch)
    assert "warning" not in capsys.readouterr().err
    for run in runs:
        found: Values = defaultdict(list)
        settings = {}
        files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{run.id}/run-*.wandb"))
        assert files
        for record in (one for path in files for one in wandb_records(path)):
            line = {
                item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item
            }
            step = line.get("_step")
            for name, value in line.items():
                if not name.startswith("_"):
                    found[name].append((step, value))
            settings |= {one.key: json.loads(one.value_json) for one in record.run.config.update}
            if record.run.run_id:
                assert (record.run.run_id, record.run.project) == (run.id, "proven")
        assert found == logged(run)
        assert settings.items() >= telling.settings(run.config()).items()


def wandb_records(path: Path):
    """The records of a file of W&B: those of a log of LevelDB, in blocks of 32 KiB, after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, block, at, parts = path.read_bytes(), 32768, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:  # too little for a header: the next block
            at += block - at % block
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""
