"""Durable files: the only module that writes what must not be lost.

A file is written under a temporary name in its own folder, flushed to the disk, renamed, and the
folder is flushed too. A file whose name carries the SHA-256 of its bytes proves itself.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from weft.errors import ArtifactError, ResourceError
from weft.storage.hashing import sha256_bytes, sha256_file

TEMPORARY = ".tmp-"


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that it is either the old one or the whole new one, whatever happens.

    Args:
        path: the file.
        data: what it shall hold.
        sync: bring it to the disk; without, a crash of the machine may lose or tear it.

    Raises:
        ResourceError: if the disk is full, or the place cannot be written.
    """
    write_parts(path, [data], len(data), sync=sync)


def write_parts(path: Path, parts: Iterable[bytes], size: int, *, sync: bool = True) -> None:
    """As `write_bytes`, of bytes that come in parts; an error in making them leaves the old file.

    Args:
        path: the file.
        parts: what it shall hold, in order.
        size: how many bytes that is, for messages.
        sync: as in `write_bytes`.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        os.makedirs(path.parent, exist_ok=True)
        write_through(temporary, parts, os.O_CREAT | os.O_EXCL, sync=sync)
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise resource_error(error, path, size) from error
        raise


def write_through(path: Path, parts: Iterable[bytes], flags: int, *, sync: bool = True) -> None:
    """Write all of the data, however little the system takes at a time."""
    handle = os.open(path, os.O_WRONLY | flags, 0o666)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(handle, rest) :]
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_faults(path: Path, size: int = 0) -> Iterator[None]:
    """Say of a fault of the disk which file it met, and how much was to be written."""
    try:
        yield
    except OSError as error:
        raise resource_error(error, path, size) from error


def resource_error(error: OSError, path: Path, size: int) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
        return ResourceError(
            f"no space for {size:,} bytes, {free:,} are free",
            where=str(path),
            fix="free some space and run the same command again; nothing finished is lost",
            code="R06",
        )
    return ResourceError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        fix="make the folder writable, or choose another with --runs, and run the same command again",
        code="R08",
    )


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, durably."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, durably, in a form that people can read."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Add one line to a log. The log is read up to a recorded length, so a torn last line does no harm."""
    data = f"{line}\n".encode()
    with disk_faults(path, len(data)):
        write_through(path, [data], os.O_CREAT | os.O_APPEND, sync=False)


def append_bytes(path: Path, data: bytes, length: int) -> None:
    """Add bytes behind a recorded length; what a killed process left behind that is cut off. See `flush_log`.

    Args:
        path: an ordinary file; it may be missing where the length is 0.
        data: the bytes.
        length: where they go, in bytes.

    Raises:
        ArtifactError: if the file is shorter than that.
        ResourceError: if the disk refuses, or it is a link.
    """
    check_log(path, length)
    if path.is_file() and path.stat().st_size > length:
        cut_log(path, length)
    with disk_faults(path, len(data)):
        write_through(path, [data], os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, sync=False)


def flush_log(path: Path) -> int:
    """Bring a log's lines to the disk, and return its length in bytes.

    Raises:
        ResourceError: if the disk refuses.
    """
    with disk_faults(path):
        handle = os.open(path, os.O_WRONLY)
        try:
            os.fsync(handle)
            return os.fstat(handle).st_size
        finally:
            os.close(handle)


def cut_log(path: Path, length: int) -> None:
    """Drop what was written to a log after a recorded length.

    Raises:
        ArtifactError: if the log is shorter than that.
        ResourceError: if the disk refuses.
    """
    check_log(path, length)
    with disk_faults(path):
        os.truncate(path, length)


def check_log(path: Path, length: int) -> None:
    """Refuse a log that is shorter than a recorded length.

    Raises:
        ArtifactError: with both lengths.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size < length:
        raise ArtifactError(f"the log has {size:,} bytes and should have {length:,}", where=str(path))


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        ResourceError: if the disk refuses.
    """
    with disk_faults(path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def write_proven(folder: Path, stem: str, suffix: str, data: bytes, *, sync: bool = True) -> Path:
    """Write a file whose name carries the SHA-256 of its bytes, so that it proves itself before any manifest.

    Args:
        folder: where.
        stem: what the name begins with.
        suffix: what it ends with.
        data: the bytes.
        sync: as in `write_bytes`; a file that a crash tore is found by its name.

    Raises:
        ResourceError: if the disk refuses.
    """
    path = folder / f"{stem}-{sha256_bytes(data)}{suffix}"
    write_bytes(path, data, sync=sync)
    return path


def is_proven(path: Path) -> bool:
    """Whether a file holds the bytes of its name; it is not read into memory.

    Raises:
        OSError: if it cannot be read.
    """
    return path.stem.endswith(f"-{sha256_file(path)}")


def read_proven(path: Path) -> bytes:
    """The bytes of such a file.

    Raises:
        ArtifactError: if they are not those of its name.
    """
    data = path.read_bytes()
    if not path.stem.endswith(f"-{sha256_bytes(data)}"):
        raise ArtifactError("its bytes are not those that were written", where=str(path), code="R10")
    return data


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: if it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError("the file is missing", where=str(path)) from None
    except ValueError as error:
        raise ArtifactError(
            f"the file is not valid JSON ({error})",
            where=str(path),
            fix="delete the run folder and run again",
        ) from None


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left behind."""
    for path in folder.glob(f"{TEMPORARY}*"):
        remove(path)
