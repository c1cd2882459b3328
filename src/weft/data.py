"""From examples to batches: seeded choice of rows, tokens, and the draw of each step.

No loader and no state: the batch of step n is a function of (seed, n), so a run resumed at step n
continues as if it had never stopped.
"""

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Protocol

import numpy as np

from weft.backbone import Backbone
from weft.batch import Batch, Encoded, Tokens, collate
from weft.config import SamplingConfig
from weft.errors import DataError
from weft.tasks import Example

SUBSET_SEED = 0
T5_CAP = 2**18


def subset(examples: list[Example], rows: int | None) -> list[Example]:
    """At most `rows` examples, the same ones for every run and seed, in their old order."""
    if rows is None or rows >= len(examples):
        return examples
    picks = sorted(random.Random(SUBSET_SEED).sample(range(len(examples)), rows))
    return [examples[i] for i in picks]


def few_shot(
    examples: list[Example], shots: int, *, seed: int, task: str = "", closed: bool = True
) -> list[Example]:
    """`shots` examples of every answer, drawn by the seed, in a shuffled order; of open answers, in all.

    Raises:
        DataError: if an answer has fewer rows than that.
    """
    by_answer: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_answer[example.target if closed else "the task"].append(example)
    short = {answer: len(rows) for answer, rows in by_answer.items() if len(rows) < shots}
    if short:
        answer, rows = min(short.items(), key=lambda item: item[1])
        raise DataError(
            f"{shots} rows per answer are asked for, and {answer!r} has {rows}",
            where=f"task {task}, train",
            fix=f"set shots to {rows} or less",
            code="D13",
        )
    draw = random.Random(seed)
    picked = [example for answer in sorted(by_answer) for example in draw.sample(by_answer[answer], shots)]
    draw.shuffle(picked)
    return picked


@dataclass(frozen=True)
class EncodedTask:
    """A task's rows as tokens, and how many texts were cut to fit."""

    name: str
    rows: tuple[Encoded, ...]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.rows)


def encode_task(name: str, examples: Sequence[Example], backbone: Backbone, limit: int) -> EncodedTask:
    """Tokens of every example."""
    texts = [backbone.text_tokens(example.source, limit) for example in examples]
    rows = tuple(
        Encoded(tokens, backbone.answer_tokens(example.target))
        for (tokens, _), example in zip(texts, examples, strict=True)
    )
    return EncodedTask(name, rows, sum(cut for _, cut in texts))


class Batches(Protocol):
    """The batch of any step."""

    def __call__(self, step: int) -> Batch: ...


@dataclass(frozen=True)
class EpochBatches:
    """Rows of one or several tasks pooled, each once per epoch, in an order drawn anew for every epoch."""

    tasks: tuple[EncodedTask, ...]
    size: int
    seed: int

    def __call__(self, step: int) -> Batch:
        """The batch of a step; the last batch of an epoch runs on into the next."""
        rows = self._starts[-1]
        places = [divmod(place, rows) for place in range(step * self.size, (step + 1) * self.size)]
        picks = [self._pick(int(_order(self.seed, epoch, rows)[place])) for epoch, place in places]
        return collate([self.tasks[k].rows[i] for k, i in picks], [k for k, _ in picks])

    @cached_property
    def _starts(self) -> list[int]:
        """Where each task begins in the pool, and the pool's size."""
        return [0, *accumulate(len(task) for task in self.tasks)]

    def _pick(self, place: int) -> tuple[int, int]:
        """The task and the row at a place of the pool."""
        task = bisect_right(self._starts, place) - 1
        return task, place - self._starts[task]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The order of an epoch; a step needs that of one epoch, or of two."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


@dataclass(frozen=True)
class TaskBatches:
    """Stochastic task sampling: K ~ U{2..kappa} tasks, then rows of each, for every step anew.

    Source:
        Wang et al. 2023 (arXiv:2303.02861), section 3.3. Each drawn task gives size // K rows, one of them
        the remainder, as in the released code; tasks differ within a batch unless `replacement` is set,
        as the text says.
    """

    tasks: tuple[EncodedTask, ...]
    size: int
    seed: int
    sampling: SamplingConfig

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        draw = np.random.default_rng([self.seed, step])
        picks = [(k, i) for k, count in self.counts(draw) for i in self._rows(k, count, draw)]
        order = draw.permutation(len(picks))
        return collate(
            [self.tasks[picks[j][0]].rows[picks[j][1]] for j in order], [picks[j][0] for j in order]
        )

    def counts(self, draw: np.random.Generator) -> list[tuple[int, int]]:
        """The tasks of one batch, and the number of rows of each."""
        weights = mixing_weights([len(task) for task in self.tasks], self.sampling)
        if not self.sampling.stochastic:
            drawn = draw.multinomial(self.size, weights)
            return [(k, int(count)) for k, count in enumerate(drawn) if count]
        kappa = self.sampling.kappa or len(self.tasks)
        number = min(int(draw.integers(2, kappa + 1)), self.size)
        chosen = draw.choice(len(self.tasks), number, replace=self.sampling.replacement, p=weights)
        counts = np.full(number, self.size // number)
        counts[draw.integers(number)] += self.size % number
        return [(int(k), int(count)) for k, count in zip(chosen, counts, strict=True)]

    def _rows(self, task: int, count: int, draw: np.random.Generator) -> list[int]:
        rows = len(self.tasks[task])
        return [int(i) for i in draw.choice(rows, count, replace=count > rows)]


@dataclass
class ReadAhead:
    """Batches whose texts are announced to the backbone some steps before they are needed.

    Args:
        batches: the batch of any step.
        prepare: told the texts of the coming steps, as `Backbone.prepare` is.
        steps: how many steps there are.
        window: how many of them are announced at once.
    """

    batches: Batches
    prepare: Callable[[Iterable[Tokens]], None]
    steps: int
    window: int = 16
    _announced: int = 0

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        if step >= self._announced:
            self._announced = min(step + self.window, self.steps)
            self.prepare(
                source for coming in range(step, self._announced) for source in self.batches(coming).sources
            )
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
