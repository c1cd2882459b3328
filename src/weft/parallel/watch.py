"""Whether the other processes of a training live: each says so every second, in the store that all share.

A collective that waits for a process which is gone would wait for good where the network says nothing, and
where it says something, it names no process.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from torch.distributed.distributed_c10d import Store

from weft.errors import ResourceError

BEAT = 1.0  # seconds between two signs of life
SOON = 4.0  # without a sign, of a process whose connection is closed
LATE = 20.0  # without a sign, of any: it was killed, its machine is gone, or the network between
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

    def check(self) -> None:
        """Refuse to wait any longer.

        Raises:
            ResourceError: naming a process that is lost.
        """
        if (cause := self._lost(LATE)) is not None:
            raise _gone(cause)

    def lost_one(self, error: Exception) -> ResourceError:
        """The fault to raise where a collective failed: it names the process that is lost."""
        until = time.monotonic() + LATE
        while (cause := self._lost(SOON)) is None and time.monotonic() < until:
            time.sleep(BEAT / 10)
        line = " ".join(str(error).split())[:200]
        return _gone(cause or f"the processes lost each other ({line})")

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

    def _lost(self, seconds: float) -> str | None:
        """Which process is lost, and why, if one gave no sign for so long."""
        for rank, (text, _) in enumerate(self._said):
            if text.startswith(ENDED) and rank != self.rank:
                cause = text.removeprefix(ENDED)
                return cause if cause.startswith("process ") else f"{self._process(rank)} ended: {cause}"
        now = time.monotonic()
        if now - self._heard > seconds:
            return f"{self._keeper} gives no sign of life"
        silent = [(since, rank) for rank, (text, since) in enumerate(self._said) if text != DONE]
        since, rank = min(silent, default=(now, self.rank))
        if rank != self.rank and now - since > seconds:
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
