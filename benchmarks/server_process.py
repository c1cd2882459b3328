"""A server in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ENDS = 60  # seconds for what is admitted, after SIGTERM


def start(module: str, path: Path, *options: str, threads: int = 0) -> tuple[subprocess.Popen[bytes], str]:
    """`python -m MODULE` that serves a bank on a free port, ready; its process and address.

    Args:
        module: with its first words, such as `weft serve`.
        path: the bank.
        options: with PORT where the port shall stand.
        threads: of the model; 0: as the library has it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*module.split(), str(path), *(str(port) if word == "PORT" else word for word in options)]
    own = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **own},
    )
    url = f"http://127.0.0.1:{port}"
    while not _ready(url):
        assert process.poll() is None, "the server did not start"
        time.sleep(0.2)
    return process, url


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """By SIGTERM, as an operator does it."""
    process.send_signal(signal.SIGTERM)
    code = process.wait(ENDS)
    assert code == 0, f"the server ended with {code}"


@contextmanager
def serving(path: Path, *options: str, threads: int = 0) -> Iterator[str]:
    """`weft serve` on a bank, at the address that is given."""
    process, url = start("weft serve", path, "--port", "PORT", *options, threads=threads)
    try:
        yield url
    finally:
        end(process)
