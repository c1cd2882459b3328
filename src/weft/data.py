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
from importlib.metadata import version
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from weft.backbone import Backbone
from weft.batch import Batch, Encoded, Tokens, collate
from weft.config import SamplingConfig
from weft.errors import DataError
from weft.tasks import Example
from weft.token_store import TokenRows, TokenStore, key_of

SUBSET_SEED = 0
T5_CAP = 2**18
WINDOW = 16  # steps whose texts are read at once
POOL = 32  # batches; padding falls little beyond
LARGE = 4096  # rows, from which on a task's tokens are kept on the disk
CHUNK = 4096  # texts of one call of the tokenizer
COUNTED_STEPS = 256  # from which a task's share of the rows is taken

Order = np.ndarray[tuple[int], np.dtype[np.int64]]


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
    rows: Sequence[Encoded]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> Order:
        """Number of source tokens of every row."""
        rows = self.rows if isinstance(self.rows, TokenRows) else TokenRows.of(self.rows)
        return rows.lengths


def encode_task(
    name: str,
    examples: Sequence[Example],
    backbone: Backbone,
    limit: int,
    store: TokenStore | None = None,
) -> EncodedTask:
    """Tokens of every example; those of a large task are made once and mapped from the store.

    Raises:
        DataError: if nothing is left of a text.
    """
    if store is None or len(examples) < LARGE:
        return EncodedTask(name, *_encoded(examples, backbone, limit))
    about = [backbone.base_hash, type(backbone).__name__, limit, version("tokenizers")]
    key = key_of(about, ((one.source, one.target) for one in examples))
    return EncodedTask(name, *(store.get(key) or store.put(key, *_encoded(examples, backbone, limit))))


def _encoded(examples: Sequence[Example], backbone: Backbone, limit: int) -> tuple[TokenRows, int]:
    """Rows of tokens, and how many texts were cut."""
    starts = range(0, max(1, len(examples)), CHUNK)
    parts = [_encoded_chunk(examples[start : start + CHUNK], backbone, limit) for start in starts]
    return TokenRows.joined([rows for rows, _ in parts]), sum(cut for _, cut in parts)


def _encoded_chunk(examples: Sequence[Example], backbone: Backbone, limit: int) -> tuple[TokenRows, int]:
    """As `Backbone.text_tokens` and `answer_tokens` say it, many texts at once."""
    texts = [example.source for example in examples]
    sources = _tokens(backbone.tokenizer, texts, truncation=False, verbose=False)
    long = [i for i, one in enumerate(sources) if len(one) > limit]
    shorter = _tokens(backbone.tokenizer, [texts[i] for i in long], truncation=True, max_length=limit)
    for i, tokens in zip(long, shorter, strict=True):
        sources[i] = tokens
    for text in (text for text, tokens in zip(texts, sources, strict=True) if not tokens):
        backbone.text_tokens(text, limit)  # says what is wrong
    answers = {text: backbone.answer_tokens(text) for text in dict.fromkeys(one.target for one in examples)}
    pairs = zip(sources, examples, strict=True)
    return TokenRows.of(Encoded(tuple(one), answers[example.target]) for one, example in pairs), len(long)


def _tokens(tokenizer: Any, texts: list[str], **kw: Any) -> list[list[int]]:
    return list(tokenizer(texts, return_attention_mask=False, **kw)["input_ids"]) if texts else []


class Batches(Protocol):
    """The batch of any step."""

    def __call__(self, step: int) -> Batch: ...


def pool_size(asked: int | None, backbone: Backbone) -> int:
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
    """Stochastic task sampling: K ~ U{2..kappa} tasks, then rows of each, for every step anew.

    Source:
        Wang et al. 2023 (arXiv:2303.02861), section 3.3. Each drawn task gives size // K rows, one of them
        the remainder, as in the released code; tasks differ within a batch unless `replacement` is set,
        as the text says. Rows are not grouped by length: which tasks meet in a batch is the method.
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

    def expected_rows(self, steps: int) -> float:
        """How many different rows so many steps draw, about."""
        counted = min(steps, COUNTED_STEPS)
        drawn = np.zeros(len(self.tasks))
        for step in range(counted):
            for k, count in self.counts(np.random.default_rng([self.seed, step])):
                drawn[k] += count
        sizes = np.array([len(task) for task in self.tasks])
        return float((sizes * -np.expm1(-drawn * steps / counted / sizes)).sum())

    def _rows(self, task: int, count: int, draw: np.random.Generator) -> list[int]:
        rows = len(self.tasks[task])
        return [int(i) for i in draw.choice(rows, count, replace=count > rows)]


@dataclass
class ReadAhead:
    """Batches that are announced some steps before they are needed.

    Args:
        batches: the batch of any step.
        prepare: told the texts of the coming steps, as `Backbone.prepare` is.
        steps: how many steps there are.
        window: how many of them are announced at once.
        teach: told the coming batches, as `TeacherTargets.prepare` is; none: nobody is.
    """

    batches: Batches
    prepare: Callable[[Iterable[Tokens]], None]
    steps: int
    window: int = WINDOW
    teach: Callable[[Sequence[Batch]], None] | None = None
    _announced: int = 0

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        if step >= self._announced:
            self._announced = min(step + self.window, self.steps)
            coming = [self.batches(one) for one in range(step, self._announced)]
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
