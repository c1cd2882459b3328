"""Training steps in a process of their own, whose settings can differ from this one's."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import inputs, ours
from benchmarks.goals import Settings
from weft.data.batch import Encoded

ROOT = Path(__file__).parents[1]
# weft before torch, or threads wait as libgomp has them
CHILD = "import weft, json, sys; from benchmarks import apart; apart.child(*json.loads(sys.argv[1]))"
OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "GLIBC_TUNABLES", "MALLOC_")
SIZES = {False: (16, 20, 40), True: (2, 4, 8)}  # quick: batch, prompt, text
PLAIN = {"attention": "library", "products": "library"}  # nothing is measured first
TEXT = "smollm2, batch 16, prompt 20 before texts of 40 tokens, {} steps in a process of their own"


def seconds(settings: Settings, steps: int, environment: Mapping[str, str]) -> float:
    """What steps take in a new process, after a first one, under settings of its own."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    name = str(inputs.t5_folder("tiny", settings.folder)) if settings.quick else "smollm2"
    told = json.dumps([name, str(settings.folder), settings.dtype, *SIZES[settings.quick], steps])
    command = [sys.executable, "-c", CHILD, told]
    done = subprocess.run(
        command, cwd=ROOT, env={**bare, **environment}, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.split()[-1])


def child(name: str, folder: str, dtype: Any, size: int, length: int, text: int, steps: int) -> None:
    """Load the model, take a step, and print how long the others take."""
    settings = Settings(1, False, None, Path(folder), dtype)
    backbone = inputs.load(name, settings, length=length, position="prefix", **PLAIN)
    batches = [[Encoded((5,) * text, (6, 7))] * size] * steps
    model = ours.prompts(backbone, length, 1)
    ours.steps(model, batches[:1])
    clock = time.perf_counter()
    ours.steps(model, batches)
    print(time.perf_counter() - clock)
