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
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from weft.errors import ArtifactError, ResourceError

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
READ_CHUNK = 1 << 20


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


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one, whatever happens.

    Raises:
        ResourceError: if the disk is full, or the place cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_through(temporary, data)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _resource_error(error, path, len(data)) from error


def _write_through(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise _resource_error(error, path, len(line) + 1) from error


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


def read_verified(folder: Path, name: str) -> bytes:
    """Read a file of a sealed folder once, and return exactly the bytes that were checked.

    Raises:
        ArtifactError: if the folder is not complete, or the bytes are not those that were sealed.
    """
    files = _manifest(folder)
    if name not in files:
        raise ArtifactError(f"{name!r} is not part of this folder", where=str(folder / MANIFEST))
    data = (folder / name).read_bytes() if (folder / name).is_file() else None
    if data is None or len(data) != files[name]["bytes"] or sha256_bytes(data) != files[name]["sha256"]:
        raise ArtifactError(
            "the file is not the one that was written: its SHA-256 differs from the manifest's",
            where=str(folder / name),
            fix="restore the folder from a copy, or delete it and run the same command again",
            code="A01",
        )
    return data


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> size and hash of a sealed folder's files.

    Raises:
        ArtifactError: if the manifest is missing or is none.
    """
    content = read_json(folder / MANIFEST)
    files = content.get("files") if isinstance(content, dict) else None
    rows = list(files.values()) if isinstance(files, dict) else [None]
    if not isinstance(files, dict) or not all(
        isinstance(row, dict) and {"bytes", "sha256"} <= set(row) for row in rows
    ):
        raise ArtifactError("this is not a manifest", where=str(folder / MANIFEST), code="A01")
    return files


def verify(folder: Path) -> list[str]:
    """Names of the files of a sealed folder that are missing or changed; empty when all is well."""
    bad = []
    for name in _manifest(folder):
        try:
            read_verified(folder, name)
        except ArtifactError:
            bad.append(name)
    return bad


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left behind."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; the system releases it when this process ends.

    Raises:
        ResourceError: at once, if another process holds it; the message says who.
    """
    owner = folder / "lock.owner"
    lock = FileLock(folder / "lock", timeout=0, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
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
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    except OSError as error:
        raise _resource_error(error, owner, 40) from error
