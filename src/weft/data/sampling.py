"""The batch of each step. No loader and no state: it is a function of (seed, step), so a run
resumed at step n continues as if it had never stopped.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Protocol

import numpy as np

from weft.config.training import SamplingConfig
from weft.data.batch import Batch, Tokens, collate
from weft.data.encoding import EncodedTask, Order, TextReader

T5_CAP = 2**18
WINDOW = 16  # steps whose texts are read at once
POOL = 32  # batches; padding falls little beyond
COUNTED_STEPS = 256  # from which a task's share of the rows is taken


class Batches(Protocol):
    """The batch of any step."""

    def __call__(self, step: int) -> Batch: ...


def pool_size(asked: int | None, backbone: TextReader) -> int:
    """How many batches share their rows by length: as asked; else many, where padding costs compute.

    Where texts are read once and kept, padding costs a part of attention alone.
    """
    return asked if asked is not None else 0 if backbone.keeps_texts else POOL


@dataclass(frozen=True)
class EpochBatches:
    """Rows of one or several tasks pooled, each once per epoch, in an order drawn anew for every epoch.

    Attributes:
        pool: so many successive batches of an epoch share out their rows by length, which saves padding, and
            come in an order drawn by the seed; 0: rows stay as they are drawn.
    """

    tasks: tuple[EncodedTask, ...]
    size: int
    seed: int
    pool: int = 0

    def __call__(self, step: int) -> Batch:
        """The batch of a step; the last batch of an epoch runs on into the next."""
        rows = self._starts[-1]
        places = [divmod(place, rows) for place in range(step * self.size, (step + 1) * self.size)]
        picks = [self._pick(int(self._orders(epoch)[place])) for epoch, place in places]
        return collate([self.tasks[k].rows[i] for k, i in picks], [k for k, _ in picks])

    @cached_property
    def _starts(self) -> list[int]:
        """Where each task begins in the pool, and the pool's size."""
        return [0, *accumulate(len(task) for task in self.tasks)]

    def _pick(self, place: int) -> tuple[int, int]:
        """The task and the row at a place of the pool."""
        task = bisect_right(self._starts, place) - 1
        return task, place - self._starts[task]

    @cached_property
    def _orders(self) -> Callable[[int], Order]:
        """The order of an epoch; a step needs that of one epoch, or of two."""
        return lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> Order:
        draw = np.random.default_rng([self.seed, epoch])
        order = draw.permutation(self._starts[-1])
        if not self.pool:
            return order
        begun = min(-epoch * len(order) % self.size, len(order))  # rows of the batch that runs on from before
        lengths = np.concatenate([task.lengths for task in self.tasks])
        return _by_length(order, lengths, begun, self.size, self.pool, draw)


def _by_length(
    order: Order, lengths: Order, begun: int, size: int, pool: int, draw: np.random.Generator
) -> Order:
    """An epoch's order in which the batches of each pool have shared out their rows by length.

    Batches that two epochs share keep the rows they drew.
    """
    count = (len(order) - begun) // size
    end = begun + count * size
    pools = np.arange(count) // pool
    rows = order[begun:end]
    rows = rows[np.lexsort((lengths[rows], np.repeat(pools, size)))]
    batches = rows.reshape(count, size)[np.lexsort((draw.random(count), pools))]
    return np.concatenate([order[:begun], batches.ravel(), order[end:]])


@dataclass(frozen=True)
class TaskBatches:
    """Stochastic task sampling: K ~ U{2..kappa} draws of a task, then rows of each, for every step anew.

    A task's rows come in passes: all of them once, in an order of the pass, before any comes again. Where a
    task stands follows from the draws of the steps before, which can be made again at any time.

    Source:
        Wang et al. 2023 (arXiv:2303.02861), section 3.3. Each draw gives size // K rows, one of them the
        remainder. One task may be drawn twice, as in the released code, so that its share of the rows is
        its mixing weight; without `replacement` tasks differ within a batch, and small ones have more than
        that. Rows are not grouped by length: which tasks meet in a batch is the method.
    """

    tasks: tuple[EncodedTask, ...]
    size: int
    seed: int
    sampling: SamplingConfig

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        draw = np.random.default_rng([self.seed, step])
        before, now = self._before(step).tolist(), self._totals(draw).tolist()
        picks = [(k, i) for k, count in enumerate(now) for i in self._rows(k, before[k], count)]
        order = draw.permutation(len(picks))
        return collate(
            [self.tasks[picks[j][0]].rows[picks[j][1]] for j in order], [picks[j][0] for j in order]
        )

    def counts(self, draw: np.random.Generator) -> list[tuple[int, int]]:
        """The draws of one batch: each its task and number of rows."""
        weights = self._weights
        if not self.sampling.stochastic:
            drawn = draw.multinomial(self.size, weights)
            return [(k, int(count)) for k, count in enumerate(drawn) if count]
        kappa = self.sampling.kappa or len(self.tasks)
        number = min(int(draw.integers(2, kappa + 1)), self.size)
        chosen = draw.choice(len(self.tasks), number, replace=self.sampling.replacement, p=weights)
        counts = np.full(number, self.size // number)
        counts[draw.integers(number)] += self.size % number
        return [(int(k), int(count)) for k, count in zip(chosen, counts, strict=True)]

    def expected_rows(self, steps: int) -> float:
        """How many different rows so many steps draw, about."""
        counted = min(steps, COUNTED_STEPS)
        drawn = self._before(counted) * (steps / counted)
        return float(np.minimum(drawn, [len(task) for task in self.tasks]).sum())

    @cached_property
    def _weights(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return mixing_weights([len(task) for task in self.tasks], self.sampling)

    def _totals(self, draw: np.random.Generator) -> Order:
        """Number of rows of every task in one batch."""
        totals = np.zeros(len(self.tasks), dtype=np.int64)
        for k, count in self.counts(draw):
            totals[k] += count
        return totals

    @cached_property
    def _given(self) -> list[Order]:
        """Number of rows that every task gave before each step, up to the latest that was asked for."""
        return [np.zeros(len(self.tasks), dtype=np.int64)]

    def _before(self, step: int) -> Order:
        """Number of rows that every task gives before a step."""
        while len(self._given) <= step:
            draw = np.random.default_rng([self.seed, len(self._given) - 1])
            self._given.append(self._given[-1] + self._totals(draw))
        return self._given[step]

    def _rows(self, task: int, first: int, count: int) -> list[int]:
        """Rows of a task, of which it gave `first` before."""
        places = (divmod(place, len(self.tasks[task])) for place in range(first, first + count))
        return [int(self._orders(task, number)[place]) for number, place in places]

    @cached_property
    def _orders(self) -> Callable[[int, int], Order]:
        """The order of a task's pass; a step needs that of one pass of each, or of two."""
        return lru_cache(maxsize=2 * len(self.tasks))(self._order)

    def _order(self, task: int, number: int) -> Order:
        # passes count from 1: NumPy draws for [seed, task, 0] what it draws for [seed, step]
        draw = np.random.default_rng([self.seed, task, number + 1])
        return draw.permutation(len(self.tasks[task]))


@dataclass
class ReadAhead:
    """Batches that are announced some steps before they are needed.

    Args:
        batches: the batch of any step.
        prepare: told the texts of the coming steps, as `Backbone.prepare` is.
        steps: how many steps there are.
        window: how many of them are announced at once.
        teach: told the coming batches, as `TeacherTargets.prepare` is; none: nobody is.
        rank: which of `size` processes this one is, that is told of its own rows alone.
        size: how many processes share the rows of every batch.
    """

    batches: Batches
    prepare: Callable[[Iterable[Tokens]], None]
    steps: int
    window: int = WINDOW
    teach: Callable[[Sequence[Batch]], None] | None = None
    rank: int = 0
    size: int = 1
    _announced: int = 0

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        if step >= self._announced:
            self._announced = min(step + self.window, self.steps)
            steps = range(step, self._announced)
            coming = [self.batches(one).share(self.rank, self.size) for one in steps]
            self.prepare(source for batch in coming for source in batch.sources)
            if self.teach is not None:
                self.teach(coming)
        return self.batches(step)


def mixing_weights(
    sizes: Sequence[int], sampling: SamplingConfig
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Probability of each task: by size, by size capped at 2^18 (`t5`), equal, or size^(1/temperature)."""
    size = np.asarray(sizes, dtype=np.float64)
    raw = {
        "proportional": size,
        "t5": np.minimum(size, T5_CAP),
        "equal": np.ones_like(size),
        "temperature": size ** (1 / sampling.temperature),
    }[sampling.mixing]
    return np.asarray(raw / raw.sum())
