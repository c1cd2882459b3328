"""Runs beside each other: the same runs with the same bits as one after the other, whoever is killed."""

import contextlib
import os
import pickle
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest
from tiny_job import SHORT, command, write_job

from weft.config.task import TaskSpec
from weft.errors import ConfigError, DataError, Faults, ResourceError
from weft.experiments.executors import LostWorkerError, executor
from weft.experiments.executors.processes import Processes
from weft.experiments.jobs import Job
from weft.experiments.spreading import Spreading
from weft.methods.majority import Majority
from weft.runs.config import EvaluateRun
from weft.runs.workspace import Workspace

ROWS = """
  - label: prompt tuning
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 30, batch_size: 6, eval_every: 10}}
  - label: MPT
    method: {{name: mpt}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 3, batch_size: 6}}
  - {{label: features, method: {{name: frozen_features}}}}
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """An experiment with every stage, and its runs as one process makes them."""
    path = write_job(tmp_path_factory.mktemp("job"), "llama", "suffix", SHORT + ROWS)
    assert command("run", path, "--runs", path.parent / "runs", "--quiet") == 0
    return path


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Of each worker, as this process has."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def held(root: Path) -> dict[str, dict[str, bytes]]:
    """Every finished run's numbers, bit by bit."""
    names = ("prompts.safetensors", "result.json", "predictions.jsonl")
    folders = [path.parent for path in root.glob("*/manifest.json")]
    return {
        folder.name: {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
        for folder in folders
    }


def test_two_processes_make_the_runs_of_one(job, tmp_path, capsys):
    """All of them, each once, with the same bits; and the same table."""
    assert command("run", job, "--runs", tmp_path / "runs", "--workers", 2) == 0
    out, err = capsys.readouterr()
    assert "MPT" in out
    expected = held(job.parent / "runs")
    assert held(tmp_path / "runs") == expected
    for name in expected:
        assert err.count(f"{name} ") <= 1
    assert command("run", job, "--runs", tmp_path / "runs", "--workers", 2) == 0  # nothing is left to do


def test_submitit_makes_the_same_runs(job, tmp_path):
    """Its local cluster: the jobs that Slurm would be given, as processes, with as many threads."""
    on = ("--executor", "slurm", "--option", "cluster=local", "--option", "timeout_min=5")
    assert command("run", job, "--runs", tmp_path / "runs", "--workers", 2, "--quiet", *on) == 0
    assert held(tmp_path / "runs") == held(job.parent / "runs")


def test_a_worker_that_is_killed_loses_no_run(job, tmp_path, monkeypatch):
    """By SIGKILL in the middle of a training: another process goes on with it, and the bits are the same."""
    killed = []

    class Watched(Processes):
        def __init__(self, slots):
            super().__init__(slots)
            threading.Thread(target=self._kill, daemon=True).start()

        def _kill(self):
            while not killed:
                begun = [
                    path.parent for path in (tmp_path / "runs").glob("adapt-prompt-tuning-*/metrics.jsonl")
                ]
                for folder in begun:
                    owner = (folder / "lock.owner").read_text().split()
                    if not (folder / "manifest.json").exists() and owner[:1] == ["process"]:
                        os.kill(int(owner[1]), signal.SIGKILL)
                        killed.append(int(owner[1]))
                        return
                time.sleep(0.002)

    monkeypatch.setattr("weft.experiments.executors.processes.Processes", Watched)
    assert command("run", job, "--runs", tmp_path / "runs", "--workers", 2, "--quiet") == 0
    assert killed
    assert held(tmp_path / "runs") == held(job.parent / "runs")


def test_a_worker_that_is_lost_says_how_and_another_takes_its_place(tmp_path):
    """Its order fails; the next one is filled by a new process."""
    workers = Processes(1)
    try:
        first = workers._workers[0].process.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(LostWorkerError, match="worker 0 ended with -9"):
            workers.submit(order(tmp_path)).result(60)
        assert workers._workers[0].process.pid != first
        assert workers.submit(order(tmp_path)).result(60) == {}
    finally:
        workers.close()
    assert not workers._workers[0].process.is_alive()


def order(root):
    from weft.experiments.orders import Order

    return Order((), root, None)


class Scripted:
    """An executor that answers at once: by run, a list of what becomes of it, one try after the other."""

    def __init__(self, slots=2, **script):
        self.slots, self.script, self.order = slots, script, []

    def submit(self, order):
        found = Future()
        names = [chr(config.seed) for config in order.configs]
        self.order.append(names)
        outcome = self.script.get(names[0], [None]).pop(0)
        if isinstance(outcome, (LostWorkerError, ResourceError, ValueError)):
            found.set_exception(outcome)
        else:
            found.set_result(dict.fromkeys(names, outcome))
        return found

    def close(self):
        """Nothing."""


def config_of(name):
    """A run that is told from others by its seed."""
    task = TaskSpec(name="task", source="{text}", target="{label}", files={"test": "rows.jsonl"})
    return EvaluateRun(tasks=(task,), method=Majority(), seed=ord(name))


def spread(tmp_path, scripted, *groups):
    """What became of groups of runs, each with the names of those that it needs."""
    told = {}
    jobs = [[Job(name, config_of(name), needs, name) for name, needs in group.items()] for group in groups]
    spreading = Spreading(
        jobs, Workspace(tmp_path), scripted, lambda job, fault: told.update({job.id: fault})
    )
    return spreading.run(), told


def test_nothing_begins_before_what_it_needs(tmp_path):
    """And what may begin does so as soon as a worker is free."""
    scripted = Scripted(slots=2)
    lost, told = spread(tmp_path, scripted, {"a": ()}, {"b": ("a",)}, {"c": ()}, {"d": ("b", "c")})
    assert (lost, told) == (set(), dict.fromkeys("abcd"))
    assert scripted.order[:2] == [["a"], ["c"]]
    assert scripted.order[2:] == [["b"], ["d"]]


def test_a_failed_run_spares_all_but_those_that_need_it(tmp_path):
    """Of a group, whoever does not need it goes on."""
    fault = DataError("no rows")
    lost, told = spread(tmp_path, Scripted(a=[fault]), {"a": ()}, {"b": ("a",), "c": ()}, {"d": ("b",)})
    assert lost == {"b", "d"}
    assert told == {"a": fault, "c": None}


def test_an_order_is_given_to_another_worker_twice(tmp_path):
    """Then it has failed; other faults of an engine are told at once."""
    gone = LostWorkerError("worker 1 ended with -9")
    assert spread(tmp_path, Scripted(a=[gone, gone, None]), {"a": ()})[1] == {"a": None}
    [fault] = spread(tmp_path, Scripted(a=[gone] * 4), {"a": ()})[1].values()
    assert (type(fault), fault.code) == (ResourceError, "X01")
    [fault] = spread(tmp_path, Scripted(a=[ValueError("torn"), None]), {"a": ()})[1].values()
    assert "ValueError: torn" in fault.cause
    with pytest.raises(ResourceError, match="disk"):
        spread(tmp_path, Scripted(a=[ResourceError("the disk is full")]), {"a": ()})


def test_faults_cross_processes_whole(job, tmp_path, capsys):
    """A run that cannot be made is named with cause and remedy, and the others are finished."""
    several = Faults([DataError("a", fix="b", code="D01"), ConfigError("c", where="d")])
    again = pickle.loads(pickle.dumps(several))
    assert str(again) == str(several)
    assert again.exit_code == 3
    diverges = "rows.0.optim.lr.prompt=1e30"
    code = command("run", job, "--runs", tmp_path / "runs", "--workers", 2, "--quiet", "--set", diverges)
    err = " ".join(capsys.readouterr().err.split())
    assert code == 6
    assert "adapt-prompt-tuning-gamma" in err
    assert "fix:" in err
    assert len(list((tmp_path / "runs").glob("evaluate-*/manifest.json"))) >= 4  # of the other two rows


def test_settings_of_executors_are_checked(job, tmp_path, capsys):
    """A count below one; an engine that is not installed."""
    assert command("run", job, "--runs", tmp_path / "runs", "--workers", 0) == 2
    assert "give 1 or more" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "ray", None)
        with pytest.raises(Exception, match="need Ray") as caught:
            executor("ray", 1, tmp_path, {})
        assert caught.value.fix == "pip install 'weft[ray]'"


def owner_of(folder: Path) -> int | None:
    """The process that works on a run which is not finished; none if there is none."""
    owner = folder / "lock.owner"
    words = owner.read_text().split() if owner.exists() else []
    unfinished = words[:1] == ["process"] and not (folder / "manifest.json").exists()
    return int(words[1]) if unfinished else None


def node_at_work(root: Path, nodes):
    """Waits for a training that has done a step; gives the node that works on it, and the process."""
    while True:
        for log in root.glob("adapt-prompt-tuning-*/metrics.jsonl"):
            pid = owner_of(log.parent)
            if pid is None or not log.read_text().count("\n"):
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                above = {one.pid for one in psutil.Process(pid).parents()}
                for node in nodes:
                    if node.all_processes["raylet"][0].process.pid in above:
                        return node, pid
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.timeout(900)  # of which most is the start of Ray's processes where others are at work
def test_a_node_of_a_ray_cluster_is_killed_in_the_middle(job, tmp_path):
    """Two nodes that work; the one that trains is killed; the other one finishes all, with the same bits."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    killed = []

    def kill():
        node, pid = node_at_work(tmp_path / "runs", nodes)
        cluster.remove_node(node, allow_graceful=False)
        killed.append(pid)

    killer = threading.Thread(target=kill, daemon=True)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        killer.start()
        on = ("--workers", 2, "--executor", "ray", "--quiet")
        assert command("run", job, "--runs", tmp_path / "runs", *on) == 0
        killer.join(60)
        assert len(killed) == 1
        assert not psutil.pid_exists(killed[0])
        while (
            sum(node["Alive"] for node in ray.nodes()) > 2
        ):  # the head and the other one; told after a while
            time.sleep(0.1)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert held(tmp_path / "runs") == held(job.parent / "runs")
