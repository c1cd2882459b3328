"""Durable files: the only module that writes what must not be lost.

A file is written under a temporary name in its own folder, flushed to the disk, renamed, and the
folder is flushed too. A folder is complete when `manifest.json`, written last, lists every file in it
with its size and SHA-256, and the files agree.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from weft.errors import ArtifactError, ResourceError

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
READ_CHUNK = 1 << 20
LARGEST_FILE, LARGEST_MANIFEST = 1 << 30, 1 << 20  # bytes
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # no name of a file is a path


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """One spelling of a JSON value, for hashing: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return sha256_bytes(canonical_json(value))


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that it is either the old one or the whole new one, whatever happens.

    Args:
        path: the file.
        data: what it shall hold.
        sync: bring it to the disk; without, a crash of the machine may lose or tear it.

    Raises:
        ResourceError: if the disk is full, or the place cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        os.makedirs(path.parent, exist_ok=True)
        _write_through(temporary, data, os.O_CREAT | os.O_EXCL, sync=sync)
        os.replace(temporary, path)
        if sync:
            _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise _resource_error(error, path, len(data)) from error


def _write_through(path: Path, data: bytes, flags: int, *, sync: bool = True) -> None:
    """Write all of the data, however little the system takes at a time."""
    handle = os.open(path, os.O_WRONLY | flags, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _disk(path: Path, size: int = 0) -> Iterator[None]:
    """Say of a fault of the disk which file it met, and how much was to be written."""
    try:
        yield
    except OSError as error:
        raise _resource_error(error, path, size) from error


def _resource_error(error: OSError, path: Path, size: int) -> ResourceError:
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
    with _disk(path, len(data)):
        _write_through(path, data, os.O_CREAT | os.O_APPEND, sync=False)


def flush_log(path: Path) -> int:
    """Bring a log's lines to the disk, and return its length in bytes.

    Raises:
        ResourceError: if the disk refuses.
    """
    with _disk(path):
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
    with _disk(path):
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
    with _disk(path), contextlib.suppress(FileNotFoundError):
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
    files = _manifest(folder)
    if name not in files:
        raise ArtifactError(f"{name!r} is not part of this folder", where=str(folder / MANIFEST))
    size = files[name]["bytes"]
    if size > limit:
        raise ArtifactError(
            f"the manifest says {size:,} bytes, and such a file has at most {limit:,}",
            where=str(folder / name),
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
            fix="restore the folder from a copy, or delete it and run the same command again",
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
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # opening a pipe must not wait
        with os.fdopen(handle, "rb") as file:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return file.read(min(size, os.fstat(handle).st_size) + 1)
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
    raise ArtifactError(
        "this is a link, a pipe or a folder, and must be an ordinary file",
        where=str(path),
        fix="put the file itself there, or delete the folder and run again",
        code="A13",
    )


def strict_json(data: bytes) -> Any:
    """A JSON value, read so that every reader sees the same: no key twice, no NaN or infinity.

    Raises:
        ValueError: if it is not such a value.
    """
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_no_twins, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text} is too large")
    return value


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> size and hash of a sealed folder's files.

    Raises:
        ArtifactError: if the manifest is missing or is none.
    """
    path = folder / MANIFEST
    try:
        content = strict_json(read_plain(path, LARGEST_MANIFEST))
    except FileNotFoundError:
        raise ArtifactError("the file is missing", where=str(path)) from None
    except ValueError as error:
        raise ArtifactError(f"this is not a manifest ({error})", where=str(path), code="A01") from None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(_is_entry(name, row) for name, row in files.items()):
        raise ArtifactError("this is not a manifest", where=str(path), code="A01")
    return files


def _is_entry(name: str, row: Any) -> bool:
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
    return list(_manifest(folder))


def verify(folder: Path) -> list[str]:
    """Names of the files of a sealed folder that are missing or changed; empty when all is well."""
    bad = []
    for name, row in _manifest(folder).items():
        try:
            read_verified(folder, name, row["bytes"])  # whatever its size: a run's own files are hashed whole
        except ArtifactError:
            bad.append(name)
    return bad


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left behind."""
    for path in folder.glob(f"{TEMPORARY}*"):
        remove(path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; the system releases it when this process ends.

    Raises:
        ResourceError: at once, if another process holds it; the message says who.
    """
    owner = folder / "lock.owner"
    lock = FileLock(folder / "lock", timeout=0, fallback_to_soft=False)
    try:
        os.makedirs(folder, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if not isinstance(error, Timeout):
            raise _resource_error(error, folder, 0) from error
        who = owner.read_text("utf-8").strip() if owner.is_file() else "another process"
        raise ResourceError(
            f"the folder is in use by {who}",
            where=str(folder),
            fix="wait for it to finish, or stop it",
            code="R12",
        ) from None
    try:
        _sign(owner)
        yield
    finally:
        lock.release()


def _sign(owner: Path) -> None:
    """Say who holds a folder, for the message that another process shows."""
    data = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
    with _disk(owner, len(data)):
        _write_through(owner, data, os.O_CREAT | os.O_TRUNC, sync=False)
