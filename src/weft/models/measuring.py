"""Choosing what a machine runs fastest, by measurement: names and flags do not tell."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat

import torch

SECONDS, ROUNDS = 1.0, 30


@dataclass(frozen=True)
class Choice:
    """The fastest of several ways, and the milliseconds it rests on; none where there was no choice."""

    name: str
    milliseconds: dict[str, float]

    def describe(self) -> str:
        """One line for people."""
        times = ", ".join(f"{name} {number:.2f} ms" for name, number in self.milliseconds.items())
        return f"{self.name} (measured: {times})" if times else self.name


def fastest(ways: Mapping[str, Callable[[], float]]) -> Choice:
    """The way with the best time, the first round not counted; about a second in all.

    Args:
        ways: name -> does the work once and gives its seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    stop = time.perf_counter() + SECONDS
    for _ in repeat(None, ROUNDS):
        for name, way in ways.items():
            times[name].append(way())
        if time.perf_counter() > stop:
            break
    found = {name: 1e3 * min(rounds[1:] or rounds) for name, rounds in times.items()}
    return Choice(min(found, key=lambda name: found[name]), found)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of some work: on a CPU this thread's own time, elsewhere until the device is done."""
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, one thread, whose own time others at work on the machine leave as it is."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
