"""Whether the other processes of a training live: each says so every second, in the store that all share.

A collective that waits for a process which is gone would wait for good where the network says nothing, and
where it says something, it names no process.

Whoever waits in weft's own collectives asks here meanwhile. Where this process is at something else, or waits
in a library's, it is ended from here some seconds later: what it wrote stands a kill.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from torch.distributed.distributed_c10d import Store

from weft.errors import ResourceError

BEAT = 1.0  # seconds between two signs of life
SOON = 4.0  # without a sign, of a process whose connection is closed
LATE = 20.0  # without a sign, of any: it was killed, its machine is gone, or the network between
LATEST = 5.0  # more, where nobody asks: then this process ends
ENDED, DONE = "ended: ", "done"


class Watch(threading.Thread):
    """Gives signs of life, and looks for those of the others.

    Args:
        store: of the group, a connection of its own.
        rank: of this process.
        hosts: of every process, by rank.
        keeper: who holds the store.
    """

    def __init__(self, store: Store, rank: int, hosts: Sequence[str], keeper: str) -> None:
        super().__init__(name="weft watch", daemon=True)
        self.rank, self.hosts = rank, list(hosts)
        self._store, self._keeper = store, keeper
        self._over = threading.Event()
        self._lock = threading.Lock()
        now = time.monotonic()
        self._said = [("", now) for _ in hosts]  # what each said last, and when that was new
        self._heard = now  # when the store answered last
        self._store.set(self._key(rank), "0")

    def run(self) -> None:
        """Until the training is over."""
        count = 0
        while not self._over.wait(BEAT):
            count += 1
            with suppress(RuntimeError), self._lock:  # the store's errors; `lost` tells if it stays silent
                if not self._over.is_set():
                    self._store.set(self._key(self.rank), str(count))
                    self._look()
            self._end_in_time()

    def _end_in_time(self) -> None:
        """End this process, if another is lost and nobody here has asked."""
        if not self._over.is_set() and (cause := self._lost(LATE, LATEST)) is not None:
            print(f"error: {_gone(cause)}", file=sys.stderr, flush=True)
            os._exit(ResourceError.exit_code)

    def check(self) -> None:
        """Refuse to wait any longer.

        Raises:
            ResourceError: naming a process that is lost.
        """
        if (cause := self._lost(LATE, waiting=True)) is not None:
            raise _gone(cause)

    def lost_one(self, error: Exception) -> ResourceError:
        """The fault to raise where a collective failed: it names the process that is lost."""
        line = " ".join(str(error).split())[:200]
        return self.lost_soon(LATE, waiting=True) or _gone(f"the processes lost each other ({line})")

    def lost_soon(self, seconds: float, *, waiting: bool = False) -> ResourceError | None:
        """The fault that names a process, if one is found to be lost within so many seconds.

        Args:
            seconds: to look for it.
            waiting: for all others, of which none may be done already.
        """
        until = time.monotonic() + seconds
        while (cause := self._lost(SOON, waiting=waiting)) is None and time.monotonic() < until:
            time.sleep(BEAT / 10)
        return None if cause is None else _gone(cause)

    def leave(self, cause: str | None) -> None:
        """Say that this process ends: of a fault, or as all do."""
        self._over.set()
        with suppress(RuntimeError), self._lock:
            self._store.set(self._key(self.rank), DONE if cause is None else f"{ENDED}{cause}")

    def wait_for_others(self, seconds: float) -> None:
        """Until all have left, for this process holds the store; not for ever."""
        until = time.monotonic() + seconds
        with suppress(RuntimeError):
            while time.monotonic() < until:
                self._look()
                if all(text.startswith((DONE, ENDED)) for text, _ in self._said):
                    return
                time.sleep(BEAT / 10)

    def _look(self) -> None:
        """Read what the others said last."""
        said = self._store.multi_get([self._key(rank) for rank in range(len(self.hosts))])
        now = self._heard = time.monotonic()
        for rank, text in enumerate(one.decode() for one in said):
            if text != self._said[rank][0]:
                self._said[rank] = (text, now)

    def _lost(self, seconds: float, more: float = 0.0, *, waiting: bool = False) -> str | None:
        """Which process is lost, and why: one that said so some time ago, or gave no sign for so long."""
        now = time.monotonic()
        for rank, (text, since) in enumerate(self._said):
            if text.startswith(ENDED) and rank != self.rank and now - since >= more:
                cause = text.removeprefix(ENDED)
                return cause if cause.startswith("process ") else f"{self._process(rank)} ended: {cause}"
        if now - self._heard > seconds + more:
            return f"{self._keeper} gives no sign of life"
        silent = [(since, rank) for rank, (text, since) in enumerate(self._said) if waiting or text != DONE]
        since, rank = min(silent, default=(now, self.rank))
        if rank != self.rank and now - since > seconds + more:
            return f"{self._process(rank)} gives no sign of life"
        return None

    def _process(self, rank: int) -> str:
        return f"process {rank} of {len(self.hosts)}, on {self.hosts[rank]},"

    @staticmethod
    def _key(rank: int) -> str:
        return f"watch/{rank}"


def _gone(cause: str) -> ResourceError:
    return ResourceError(
        cause,
        where="a training of several processes",
        fix="see what ended it, such as memory, and run the same command again: it goes on from the last "
        "checkpoint",
        code="X01",
    )
