"""What this machine has, and whether a run folder is whole."""

import os
import shutil
from importlib.metadata import version
from pathlib import Path

from weft import bases, storage
from weft.config import BaseConfig
from weft.errors import WeftError
from weft.runs import Run


def machine(base: BaseConfig, data_root: Path | None, root: Path) -> list[tuple[str, str]]:
    """Facts of the machine as (name, finding), the probe of number formats among them."""
    import torch
    from accelerate import PartialState

    from weft.backbone import probe

    device = PartialState().device
    facts = [(name, version(name)) for name in ("weft", "torch", "transformers")]
    facts += [("device", f"{device}, {torch.get_num_threads()} threads")]
    facts += [("number format", probe(device).describe())]
    facts += [("base model", _base(base))]
    facts += [("data", str(data_root) if data_root else "none given (--data or WEFT_DATA)")]
    place = root if root.exists() else root.absolute().parent
    writable = "writable" if os.access(place, os.W_OK) else "NOT writable"
    return [*facts, ("runs", f"{root}: {shutil.disk_usage(place).free / 1e9:,.1f} GB free, {writable}")]


def _base(base: BaseConfig) -> str:
    try:
        folder = bases.resolve(base)
    except WeftError as error:
        return str(error).replace("\n", ";")
    return f"{folder.name}: {folder.origin}, {folder.family}, D = {folder.width}, hash {folder.hash[:12]}"


def check_run(path: Path) -> list[str]:
    """Faults of a run folder with their remedies; empty when it is whole."""
    run = Run(path)
    if not (path / "config.yaml").is_file():
        return [f"{path} is not the folder of a run (no config.yaml)"]
    if not run.done:
        return ["the run is not finished: run the same command again to finish it"]
    faults = [
        f"{name} is missing or changed: delete the folder and run again" for name in storage.verify(path)
    ]
    try:
        run.config()
        if not faults and run.config().stage != "evaluate":
            run.tensors()
    except WeftError as error:
        faults.append(str(error))
    return faults
