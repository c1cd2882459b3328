"""Finished runs as one small file, so that a reader has the folders that tables stand on.

    python -m benchmarks.records RUNS OUT.tar.xz
    tar -xf OUT.tar.xz -C runs

Tables and reports (without the map of prompts) are made from what is unpacked, and an experiment goes on
from it. Left out are texts (of data sets, which are not ours to pass on), weights, paths of the machine, and
the prompts of all runs but teachers and source stages: such runs answer nothing. What is left is sealed anew.
An adaptation that is wanted on another split must be trained again: remove its folder.
"""

import io
import json
import lzma
import re
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cyclopts import App

from weft import storage
from weft.runs import TENSORS, Run
from weft.runs.config import EvaluateRun

KEPT = ("config.yaml", "env.json", "result.json", "timing.json", "notes.json")
PREDICTIONS, DIGITS = "predictions.jsonl", 6
PATH = re.compile(r"^/.*")
FOLDER = re.compile(r"^(\s*folder: ).*/(src/weft/tasks/builtin)$", re.MULTILINE)
app = App(name="records", result_action="return_value")


@app.default
def pack(runs: Path, out: Path) -> None:
    """Pack all finished runs.

    Args:
        runs: the folder of runs.
        out: the file, NAME.tar.xz.
    """
    folders = sorted(path.parent for path in runs.glob(f"*/{storage.MANIFEST}"))
    chosen = _scored(folders)
    data = io.BytesIO()
    with TemporaryDirectory() as place, tarfile.open(fileobj=data, mode="w") as archive:
        for folder in chosen:
            copy = copied(folder, Path(place))
            for file in sorted(copy.iterdir()):
                archive.addfile(_entry(f"{folder.name}/{file.name}", file), io.BytesIO(file.read_bytes()))
    storage.write_bytes(out, lzma.compress(data.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(chosen)} runs, {out.stat().st_size:,} bytes: {out}")


def _scored(folders: list[Path]) -> list[Path]:
    """Without adaptations that no evaluation among them has scored: nothing could do so any more."""
    configs = {folder: Run(folder).config() for folder in folders}
    scored = {config.run for config in configs.values() if isinstance(config, EvaluateRun)}
    return [one for one, config in configs.items() if config.stage != "adapt" or one.name in scored]


def copied(folder: Path, place: Path) -> Path:
    """A run as it is passed on, sealed."""
    run, copy = Run(folder), place / folder.name
    copy.mkdir()
    names = [name for name in KEPT if name in storage.names(folder)]
    names += [TENSORS] if run.config().stage in ("teachers", "source") else []
    for name in names:
        (copy / name).write_bytes(_passed_on(name, storage.read_verified(folder, name)))
    if PREDICTIONS in storage.names(folder):
        lines = [json.dumps(_without_text(line), ensure_ascii=False) for line in run.lines(PREDICTIONS)]
        (copy / PREDICTIONS).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        names.append(PREDICTIONS)
    storage.seal(copy, names)
    return copy


def _passed_on(name: str, data: bytes) -> bytes:
    """A file without paths of the machine."""
    if name == "config.yaml":
        return FOLDER.sub(r"\1\2", data.decode()).encode()
    if name == "env.json":
        env = json.loads(data)
        env["command"] = [PATH.sub("PATH", word) for word in env.get("command", ())]
        return (json.dumps(env, indent=1, ensure_ascii=False) + "\n").encode()
    return data


def _without_text(line: dict[str, Any]) -> dict[str, Any]:
    """An answered row."""
    shares = {key: round(one, DIGITS) for key, one in (line.get("probabilities") or {}).items()}
    return {**line, "text": "", "probabilities": shares or None}


def _entry(name: str, file: Path) -> tarfile.TarInfo:
    """The same for whoever packs it, whenever."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = file.stat().st_size, 0o644
    return entry


if __name__ == "__main__":
    app()
