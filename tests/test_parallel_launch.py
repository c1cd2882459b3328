"""Several processes as launchers start them: torchrun, two of its agents as two machines, accelerate."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from several import free_port
from tiny_job import SHORT, command, write_job

from weft import runs

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--mixed_precision", "no"]
ACCELERATE += ["--dynamo_backend", "no", "--num_machines", "1"]
TEACHER = """
base: {{model: {base}, dtype: float32, attention: eager}}
prompt: {{length: 4, position: suffix}}
tasks: [tasks/alpha.yaml]
optim: {{lr: {{prompt: 0.02}}, steps: {steps}, batch_size: 5}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a base model, tasks, and two teachers: one of a few steps, one of many."""
    folder = tmp_path_factory.mktemp("launch")
    write_job(folder, "llama", "suffix", SHORT + "  - {{label: majority, method: {{name: majority}}}}\n")
    for name, steps in (("short", 12), ("long", 3000)):
        (folder / f"{name}.yaml").write_text(TEACHER.format(base=folder / "base", steps=steps))
    return folder


def begun(folder, launcher, *arguments):
    """A launcher at work on a command of weft, in a process group of its own."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [*launcher, "-m", "weft", *map(str, arguments)],
        cwd=folder,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def wanted(folder):
    """What one process trains."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert command("teachers", "short.yaml", "--runs", "one", "--quiet") == 0
    finally:
        os.chdir(before)
    return runs.finished(folder / "one")[0]


def nodes():
    """Two agents of torchrun, each with one process, as two machines have them."""
    port = free_port()
    for rank in (0, 1):
        place = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
        yield [*TORCHRUN, "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1", *place]


@pytest.mark.parametrize("launcher", ["torchrun", "nodes", "accelerate"])
def test_each_launcher_trains_what_one_process_does(folder, wanted, launcher):
    """Two processes: the folder named once, the prompt within 1e-6, and the run's own name."""
    port = ["--master-port", str(free_port())]
    launchers = {
        "torchrun": lambda: [[*TORCHRUN, "--nproc-per-node", "2", *port]],
        "nodes": lambda: list(nodes()),
        "accelerate": lambda: [
            [*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--main_process_port", port[1]]
        ],
    }[launcher]()
    every = [begun(folder, one, "teachers", "short.yaml", "--runs", launcher) for one in launchers]
    said = [one.communicate(timeout=200) for one in every]
    assert [one.returncode for one in every] == [0] * len(every), said
    [run] = runs.finished(folder / launcher)
    assert "".join(out for out, _ in said).split() == [f"{launcher}/{run.id}"]
    assert run.id == wanted.id
    assert run.env()["processes"] == 2
    ours, theirs = run.tensors()["prompts"], wanted.tensors()["prompts"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def workers(agent):
    """Rank -> process, of those that an agent started."""
    found = {}
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        told = dict(one.partition("=")[::2] for one in Path(f"/proc/{child}/environ").read_text().split("\0"))
        if told.get("RANK"):
            found[int(told["RANK"])] = int(child)
    return found


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_is_named_beside_torchruns_own_words(folder, victim):
    """SIGKILL amid a training: within 30 s its rank and host stand in the output, and all have ended."""
    root = folder / f"killed{victim}"
    launcher = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port())]
    agent = begun(folder, launcher, "teachers", "long.yaml", "--runs", root.name, "--quiet")
    until = time.monotonic() + 120
    while not any(path.stat().st_size > 2000 for path in root.glob("*/metrics.jsonl")):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(workers(agent.pid)[victim], signal.SIGKILL)
    lost = time.monotonic()
    _, said = agent.communicate(timeout=60)
    assert time.monotonic() - lost < 30
    assert agent.returncode != 0
    assert f"WEFT-X01: process {victim} of 2, on {socket.gethostname()}," in said
    assert not runs.finished(root)


def test_a_stop_saves_and_the_same_command_goes_on(folder):
    """SIGTERM to the launcher: both end after a step that is kept; the next start begins there."""
    launcher = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port())]
    root, steps = folder / "stopped", []
    for _ in range(2):
        agent = begun(folder, launcher, "teachers", "long.yaml", "--runs", root.name, "--quiet")
        until, before = time.monotonic() + 120, sum(steps[-1:])
        while not any(path.read_bytes().count(b"\n") > before + 20 for path in root.glob("*/metrics.jsonl")):
            assert time.monotonic() < until
            time.sleep(0.05)
        agent.terminate()
        _, said = agent.communicate(timeout=60)
        assert said.count("stopped; what is finished is kept, and the same command goes on") == 2
        [kept] = [max(int(path.name[11:19]) for path in run.glob("checkpoint-*")) for run in root.glob("t*")]
        steps.append(kept)
        [log] = root.glob("*/metrics.jsonl")
        assert log.read_bytes().count(b"\n") == kept
    assert 0 < steps[0] < steps[1]


def test_commands_for_one_process_refuse_several(folder):
    """Nothing is done twice beside itself."""
    launcher = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port())]
    agent = begun(folder, launcher, "validate", "tiny.yaml")
    _, said = agent.communicate(timeout=120)
    assert agent.returncode != 0
    assert "WEFT-C06: this command is for one process, and 2 were started" in said
