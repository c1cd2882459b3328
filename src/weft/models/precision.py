"""Which number format a machine multiplies fastest, by measurement."""

import time
from dataclasses import dataclass

import torch

from weft.models.measuring import one_thread, seconds

SIZE = 512
SECONDS = 0.5


@dataclass(frozen=True)
class Precision:
    """The choice, and the rates it rests on, in GFLOP/s of a 512-square matrix product."""

    dtype: str
    rates: dict[str, float]

    def describe(self) -> str:
        """One line for people."""
        rates = ", ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in self.rates.items())
        return f"{self.dtype} (measured: {rates})"


def probe(device: torch.device) -> Precision:
    """Time one matrix product per format, for at most about half a second each."""
    rates = {name: _rate(getattr(torch, name), device) for name in ("float32", "bfloat16")}
    return Precision(max(rates, key=lambda name: rates[name]), rates)


def _rate(dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP/s, the best of several products after one that warms up.

    On a processor, that of one thread's own time, times the threads: neighbours at work do not change it.
    """
    x = torch.ones(SIZE, SIZE, device=device).to(dtype)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    best, stop = float("inf"), time.perf_counter() + SECONDS
    with one_thread(device):
        for _ in range(50):
            best = min(best, seconds(lambda: x @ x, device))
            if time.perf_counter() > stop:
                break
    return 2 * SIZE**3 / best / 1e9 * threads
