"""Folders held against other processes."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from weft.errors import ResourceError
from weft.storage.durable import disk_faults, resource_error, write_through

OWNER = 119  # signs of the line that says who holds a folder


@contextlib.contextmanager
def locked(folder: Path, *, wait: float = 0) -> Iterator[None]:
    """Hold a folder against other processes; the system releases it when this process ends.

    Args:
        folder: the folder; made, if it is not there.
        wait: seconds until the other process is given up; none are waited unless it is said.

    Raises:
        ResourceError: if another process holds it; the message says who.
    """
    owner = folder / "lock.owner"
    lock = FileLock(folder / "lock", timeout=wait, poll_interval=0.005, fallback_to_soft=False)
    try:
        os.makedirs(folder, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if not isinstance(error, Timeout):
            raise resource_error(error, folder, 0) from error
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
    who = f"process {os.getpid()} on {socket.gethostname()}"
    data = f"{who[:OWNER]:{OWNER}}\n".encode()  # of one length: to cut the file first would wait for the disk
    with disk_faults(owner, len(data)):
        write_through(owner, [data], os.O_CREAT, sync=False)
