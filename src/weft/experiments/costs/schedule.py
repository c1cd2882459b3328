"""Orders on workers, in the order in which `spreading` gives them out. Pure."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """An order.

    Attributes:
        seconds: that a worker takes for it.
        needs: numbers of items that must be over before, all of them smaller than its own.
    """

    seconds: float
    needs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """Items on workers.

    Attributes:
        ends: when each is over, in seconds from the start.
        work: seconds of all, with those of workers that start.
        path: items of which each waits for the one before; no number of workers makes them faster.
        path_seconds: of these, with the start of one worker.
        workers: that had something to do.
    """

    ends: tuple[float, ...]
    work: float
    path: tuple[int, ...]
    path_seconds: float
    workers: int

    @property
    def makespan(self) -> float:
        """When all are over."""
        return max(self.ends, default=0.0)


def schedule(items: Sequence[Item], workers: int, start: float = 0.0) -> Schedule:
    """List scheduling: whenever a worker is free, it takes the first item that may begin.

    Args:
        items: in an order in which they can run.
        workers: how many.
        start: seconds that each worker takes before its first item.

    Source:
        Graham 1966: at most 2 - 1/workers times as long as the best schedule.
    """
    waiting = [len(item.needs) for item in items]
    then: list[list[int]] = [[] for _ in items]
    for number, item in enumerate(items):
        for need in item.needs:
            then[need].append(number)
    ready = [number for number, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    ends, now, begun = [0.0] * len(items), 0.0, 0
    free = 0  # of workers that have started
    while ready or running:
        while ready and (free or begun < workers):
            number = heapq.heappop(ready)
            fresh = not free
            begun, free = (begun + 1, 0) if fresh else (begun, free - 1)
            heapq.heappush(running, (now + items[number].seconds + start * fresh, number))
        now, number = heapq.heappop(running)
        ends[number], free = now, free + 1
        for other in then[number]:
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, other)
    path, seconds = _critical(items)
    work = sum(item.seconds for item in items) + start * begun
    return Schedule(tuple(ends), work, path, seconds + start * bool(items), begun)


def _critical(items: Sequence[Item]) -> tuple[tuple[int, ...], float]:
    """The chain of items that takes longest, and its seconds."""
    longest: list[float] = []
    before: list[int | None] = []
    for item in items:
        last = max(item.needs, key=lambda need: longest[need], default=None)
        longest.append(item.seconds + (0.0 if last is None else longest[last]))
        before.append(last)
    if not items:
        return (), 0.0
    path = [max(range(len(items)), key=lambda number: longest[number])]
    while (last := before[path[0]]) is not None:
        path.insert(0, last)
    return tuple(path), longest[path[-1]]
