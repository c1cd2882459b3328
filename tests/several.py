"""Several processes at one training, on this machine and by gloo, for tests."""

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from weft.parallel.group import Group
from weft.parallel.joining import joined

SECONDS = 100.0
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What a launcher tells a process."""
    values = (rank, size, rank, size, "127.0.0.1", port)
    return {name: str(value) for name, value in zip(NAMES, values, strict=True)}


@cache
def _forks() -> ForkServerContext:
    """Gives processes that are forks of one which has imported all this already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["several", "test_parallel"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


def start(
    size: int, work: Callable[..., Any], *given: Any
) -> list[tuple[BaseProcess, "Connection[Any, Any]"]]:
    """Processes that are at `work(group, *given)`, which must be a module's function, and what they say."""
    context = _forks()
    port, found = free_port(), []
    for rank in range(size):
        ours, theirs = context.Pipe()
        child = context.Process(target=_live, args=(theirs, environment(rank, size, port), work, given))
        child.start()
        theirs.close()
        found.append((child, ours))
    return found


def outcomes(started: list[tuple[BaseProcess, "Connection[Any, Any]"]]) -> list[Any]:
    """What each came to: a value, the error that it raised, or none where it was killed."""
    found = []
    for child, pipe in started:
        try:
            assert pipe.poll(SECONDS), "a process did not end"
            found.append(pickle.loads(pipe.recv_bytes()))
        except EOFError:
            found.append(None)
        child.join(SECONDS)
        if child.is_alive():
            child.kill()
    return found


def together(size: int, work: Callable[..., Any], *given: Any) -> list[Any]:
    """What `work(group, *given)` gives in each of so many processes."""
    found = outcomes(start(size, work, *given))
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


def _live(
    pipe: "Connection[Any, Any]", told: dict[str, str], work: Callable[..., Any], given: tuple[Any, ...]
) -> None:
    """The life of a process."""
    os.environ.update(told)
    torch.set_num_threads(1)
    try:
        with joined() as group:
            found: Any = work(group, *given)
    except BaseException as error:
        traceback.print_exc()
        found = error
    pipe.send_bytes(pickle.dumps(found))  # whole: torch would lend the memory of a process that ends
    pipe.close()
    os._exit(0)


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """The same work in this process."""
    return work(Group(), *given)
