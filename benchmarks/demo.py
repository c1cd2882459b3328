"""The whole demo on smollm2, as `scripts/demo` runs it."""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.goals import Result, Settings

ROOT = Path(__file__).parents[1]
EXPERIMENT = "configs/experiments/demo.yaml"
PROGRAM = "from weft.cli import main; main()"


def run(settings: Settings) -> list[Result]:
    """Seconds in a process of its own, in an empty folder of runs; once, since it takes minutes."""
    with TemporaryDirectory(dir=settings.folder) as folder:
        command = [sys.executable, "-c", PROGRAM, "run", EXPERIMENT]
        command += ["--dry-run"] * settings.quick
        clock = time.monotonic()
        subprocess.run(
            [*command, "--runs", folder, "--quiet"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
        seconds = time.monotonic() - clock
    return [
        Result(
            "demo", [seconds], f"weft run {EXPERIMENT}, in a process of its own, once", {"weft": [seconds]}
        )
    ]
