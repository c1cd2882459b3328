"""Training that goes on where it was stopped: checkpoints in a run's folder.

    checkpoint-00000120-<sha256>.safetensors     trained and best parameters, optimiser state, progress

The name carries the SHA-256 of the bytes, so a checkpoint proves itself. None is ever overwritten and two
are kept, so that one whole state stays whatever happens to the other. They go when the run is finished.
"""

import json
import re
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from weft import storage
from weft.errors import ArtifactError
from weft.parallel.group import ALONE, Group
from weft.runs import Run
from weft.runs.folder import LOG
from weft.stopping import Stop
from weft.training.course import Checkpoint, Progress

NAME = re.compile(r"checkpoint-\d{8}-[0-9a-f]{64}\.safetensors")
KEPT = 2
SHARE = 20  # a save that took a second is followed by twenty of training


@dataclass
class Pace:
    """When runs that share a batch are saved: now and then, and where the process was asked to end.

    Args:
        seconds: least time between two saves.
        stop: whether the process was asked to end.
        group: the processes of this training; where one was asked, all end.
    """

    seconds: float
    stop: Stop
    group: Group = ALONE
    _due: float = field(init=False)

    def __post_init__(self) -> None:
        self._due = time.monotonic() + self.seconds

    def __call__(self, save: Callable[[], None], *, must: bool = False) -> None:
        """After a step: save if it is time to, or must be, or an end was asked for.

        Raises:
            Stopped: after the save, if the process was asked to end.
            ResourceError: if the disk refuses.
        """
        self.stop.asked = self.group.most(self.stop.asked or 0) or None
        start = time.monotonic()
        if self.stop.asked is None and start < self._due and not must:
            return
        save()
        if self.stop.asked is not None:
            self.group.agree(None)  # once it is kept, all end
        after = time.monotonic()
        self._due = after + max(self.seconds, SHARE * (after - start))
        self.stop.check()


@dataclass(frozen=True)
class Keeper:
    """Saves and finds the checkpoints of one run.

    Args:
        run: the open run folder.
        warn: told what was damaged.
    """

    run: Run
    warn: Callable[[str], None]

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then drop all but the newest ones."""
        notes = {
            "run": self.run.id,
            "log": storage.flush_log(self.run.path / LOG),
            "progress": asdict(checkpoint.progress),
        }
        data = save(_pack(checkpoint), metadata={"weft": json.dumps(notes)})
        stem = f"checkpoint-{checkpoint.progress.step:08d}"
        storage.write_proven(self.run.path, stem, ".safetensors", data)
        for path in self._found()[:-KEPT]:
            storage.remove(path)

    def steps(self) -> set[int]:
        """The steps of which there are whole checkpoints; what is damaged is removed with a warning."""
        return {found[0].progress.step for path in self._found() if (found := self._read(path)) is not None}

    def latest(self, among: Collection[int] | None = None) -> Checkpoint | None:
        """The newest whole checkpoint, with the log cut to its step; none if the run starts anew.

        Args:
            among: steps that count, where several runs must go on from the same one; newer ones are removed.
        """
        for path in reversed(self._found()):
            found = self._read(path)
            if found is None:
                continue
            checkpoint, notes = found
            if among is None or checkpoint.progress.step in among:
                storage.cut_log(self.run.path / LOG, notes["log"])
                return checkpoint
            storage.remove(path)
        return None

    def _read(self, path: Path) -> tuple[Checkpoint, dict[str, Any]] | None:
        """A checkpoint and its notes; none, with a warning, if it or its log is damaged."""
        try:
            checkpoint, notes = _read(path, self.run.id)
            storage.check_log(self.run.path / LOG, notes["log"])
        except ArtifactError as error:
            self.warn(f"{path.name[:19]}… is left out: {error.cause}")
            storage.remove(path)
            return None
        return checkpoint, notes

    def _found(self) -> list[Path]:
        """The checkpoints of the folder, oldest step first."""
        return sorted(path for path in self.run.path.glob("checkpoint-*") if NAME.fullmatch(path.name))


def _pack(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """A checkpoint's tensors under one name each."""
    parts = {f"trained/{name}": value for name, value in checkpoint.trained.items()}
    parts |= {f"best/{name}": value for name, value in checkpoint.best.items()}
    for i, entry in checkpoint.optimizer.items():
        parts |= {f"optimizer/{i}/{key}": value for key, value in entry.items()}
    return {name: value.detach().cpu().contiguous() for name, value in parts.items()}


def _read(path: Path, run: str) -> tuple[Checkpoint, dict[str, Any]]:
    """A checkpoint, from the bytes whose SHA-256 is in its name.

    Raises:
        ArtifactError: if the bytes are others, or belong to another run.
    """
    data = storage.read_proven(path)
    try:
        tensors, notes = load(data), _notes(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"it cannot be read ({error})", where=str(path), code="R10") from None
    if notes["run"] != run:
        raise ArtifactError(f"it belongs to the run {notes['run']}", where=str(path), code="R10")
    known = notes["progress"]
    progress = Progress(**{**known, "scores": [(step, score) for step, score in known["scores"]]})
    optimizer: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer/", tensors).items():
        i, _, key = name.partition("/")
        optimizer.setdefault(int(i), {})[key] = value
    return Checkpoint(progress, _under("trained/", tensors), _under("best/", tensors), optimizer), notes


def _notes(data: bytes) -> dict[str, Any]:
    """What a checkpoint says of itself in its header."""
    size = int.from_bytes(data[:8], "little")
    notes: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["weft"])
    return notes


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
