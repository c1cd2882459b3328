"""`weft learn` on 200 rows as a whole process, beside the two classifiers that a user writes by hand."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import inputs, measure
from benchmarks.goals import Result, Settings
from weft.config.model import BaseConfig
from weft.models.base_folder import resolve

ROWS, QUICK_ROWS = 200, 24


def run(settings: Settings) -> list[Result]:
    """Seconds from the command to its last line; every round learns anew."""
    rows = settings.folder / "learn-rows.jsonl"
    count = _write(rows, settings)
    model = str(resolve(BaseConfig(model="smollm2")).path)
    arms = {
        "weft learn": lambda _: _learn(rows, settings),
        "weft learn --quick": lambda _: _learn(rows, settings, "--quick"),
        "by hand": lambda _: _process("-m", "benchmarks.by_hand", str(rows), model),
    }
    seconds, _ = measure.interleave(arms, settings.rounds, warm=not settings.quick)
    text = (
        f"{count} rows on smollm2; weft: a model that answers, and itself, frozen features, TF-IDF and the "
        "majority on five folds; by hand: the two classifiers on five folds (transformers, scikit-learn)"
    )
    return [
        Result(f"{way} / by hand", measure.ratios(seconds, way, "by hand"), text, seconds)
        for way in ("weft learn", "weft learn --quick")
    ]


def _write(file: Path, settings: Settings) -> int:
    """Rows of one task under `text` and `answer`; how many."""
    task = inputs.task_of(settings)
    most = QUICK_ROWS if settings.quick else ROWS
    rows = [*task.load("train"), *task.load("test")][:most]
    lines = [json.dumps({"text": row.source, "answer": row.target}) for row in rows]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return len(rows)


def _learn(rows: Path, settings: Settings, *more: str) -> None:
    with TemporaryDirectory(dir=settings.folder) as folder:
        places = ("--runs", f"{folder}/runs", "--tasks", f"{folder}/tasks")
        _process("-m", "weft", "learn", str(rows), "--text", "text", "--answer", "answer", *places, *more)


def _process(*words: str) -> None:
    """Run Python in the clone; what it prints is shown if it fails."""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
