"""Kills a tiny experiment at random moments until it is done; run as a program by test_interruptions.py.

    python kill_job.py EXPERIMENT FOLDER KILLS SEED

Everything is imported once; each attempt is a fork of this process that is killed, and the last one ends by
itself. Every other kill waits until a checkpoint was written, so that many fall into the middle of a run.
Prints one JSON object: how many kills, jobs and lost runs there were, and what differed.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import transformers.models.llama.modeling_llama
import transformers.models.t5.modeling_t5  # noqa: F401 - forks need not import them again

from weft import storage
from weft.config.files import load_config
from weft.experiments import execution, jobs
from weft.experiments.config import Experiment
from weft.progress import Progress
from weft.runs.workspace import Workspace
from weft.training import checkpoints

# what depends on the clock or on where a run began is left out
COMPARED = (
    "config.yaml",
    "metrics.jsonl",
    "prompts.safetensors",
    "weights.safetensors",
    "notes.json",
    "result.json",
    "predictions.jsonl",
)


def attempt(experiment: Path, root: Path) -> None:
    """The whole job in this process, a checkpoint after every step."""
    checkpoints.SHARE = 0
    workspace = Workspace(root, progress=Progress(quiet=True), save_seconds=0.0)
    config = load_config(experiment, Experiment, {})
    plan = jobs.plan(config, jobs.specs_of(config), workspace.run_id)
    execution.launch(plan, workspace)


def fork(experiment: Path, root: Path) -> int:
    """Start an attempt in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            attempt(experiment, root)
            code = 0
        finally:
            os._exit(code)
    return child


def finished(root: Path) -> dict[str, str]:
    """Run -> SHA-256 of its manifest, for all finished runs."""
    return {path.parent.name: _sha(path) for path in root.glob("*/manifest.json")}


def contents(root: Path) -> dict[str, str]:
    """File -> SHA-256, for what two equal jobs must have in common; names that do not belong show up too."""
    files = [path for path in root.glob("[!.]*/*") if path.is_file() and not path.name.startswith("lock")]
    kept = [
        path
        for path in files
        if path.name in COMPARED or path.name.startswith(("checkpoint", "answers", ".tmp"))
    ]
    return {str(path.relative_to(root)): _sha(path) for path in kept}


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hit(root: Path) -> tuple[int, int] | None:
    """Of a run that was killed in the middle: the step of its newest checkpoint, and the steps in its log."""
    for log in root.glob("*/metrics.jsonl"):
        steps = [int(path.name[11:19]) for path in log.parent.glob("checkpoint-*")]
        if steps and not storage.is_sealed(log.parent):
            return max(steps), log.read_bytes().count(b"\n")
    return None


def wait_for_checkpoint(root: Path, child: int) -> None:
    """Until the child has written a checkpoint, or is at its end."""
    before = set(root.glob("*/checkpoint-*"))
    while set(root.glob("*/checkpoint-*")) <= before and _alive(child):
        time.sleep(0.005)


def _alive(child: int) -> bool:
    """Whether a child still runs; its status is left for the one who waits for it."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def main(experiment: Path, folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Kill until there were enough kills, each job to its end."""
    start = time.monotonic()
    os.waitpid(fork(experiment, folder / "whole"), 0)
    seconds, wanted = time.monotonic() - start, contents(folder / "whole")
    draw, done, jobs, redone, middle, unlike = random.Random(seed), 0, 0, 0, [], []
    while done < kills:
        root, jobs = folder / f"job{jobs}", jobs + 1
        while True:
            child, before = fork(experiment, root), finished(root)
            if done < kills:
                if done % 2:
                    wait_for_checkpoint(root, child)
                time.sleep(draw.uniform(0, 0.1 if done % 2 else 0.8 * seconds))
            else:
                os.waitpid(child, 0)
                break
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                break
            done += 1
            after = finished(root)
            redone += sum(after.get(name) != sha for name, sha in before.items())
            middle += [place] if (place := hit(root)) else []
        found = contents(root)
        unlike += sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    runs = len(finished(folder / "whole"))
    return {"kills": done, "jobs": jobs, "runs": runs, "redone": redone, "middle": middle, "unlike": unlike}


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, where, count, number = sys.argv[1:]
    print(json.dumps(main(Path(place), Path(where), int(count), int(number))))
