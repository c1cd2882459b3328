"""How a process joins those that torchrun or `accelerate launch` started with it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from weft.errors import ResourceError, Stopped, WeftError
from weft.parallel.group import Group
from weft.parallel.launched import started_together
from weft.parallel.watch import BEAT, SOON, Watch

START = timedelta(minutes=5)  # for all processes to come
ANSWER = timedelta(seconds=10)  # for the store to say something
ANY_TIME = timedelta(days=30)  # a process that lives is waited for; `Watch` sees whether it does


@contextmanager
def joined() -> Iterator[Group]:
    """The group of the processes that were started with this one; a group of one, where it is alone.

    Raises:
        ConfigError: as `started_together`.
        ResourceError: if not all of them come.
    """
    if started_together() == 1:
        yield Group()
        return
    group, holds_store = _join()
    watch = group.watch
    assert watch is not None
    cause: str | None = "it was ended"
    try:
        yield group
        cause = None
    except RuntimeError as error:  # as of a library's own collective
        lost = watch.lost_soon(SOON + 2 * BEAT)
        cause = _cause(lost or error)
        raise (lost or error) from None
    except BaseException as error:
        cause = _cause(error)
        raise
    finally:
        watch.leave(cause)
        if holds_store:
            watch.wait_for_others(2 * BEAT if cause else SOON)
        if cause is None:
            dist.destroy_process_group()


def _join() -> tuple[Group, bool]:
    """The group, and whether this process holds the store that all share."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = _device()
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, rank, size = next(rendezvous("env://", timeout=START))
        hosts = _hosts(store, rank, size)
        own, _, _ = next(rendezvous("env://", timeout=ANSWER))
        agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        keeper = f"the launcher at {place}" if agents else f"process 0 of {size}, on {hosts[0]},"
        watch = Watch(PrefixStore(_attempt(), own), rank, hosts, keeper)
        watch.start()
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        group = PrefixStore(f"{_attempt()}/group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=ANY_TIME)
    except (RuntimeError, ValueError) as error:
        raise ResourceError(
            f"the {size} processes of this training did not find each other "
            f"({' '.join(str(error).split())[:200]})",
            where=f"process {rank}, which looked at {place}",
            fix="start them within five minutes of each other, where each can reach that address",
            code="X01",
        ) from None
    beside = hosts.count(hosts[rank])
    return Group(rank, size, device, watch, beside), not agents and rank == 0


def _hosts(store: Store, rank: int, size: int) -> list[str]:
    """Where each process works, once all have come."""
    store.set(f"{_attempt()}/host/{rank}", socket.gethostname())
    return [store.get(f"{_attempt()}/host/{one}").decode() for one in range(size)]


def _attempt() -> str:
    """Names this start of the processes: a launcher that starts them again keeps its store."""
    return f"weft/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _device() -> torch.device:
    """The accelerator of this process, or the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", os.environ["RANK"])) % torch.cuda.device_count()
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _cause(error: BaseException) -> str:
    """Why this process ends, in a line for the others."""
    if isinstance(error, WeftError):
        return error.cause
    if isinstance(error, Stopped):
        return f"it was stopped by signal {error.exit_code - 128}"
    line = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {line}"
