"""The processes of one training, and the few things that they say to each other.

    led(work)      rank 0 does it, and tells all what came out
    every(work)    all do it; where one fails, all fail
    agree(value)   rank 0's value, for all
    sum_(tensors)  the sum over all, in place

All processes must come to the same calls in the same order. A process alone is a group of one, which says
nothing to anybody, so that nobody has to ask how many there are.
"""

import pickle
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from weft.errors import ConfigError, WeftError
from weft.parallel.watch import Watch

T = TypeVar("T")
PAUSE, LONGEST_PAUSE = 1e-5, 2e-3  # seconds between two looks at what is under way


@dataclass(eq=False)
class Group:
    """The processes that work on one training.

    Args:
        rank: which of them this one is.
        size: how many there are.
        device: where what is summed must lie: that of the backend.
        watch: sees whether the others live; none in a group of one.
        machine: how many of them work on this machine.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    watch: Watch | None = None
    machine: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process keeps what the group makes."""
        return self.rank == 0

    def led(self, work: Callable[[], T]) -> T:
        """What rank 0 makes of some work: its value, or the fault that it raises, on all ranks.

        While it works it is a group of one.

        Args:
            work: gives what can be pickled.

        Raises:
            WeftError: what the work raised.
        """
        if self.size == 1:
            return work()
        found: T = self._outcome(self._alone(work) if self.leads else None, 0)
        return found

    def every(self, work: Callable[[], T]) -> T:
        """What each process makes of some work of its own; where it fails in one, it fails in all.

        Raises:
            WeftError: of the first rank whose work raised one.
        """
        if self.size == 1:
            return work()
        value, fault = _attempt(work)
        first = self._first(fault is not None)
        if first is not None:
            self._outcome((None, fault), first)
        return value  # type: ignore[return-value]  # without a fault there is a value

    def agree(self, value: T) -> T:
        """Rank 0's value; it must be one that can be pickled."""
        return value if self.size == 1 else self._outcome((value, None), 0)

    def check_same(self, what: str, value: object) -> None:
        """Refuse a training whose processes do not start from the same.

        Raises:
            ConfigError: naming the first process that has another.
        """

        def check() -> None:
            if value != first:
                raise ConfigError(
                    f"process {self.rank} on {socket.gethostname()} has other {what} than process 0",
                    fix="give all processes the same command, files, data and versions",
                    code="X04",
                )

        first = self.agree(value)
        self.every(check)

    def most(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return number
        found = torch.tensor([number])
        self._wait(dist.all_reduce(found, dist.ReduceOp.MAX, async_op=True))
        return int(found)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all ranks, in place, as one flat tensor of at least float32."""
        if self.size == 1:
            return
        flat = torch.cat([_wide(one.detach()).flatten().to(self.device) for one in tensors])
        self._wait(dist.all_reduce(flat, async_op=True))
        sizes = [one.numel() for one in tensors]
        with torch.no_grad():
            for one, summed in zip(tensors, torch.split(flat, sizes), strict=True):
                one.copy_(summed.view_as(one))

    def copy_(self, tensors: Sequence[Tensor]) -> None:
        """Make each tensor rank 0's, in place."""
        if self.size > 1:
            with torch.no_grad():
                for one in tensors:
                    value = one.detach().to(self.device).contiguous()
                    self._wait(dist.broadcast(value, 0, async_op=True))
                    one.copy_(value)

    @contextmanager
    def _of_one(self) -> Iterator[None]:
        size, self.size = self.size, 1
        try:
            yield
        finally:
            self.size = size

    def _alone(self, work: Callable[[], T]) -> tuple[T | None, WeftError | None]:
        with self._of_one():
            return _attempt(work)

    def _first(self, mine: bool) -> int | None:
        """The first rank that says yes."""
        found = self.size - self.most(self.size - self.rank if mine else 0)
        return found if found < self.size else None

    def _outcome(self, outcome: Any, rank: int) -> Any:
        """A rank's value, or the fault that it raised, for all."""
        value, fault = pickle.loads(self._told(pickle.dumps(outcome) if rank == self.rank else b"", rank))
        if fault is not None:
            fault.shared = True
            raise fault
        return outcome[0] if rank == self.rank else value

    def _told(self, data: bytes, rank: int) -> bytes:
        """A rank's bytes, for all."""
        size = torch.tensor([len(data)])
        self._wait(dist.broadcast(size, rank, async_op=True))
        held = torch.empty(int(size), dtype=torch.uint8)
        if rank == self.rank:
            held = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self._wait(dist.broadcast(held, rank, async_op=True))
        return held.numpy().tobytes()

    def _wait(self, work: dist.Work | None) -> None:
        """Until a collective is done.

        Raises:
            ResourceError: naming the process that is lost, if one is.
        """
        assert work is not None
        assert self.watch is not None
        pause = PAUSE
        while not work.is_completed():
            self.watch.check()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        try:
            work.wait()
        except RuntimeError as error:
            raise self.watch.lost_one(error) from None


ALONE = Group()


def _attempt(work: Callable[[], T]) -> tuple[T | None, WeftError | None]:
    """What some work gives, or the fault that it raises."""
    try:
        return work(), None
    except WeftError as fault:
        return None, fault


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
