"""What this machine has, and whether a run folder is whole."""

import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from weft import storage
from weft.config.model import BaseConfig
from weft.errors import ArtifactError, WeftError
from weft.models import base_folder
from weft.runs import PASSING, Run

if TYPE_CHECKING:
    import torch

LOCK = ("lock", "lock.owner")
BUSY = 0.25  # of the cores: with so much load of others, threads wait for the slowest of them
MARKS = ("config.yaml", "env.json", storage.MANIFEST)  # a folder with one of them is, or was, a run


def machine(base: BaseConfig, data_root: Path | None, root: Path) -> list[tuple[str, str]]:
    """Facts of the machine as (name, finding), the probe of number formats among them."""
    busy = processor()  # before this process makes itself heard
    import torch
    from accelerate import PartialState

    from weft.models import probe

    device = PartialState().device
    facts = [(name, version(name)) for name in ("weft", "torch", "transformers")]
    facts += [("device", f"{device}, {torch.get_num_threads()} threads")]
    facts += [("processor", busy)]
    precision = probe(device)
    facts += [("number format", precision.describe())]
    facts += [("base model", _base(base)), *_choices(base, device, precision.dtype)]
    facts += [("data", str(data_root) if data_root else "none given (--data or WEFT_DATA)")]
    place = root if root.exists() else root.absolute().parent
    writable = "writable" if os.access(place, os.W_OK) else "NOT writable"
    return [*facts, ("runs", f"{root}: {shutil.disk_usage(place).free / 1e9:,.1f} GB free, {writable}")]


def processor() -> str:
    """How many cores there are, and whether other processes hold them, by the load of the last minute."""
    cores = os.cpu_count() or 1
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not every system says
        return f"{cores} cores"
    said = f"{cores} cores, load {load:.1f} in the last minute"
    if load <= BUSY * cores:
        return said
    return f"{said}: BUSY with other processes; training beside them takes far longer, so let them end first"


def _base(base: BaseConfig) -> str:
    try:
        folder = base_folder.resolve(base)
    except WeftError as error:
        return str(error).replace("\n", ";")
    return f"{folder.name}: {folder.origin}, {folder.family}, D = {folder.width}, hash {folder.hash[:12]}"


def _choices(base: BaseConfig, device: "torch.device", dtype: str) -> list[tuple[str, str]]:
    """What is fastest for the base model, with its prompts where they stand by default."""
    import torch

    from weft.models import probe_attention, probe_products

    try:
        folder = base_folder.resolve(base)
    except WeftError:
        return [("attention", "needs a base model"), ("products", "needs a base model")]
    kind, suffix = getattr(torch, dtype), folder.family == "causal"
    attention = probe_attention(folder.reader, device, kind, suffix=suffix)
    products = probe_products(folder.width, folder.bytes, device, kind)
    return [("attention", attention.describe()), ("products", products.describe())]


def check(path: Path) -> dict[str, list[str]]:
    """Faults of a run folder, or of every run in a folder of runs: name -> faults, none where it is whole.

    Raises:
        ArtifactError: if the folder holds no run.
    """
    if (path / "config.yaml").exists():
        return {str(path): check_run(path)}
    folders = [one for one in sorted(path.glob("*")) if any((one / mark).exists() for mark in MARKS)]
    if not folders:
        raise ArtifactError("this is not the folder of a run (no config.yaml), nor of runs", where=str(path))
    return {one.name: check_run(one) for one in folders}


def check_run(path: Path) -> list[str]:
    """Faults of a run folder with their remedies; empty when it is whole."""
    run = Run(path)
    if not run.done:
        return ["not finished: run the same command again to finish it"]
    faults: list[str] = []
    try:
        changed = storage.verify(path)
        faults += [f"{name} is missing or changed: delete the folder and run again" for name in changed]
        faults += [f"{name} is not a file of the run: delete it" for name in _foreign(path)]
        if not changed:
            _check_content(run)
    except WeftError as error:
        faults.append(_line(error))
    except OSError as error:
        faults.append(f"cannot be read ({error}): see to the disk and the permissions")
    return faults


def _foreign(path: Path) -> list[str]:
    """Names in a run folder that its manifest does not have."""
    own = {*storage.names(path), storage.MANIFEST, *LOCK}
    strange = (one.name for one in path.iterdir() if one.name not in own)
    return sorted(name for name in strange if not name.startswith(PASSING))


def _check_content(run: Run) -> None:
    """Read all that a finished run holds, and compare its base model where that lies in a folder here.

    Raises:
        WeftError: for the first fault.
    """
    config = run.config()
    run.result()
    run.seconds()
    for name in ("metrics.jsonl", "predictions.jsonl"):
        run.lines(name)
    run.saved()
    keeps = config.made_by is not None and config.made_by.keeps != "none"
    if keeps and Path(config.base.model).is_dir():
        from weft.runs.parents import check_fit  # loads torch, which the rest can do without
        from weft.runs.workspace import Workspace

        check_fit(run, None, Workspace(run.path.parent))


def _line(error: WeftError) -> str:
    """An error in one line."""
    code = f"{error.code}: " if error.code else ""
    return f"{code}{error.cause}{f': {error.fix}' if error.fix else ''}"
