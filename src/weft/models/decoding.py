"""How answers are written, whatever the family: token by token, or by a search over whole answers.

The library's `generate` would obey the base's own generation settings, such as penalties, as well, and draw
for a whole batch at once; the texts that weft keeps would be read again. Rows that end leave the batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from weft.config.decoding import Decoding
from weft.data.batch import Tokens
from weft.models.context import Context

Going = list[tuple[int, int]]  # beginnings that go on: the place of the one it goes on from, and its token


class Writer(Protocol):
    """What goes on from a context."""

    def select(self, context: Context, rows: Sequence[int]) -> Context:
        """Some rows, in this order; one may come several times. Uses the given context up."""

    def step(self, context: Context, tokens: Sequence[int]) -> Context:
        """One more token of every row, read. Uses the given context up."""


class Writing(Protocol):
    """An answer in the making, of one row of a text: one beginning of it, or several."""

    @property
    def width(self) -> int:
        """How many beginnings go on; 0: it has ended."""

    def grow(self, logits: Float[Tensor, "K V"], likeliest: Sequence[int]) -> Going:
        """One more token of each beginning.

        Args:
            logits: of each beginning's next token.
            likeliest: the largest of each.
        """


Some = TypeVar("Some", bound=Writing)


def decode(
    writer: Writer,
    context: Context,
    limits: Sequence[int],
    end: int | None,
    decoding: Decoding,
    seeds: Sequence[int],
) -> list[Tokens]:
    """Answers, cut at the end token.

    Args:
        writer: the model.
        context: used up.
        limits: most tokens of each row.
        end: the end token, if the model has one.
        decoding: how tokens are chosen.
        seeds: of each row, where tokens are drawn.
    """
    rows = [begun(limit, end, decoding, seed) for limit, seed in zip(limits, seeds or limits, strict=True)]
    live, now = rows, context
    while live:
        live, now = advance(writer, now, live)
    return [row.answer for row in rows]


def begun(limit: int, end: int | None, decoding: Decoding, seed: int) -> "Line | Beams":
    """An answer of which nothing is written yet.

    Args:
        limit: most tokens.
        end: the end token, if the model has one.
        decoding: how tokens are chosen.
        seed: of its draws.
    """
    return Beams(limit, end, decoding) if decoding.num_beams > 1 else Line(limit, end, decoding, seed)


def advance(writer: Writer, context: Context, rows: Sequence[Some]) -> tuple[list[Some], Context]:
    """One more token of every row, read: the rows that go on, and the context after it.

    Args:
        writer: the model.
        context: used up.
        rows: answers in the making, in the order of the context's rows, of which each has its width.
    """
    parts = torch.split(context.next, [row.width for row in rows])
    likeliest: list[int] = context.next.argmax(-1).tolist()
    origins: list[int] = []
    tokens: list[int] = []
    start = 0
    for row, part in zip(rows, parts, strict=True):
        for origin, token in row.grow(part, likeliest[start : start + len(part)]):
            origins.append(start + origin)
            tokens.append(token)
        start += len(part)
    live = [row for row in rows if row.width]
    return live, writer.step(_selected(writer, context, origins), tokens) if live else context


def row_seeds(seed: int, texts: Sequence[Tokens]) -> list[int]:
    """A seed for each row that follows from its text alone: not from its place or company."""
    digests = [hashlib.sha256(f"{seed} {text}".encode()).digest() for text in texts]
    return [int.from_bytes(digest[:8], "big") for digest in digests]


def _selected(writer: Writer, context: Context, rows: Sequence[int]) -> Context:
    same = list(rows) == list(range(len(context.mask)))
    return context if same else writer.select(context, rows)


class Line:
    """An answer that is written token by token: the likeliest ones, or drawn.

    A draw is the inverse of the distribution at a number of the row's own.

    Args:
        limit: most tokens.
        end: the end token, if the model has one.
        decoding: how tokens are chosen.
        seed: of the row's numbers.
    """

    def __init__(self, limit: int, end: int | None, decoding: Decoding, seed: int) -> None:
        self.limit, self.end, self.decoding = limit, end, decoding
        self.tokens: list[int] = []
        self.width = 1
        self._chance = np.random.default_rng(seed)

    @property
    def answer(self) -> Tokens:
        """What is written, without the end token."""
        return tuple(self.tokens[:-1] if self.tokens[-1:] == [self.end] else self.tokens)

    def grow(self, logits: Float[Tensor, "K V"], likeliest: Sequence[int]) -> Going:
        """See `Writing`."""
        token = self._drawn(logits) if self.decoding.temperature else likeliest[0]
        self.tokens.append(token)
        self.width = int(token != self.end and len(self.tokens) < self.limit)
        return [(0, token)] * self.width

    def _drawn(self, logits: Float[Tensor, "K V"]) -> int:
        reach = shares(logits, self.decoding).cumsum(-1)
        whole = reach[:, -1:].contiguous()
        found = torch.searchsorted(reach, self._chance.random() * whole, right=True)
        last = torch.searchsorted(reach, whole)  # the last with a share, should a product be rounded up
        return int(found.minimum(last))


def shares(logits: Float[Tensor, "B V"], decoding: Decoding) -> Float[Tensor, "B V"]:
    """Probabilities that tokens are drawn with, in float64 on the processor."""
    scores = TemperatureLogitsWarper(float(decoding.temperature))(None, logits.cpu().double())
    if decoding.top_p < 1:
        scores = TopPLogitsWarper(decoding.top_p)(None, scores)
    return torch.softmax(scores, -1)


@dataclass
class Beams:
    """The search of one row, as transformers does it: `early_stopping=False`.

    A beginning that ends is scored by its log-probability divided by its length (the end token counts) to a
    power. The search stops when so many have ended, and none that goes on is better as it stands.

    Attributes:
        limit: most tokens.
        end: the end token, if the model has one.
        decoding: number of beams and length penalty.
        going: beginnings that go on, the likeliest first.
        scores: their log-probabilities, `[beams]`.
        ended: the best that ended, with their scores, the best first.
    """

    limit: int
    end: int | None
    decoding: Decoding
    going: list[Tokens] = field(default_factory=lambda: [()])
    scores: Tensor = field(default_factory=lambda: torch.zeros(1))
    ended: list[tuple[float, Tokens]] = field(default_factory=list)

    @property
    def width(self) -> int:
        """How many beginnings go on."""
        return len(self.going)

    @property
    def answer(self) -> Tokens:
        """The best that ended, without the end token."""
        best = self.ended[0][1]
        return best[:-1] if best[-1] == self.end else best

    def grow(self, logits: Float[Tensor, "K V"], likeliest: Sequence[int]) -> Going:
        """See `Writing`: those that end are set aside, the likeliest others go on."""
        log_probs = logits.float().log_softmax(-1)
        beams, width = self.decoding.num_beams, log_probs.shape[1]
        totals = (self.scores.to(log_probs.device)[:, None] + log_probs).flatten()
        found = totals.topk(min(2 * beams, len(totals)))  # twice as many, for half of them may end
        length = len(self.going[0]) + 1
        kept: list[tuple[int, Tokens, float]] = []
        for rank, (total, place) in enumerate(
            zip(found.values.tolist(), found.indices.tolist(), strict=True)
        ):
            origin, token = divmod(place, width)
            answer = (*self.going[origin], token)
            if token != self.end and length < self.limit:
                kept.append((origin, answer, total))
            elif rank < beams:
                self.ended.append((total / length**self.decoding.length_penalty, answer))
        self.ended = sorted(self.ended, key=lambda one: -one[0])[:beams]
        if self._over(kept[0][2] / length**self.decoding.length_penalty if kept else None):
            kept = []
        self.going = [answer for _, answer, _ in kept[:beams]]
        self.scores = torch.tensor([total for _, _, total in kept[:beams]])
        return [(origin, answer[-1]) for origin, answer, _ in kept[:beams]]

    def _over(self, best: float | None) -> bool:
        """Whether nothing better is to be expected, the best that goes on being so good."""
        full = len(self.ended) == self.decoding.num_beams
        return best is None or (full and best <= self.ended[-1][0])
