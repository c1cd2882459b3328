"""How times, products and counts are taken: rounds in turn, medians with their spread, FLOPs by count."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from weft.models.packed import laid_out

PACKED = torch.ops.mkldnn._linear_pointwise  # of weights that are laid out (weft.models.packed)
PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm, PACKED)
Seconds = dict[str, list[float]]
Call = tuple[Any, tuple[Any, ...]]  # an operator, and the layout of each of its arguments


@dataclass(frozen=True)
class Spread:
    """The median of some samples, and the smallest and largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: list[float]) -> "Spread":
        """Of one sample or more."""
        return cls(statistics.median(samples), min(samples), max(samples))


def interleave(
    arms: Mapping[str, Callable[[int], object]], rounds: int, *, warm: bool = True
) -> tuple[Seconds, dict[str, object]]:
    """Seconds of every arm in every round, and what each gave in the last one.

    Every round runs every arm once, and starts with another one, so that what else the machine does falls
    on all of them alike.

    Args:
        arms: told the number of the round.
        rounds: how many count.
        warm: run a round before those that count.
    """
    seconds: Seconds = {name: [] for name in arms}
    given: dict[str, object] = {}
    names = list(arms)
    for number in range(-1 if warm else 0, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            clock = time.perf_counter()
            given[name] = arms[name](max(number, 0))
            _wait()
            if number >= 0:
                seconds[name].append(time.perf_counter() - clock)
    return seconds, given


def _wait() -> None:
    """Work on an accelerator is done when it says so."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratios(seconds: Seconds, slow: str, fast: str) -> list[float]:
    """How many times longer one arm takes than another, round by round."""
    return [one / two for one, two in zip(seconds[slow], seconds[fast], strict=True)]


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and attentions that some work does."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


class _Products(TorchDispatchMode):
    """Counts the matrix products that run while it is on, by operator and layout."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in PRODUCTS and not kwargs:
            layouts = tuple(_layout(x) for x in args if isinstance(x, torch.Tensor))
            self.calls[(func, layouts)] += 1
        return func(*args, **(kwargs or {}))


def _layout(x: torch.Tensor) -> tuple[Any, ...]:
    """What a product's time depends on; weights that are laid out have no strides."""
    return tuple(x.shape), None if x.is_mkldnn else x.stride(), x.dtype, x.device


@contextmanager
def recorded() -> Iterator[Counter[Call]]:
    """The matrix products of a block, by operator and layout of the arguments."""
    with _Products() as mode:
        yield mode.calls


def product_rate(calls: Counter[Call], repeats: int = 3) -> float:
    """GFLOP/s of some work's matrix products when nothing else is done: the most it could reach.

    Each is run alone with the same shapes, strides and number format, and its best time counts.
    """
    total = busy = 0.0
    for (operator, layouts), times in calls.items():
        run = _Alone(operator, layouts)
        total += times * flops(run)
        busy += times * min(_seconds(run) for _ in range(repeats))
    return total / busy / 1e9


class _Alone:
    """One matrix product on numbers of its own."""

    def __init__(self, operator: Any, layouts: tuple[Any, ...]) -> None:
        self.operator = operator
        self.arguments: list[Any] = [_numbers(*layout) for layout in layouts]
        if operator.overloadpacket is PACKED:
            bias = self.arguments[2] if len(self.arguments) > 2 else None
            self.arguments = [*self.arguments[:2], bias, "none", [], ""]

    def __call__(self) -> Any:
        return self.operator(*self.arguments)


def _numbers(shape: Any, stride: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of a layout; the numbers do not matter."""
    if stride is None:
        return laid_out(torch.full(shape, 0.01, dtype=dtype))
    return torch.empty_strided(shape, stride, dtype=dtype, device=device).fill_(0.01)


def _seconds(work: Callable[[], object]) -> float:
    _wait()
    clock = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - clock
