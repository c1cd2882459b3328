"""Fingerprints of tiny runs of every kind and family: what stays when code is moved. A program, not a test.

    python -m tests.golden_runs OUT.json                  train the runs, write SHA-256 of what they hold
    python -m tests.golden_runs --compare A.json B.json   say what differs; exit code 1 if anything does

Last digits depend on the machine and its libraries, so both files must come from the same ones.
"""

import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

import torch
from safetensors import safe_open
from tiny_job import EXPERIMENT, FULL, command, write_job
from transformers.utils import logging

NEAREST = """  - label: MPT nearest
    method: {{name: mpt, start: nearest}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 4, batch_size: 6}}
"""
ALL = ("seeds=[0]", "limits.source_tokens=64", "teachers.optim.eval_every=6")
LIVE, KEPT = "source.distill.targets=live", "source.distill.targets=kept"
LIBRARY, PACKED = "base.products=library", "base.products=packed"  # chosen here: nothing is measured
JOBS = {  # name -> family, prompt position, settings
    "t5 kept": ("t5", "prefix", (KEPT, LIBRARY)),
    "t5 live": ("t5", "prefix", (LIVE, PACKED, "source.init=teachers", "source.distill.top=0")),
    "bert": ("bert", "prefix", (KEPT, PACKED, "source.distill.layers=all")),
    "llama suffix kept": ("llama", "suffix", (KEPT, LIBRARY, "base.attention=grouped")),
    "llama suffix live": ("llama", "suffix", (LIVE, PACKED)),
    "llama prefix": ("llama", "prefix", (KEPT, LIBRARY, "base.attention=sdpa", "base.dropout=true")),
    "gpt2": ("gpt2", "suffix", (KEPT, "base.deterministic=true")),
}


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return sha256(data).hexdigest()


def tensors_of(path: Path) -> dict[str, str]:
    """The label and every tensor of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        found = {"label": digest(file.metadata()["weft"].encode())}
        for name in file.keys():  # noqa: SIM118
            value = file.get_tensor(name)
            form = f"{value.dtype} {tuple(value.shape)} ".encode()
            found[name] = digest(form + value.flatten().view(torch.uint8).numpy().tobytes())
    return {f"{path.name} {name}": one for name, one in found.items()}


def run_of(folder: Path) -> dict[str, str]:
    """What a finished run holds, but times and the record of the machine."""
    result = json.loads((folder / "result.json").read_bytes())
    result.pop("seconds", None)
    found = {"result.json": digest(json.dumps(result, sort_keys=True).encode())}
    for path in sorted(folder.glob("*.jsonl")):
        found[path.name] = digest(path.read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        found |= tensors_of(path)
    return found


def job_of(folder: Path, family: str, position: str, settings: tuple[str, ...]) -> dict[str, str]:
    """`run id, file, tensor` -> SHA-256, of all runs of an experiment."""
    rows = EXPERIMENT + NEAREST + (FULL if position == "prefix" else "")
    experiment, runs = write_job(folder, family, position, rows), folder / "runs"
    sets = [word for one in (*ALL, *settings) for word in ("--set", one)]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        code = command("run", experiment, "--runs", runs, "--quiet", *sets)
    if code:
        sys.exit(f"weft run ended with {code}: {said.getvalue()}")
    folders = sorted(path.parent for path in runs.glob("*/manifest.json"))
    return {f"{one.name} {name}": value for one in folders for name, value in run_of(one).items()}


def write(out: Path) -> None:
    """Train all runs, and write their fingerprints."""
    logging.disable_progress_bar()
    found: dict[str, str] = {}
    for name, job in JOBS.items():
        with TemporaryDirectory() as folder:
            found |= {f"{name}: {key}": value for key, value in job_of(Path(folder), *job).items()}
        print(f"{name}: {len(found)} fingerprints so far", file=sys.stderr)
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")


def compare(one: Path, other: Path) -> int:
    """Print what differs; 1 if anything does."""
    a, b = (json.loads(path.read_bytes()) for path in (one, other))
    lines = [f"{key}: only in {one if key in a else other}" for key in sorted(a.keys() ^ b.keys())]
    lines += [f"{key}: differs" for key in sorted(a.keys() & b.keys()) if a[key] != b[key]]
    print("\n".join([*lines, f"{len(lines)} of {len(a | b)} differ"]))
    return int(bool(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compare"] and len(sys.argv) == 4:
        sys.exit(compare(Path(sys.argv[2]), Path(sys.argv[3])))
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
