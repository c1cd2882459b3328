"""A sealed folder that gets its place whole or not at all, wherever its bytes come from."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from weft.errors import ArtifactError
from weft.storage.durable import disk_faults, sync_folder
from weft.storage.hashing import READ_CHUNK
from weft.storage.locks import locked
from weft.storage.sealed import Entries, entries, is_sealed, verify

PLACE = ".unpack"  # of the folder that a folder is put into: what is not whole yet


def checked(file: BinaryIO, row: dict[str, object], where: str, fix: str) -> Iterator[bytes]:
    """The next bytes of an open file, as many as are said, with the hash that is said.

    Raises:
        ArtifactError: after the last of them, if they are others.
    """
    digest, rest = hashlib.sha256(), int(str(row["bytes"]))
    while rest and (part := file.read(min(READ_CHUNK, rest))):
        digest.update(part)
        rest -= len(part)
        yield part
    if rest or digest.hexdigest() != row["sha256"]:
        cause = "the bytes are not those that were sealed: their SHA-256 differs"
        raise ArtifactError(cause, where=where, fix=fix, code="A01")


def placed(root: Path, name: str, files: Entries, fill: Callable[[Path], None]) -> Path:
    """Put a sealed folder in its place, whole or not at all; one that is there already is left as it is.

    Args:
        root: the folder that it goes into.
        name: of the folder.
        files: what it will hold.
        fill: makes it elsewhere, with its manifest, and raises what is wrong with it.

    Raises:
        ArtifactError: if another folder of that name is there.
        ResourceError: if the disk refuses, or another process puts something there.
    """
    target = root / name
    if os.path.lexists(target):
        _check_there(target, files)
        return target
    with _workshop(root) as place:
        fill(place / name)
        with disk_faults(target):
            os.rename(place / name, target)
            sync_folder(root)
    return target


@contextmanager
def _workshop(root: Path) -> Iterator[Path]:
    """An empty folder in the folder of runs, held against other processes, of which nothing stays."""
    there, place = root.exists(), root / PLACE
    try:
        with locked(place):
            for left in place.glob("*/"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
    finally:
        if not there:
            with suppress(OSError):  # it holds what was put there
                os.rmdir(root)


def _check_there(target: Path, files: Entries) -> None:
    """Refuse a place that holds something else than what is to be put there."""
    if not is_sealed(target) or entries(target) != files or verify(target):
        raise ArtifactError(
            "the folder is there already, and is not what would be put there",
            where=str(target),
            fix="move it away, or choose another folder with --runs",
            code="C23",
        )
