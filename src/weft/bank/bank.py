"""A bank: a folder with any number of tasks of one base model. Loads without torch."""

import contextlib
from pathlib import Path

from weft import storage
from weft.bank import index_writer
from weft.bank import manifest as manifests
from weft.bank.forms import Dtype
from weft.bank.lines import State
from weft.bank.manifest import BaseFacts, Manifest
from weft.bank.snapshot import Snapshot
from weft.errors import ArtifactError, ResourceError

TRIES = 20  # to open a generation, while compactions take its files away


class Bank:
    """A bank, opened in time and memory that do not depend on what is not used.

    Args:
        path: its folder.

    Raises:
        ArtifactError: if there is no bank, or its manifest or index is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._newest = self._opened()

    @property
    def generation(self) -> int:
        """The newest generation there is now."""
        return self.snapshot().generation

    def snapshot(self) -> Snapshot:
        """The newest generation; it stays readable until it is closed, whatever writers do."""
        newest, held = self._newest.index.newest(), self._newest
        if newest != held.index.state or manifests.read(self.path) != held.manifest:
            self._newest = self._opened()
        return self._newest

    def _opened(self) -> Snapshot:
        for _ in range(TRIES):
            manifest = manifests.read(self.path)
            try:
                found: Snapshot | ArtifactError = Snapshot(self.path, manifest)
            except ArtifactError as error:
                found = error
            if isinstance(found, Snapshot) and found.is_complete:
                return found
            if manifests.read(self.path) == manifest:  # no other generation took its place meanwhile
                if isinstance(found, ArtifactError):
                    raise found
                return found  # what is lost is refused task by task
        raise ResourceError("the bank changes too fast to be opened", where=str(self.path), fix="try again")


def create(path: str | Path, base: BaseFacts, *, dtype: Dtype = "float32") -> Bank:
    """A new bank without tasks.

    Args:
        path: its folder, which is made.
        base: the base model of all tasks.
        dtype: of prompts and factors; bfloat16 halves them, and answers are then near to the runs' own.

    Raises:
        ResourceError: if something else is there, or the disk refuses.
    """
    folder = Path(path)
    _check_empty(folder)
    with storage.locked(folder):
        if not (folder / manifests.NAME).exists():
            manifest = Manifest(base=base, dtype=dtype)
            index_writer.create(folder / manifest.index, State(manifest.bank, 0, 0, 0, {}))
            manifests.write(folder, manifest)
    return Bank(folder)


def _check_empty(folder: Path) -> None:
    """Refuse a folder with anything but what an interrupted attempt left."""
    ours = ("lock", "index-", storage.TEMPORARY)
    with contextlib.suppress(FileNotFoundError):
        if others := [one.name for one in folder.iterdir() if not one.name.startswith(ours)]:
            cause = f"the folder holds {others[0]!r} already"
            raise ResourceError(cause, where=str(folder), fix="name a folder that is not there", code="C23")
