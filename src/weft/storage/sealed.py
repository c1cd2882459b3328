"""Sealed folders: complete when `manifest.json`, written last, lists every file in it with its size and
SHA-256, and the files agree.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from weft.errors import ArtifactError, ResourceError
from weft.storage.durable import write_json
from weft.storage.hashing import sha256_bytes, sha256_file, strict_json

MANIFEST = "manifest.json"
LARGEST_FILE, LARGEST_MANIFEST = 1 << 30, 1 << 20  # bytes
RESTORE = "restore the folder from a copy, or delete it and run the same command again"
Entries = dict[str, dict[str, Any]]  # name -> `bytes`, `sha256`
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # no name of a file is a path


def seal(folder: Path, names: list[str]) -> None:
    """Declare a folder complete: write the manifest of the named files, last of all."""
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
        for name in names
    }
    write_json(folder / MANIFEST, {"files": files})


def is_sealed(folder: Path) -> bool:
    """Whether a folder was finished. Says nothing of its files; see `verify`."""
    return (folder / MANIFEST).is_file()


def read_verified(folder: Path, name: str, limit: int = LARGEST_FILE) -> bytes:
    """Read a file of a sealed folder once, and return exactly the bytes that were checked.

    Raises:
        ArtifactError: if the folder is not complete, the bytes are not those that were sealed, they are
            more than `limit`, or the name leads elsewhere.
    """
    files = entries(folder)
    if name not in files:
        raise ArtifactError(f"{name!r} is not part of this folder", where=str(folder / MANIFEST), fix=RESTORE)
    size = files[name]["bytes"]
    if size > limit:
        raise ArtifactError(
            f"the manifest says {size:,} bytes, and such a file has at most {limit:,}",
            where=str(folder / name),
            fix=RESTORE,
            code="A03",
        )
    try:
        data = read_plain(folder / name, size)
    except FileNotFoundError:
        data = None
    if data is None or len(data) != size or sha256_bytes(data) != files[name]["sha256"]:
        raise ArtifactError(
            "the file is not the one that was written: its SHA-256 differs from the manifest's",
            where=str(folder / name),
            fix=RESTORE,
            code="A01",
        )
    return data


def read_plain(path: Path, size: int) -> bytes:
    """The first `size` + 1 bytes of an ordinary file, neither through a link nor from a pipe.

    Raises:
        FileNotFoundError: if it is missing.
        ArtifactError: if it is no ordinary file.
        ResourceError: if the disk or the permissions refuse.
    """
    with open_plain(path) as file:
        return file.read(min(size, os.fstat(file.fileno()).st_size) + 1)


def check_plain(path: Path) -> None:
    """Refuse what is no ordinary file, without opening it.

    A process that closes a file drops all locks that it has on it (POSIX), those of SQLite among them.

    Raises:
        FileNotFoundError: if there is nothing.
        ArtifactError: if it is a link, a pipe or a folder.
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise _not_plain(path)


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """An ordinary file, neither through a link nor from a pipe, to read; errors are those of `read_plain`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # opening a pipe must not wait
        with os.fdopen(handle, "rb") as file:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                yield file
                return
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise ResourceError(
                f"cannot read: {error.strerror}",
                where=str(path),
                fix="see to the disk and the file's permissions, and run the same command again",
                code="R09",
            ) from None
    raise _not_plain(path)


def _not_plain(path: Path) -> ArtifactError:
    return ArtifactError(
        "this is a link, a pipe or a folder, and must be an ordinary file",
        where=str(path),
        fix="put the file itself there, or delete the folder and run again",
        code="A13",
    )


def entries(folder: Path) -> Entries:
    """Name -> size and hash of a sealed folder's files.

    Raises:
        ArtifactError: if the manifest is missing or is none.
    """
    path = folder / MANIFEST
    try:
        return entries_in(read_plain(path, LARGEST_MANIFEST), path)
    except FileNotFoundError:
        raise ArtifactError("the file is missing", where=str(path), fix=RESTORE) from None


def entries_in(data: bytes, path: Path) -> Entries:
    """The same of the bytes of a manifest.

    Raises:
        ArtifactError: if they are none.
    """
    try:
        content = strict_json(data)
    except ValueError as error:
        raise _no_manifest(path, f" ({error})") from None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(is_entry(name, row) for name, row in files.items()):
        raise _no_manifest(path)
    return files


def _no_manifest(path: Path, why: str = "") -> ArtifactError:
    return ArtifactError(f"this is not a manifest{why}", where=str(path), fix=RESTORE, code="A01")


def is_entry(name: str, row: Any) -> bool:
    """Whether a manifest's line names a file of the folder itself, with a size and a hash."""
    return (
        isinstance(row, dict)
        and row.keys() == {"bytes", "sha256"}
        and FILE_NAME.fullmatch(name) is not None
        and type(row["bytes"]) is int
        and row["bytes"] >= 0
        and isinstance(row["sha256"], str)
        and re.fullmatch("[0-9a-f]{64}", row["sha256"]) is not None
    )


def names(folder: Path) -> list[str]:
    """The files of a sealed folder.

    Raises:
        ArtifactError: if the manifest is missing or is none.
    """
    return list(entries(folder))


def verify(folder: Path) -> list[str]:
    """Names of the files of a sealed folder that are missing or changed; empty when all is well."""
    bad = []
    for name, row in entries(folder).items():
        try:
            read_verified(folder, name, row["bytes"])  # whatever its size: a run's own files are hashed whole
        except ArtifactError:
            bad.append(name)
    return bad
