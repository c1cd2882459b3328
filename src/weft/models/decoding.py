"""How answers are written, whatever the family: token by token, or by a search over whole answers.

The library's `generate` would obey the base's own generation settings, such as penalties, as well, and draw
for a whole batch at once; the texts that weft keeps would be read again. Rows that end leave the batch.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from weft.config.decoding import Decoding
from weft.data.batch import Tokens
from weft.models.context import Context

Pick = Callable[[Tensor, Sequence[int], int], list[int]]


class Writer(Protocol):
    """What goes on from a context."""

    def select(self, context: Context, rows: Sequence[int]) -> Context:
        """Some rows, in this order; one may come several times. Uses the given context up."""

    def step(self, context: Context, tokens: Sequence[int]) -> Context:
        """One more token of every row, read. Uses the given context up."""


def decode(
    writer: Writer,
    context: Context,
    limits: Sequence[int],
    end: int,
    decoding: Decoding,
    seeds: Sequence[int],
) -> list[Tokens]:
    """Answers, cut at the end token.

    Args:
        writer: the model.
        context: used up.
        limits: most tokens of each row.
        end: the end token.
        decoding: how tokens are chosen.
        seeds: of each row, where tokens are drawn.
    """
    if decoding.num_beams > 1:
        found = _search(writer, context, [_Beams(limit, end, decoding) for limit in limits])
    else:
        pick = _sampler(decoding, seeds, max(limits)) if decoding.temperature else _likeliest
        found = _write(writer, context, limits, end, pick)
    return [row[:-1] if row[-1] == end else row for row in found]


def row_seeds(seed: int, texts: Sequence[Tokens]) -> list[int]:
    """A seed for each row that follows from its text alone: not from its place or company."""
    digests = [hashlib.sha256(f"{seed} {text}".encode()).digest() for text in texts]
    return [int.from_bytes(digest[:8], "big") for digest in digests]


def _write(writer: Writer, context: Context, limits: Sequence[int], end: int, pick: Pick) -> list[Tokens]:
    """One token at a time."""
    written: list[list[int]] = [[] for _ in limits]
    live = list(range(len(limits)))  # rows that still write
    while True:
        for row, token in zip(live, pick(context.next, live, len(written[live[0]])), strict=True):
            written[row].append(token)
        going = [
            n for n, row in enumerate(live) if written[row][-1] != end and len(written[row]) < limits[row]
        ]
        if not going:
            return [tuple(row) for row in written]
        context = _selected(writer, context, going)
        live = [live[n] for n in going]
        context = writer.step(context, [written[row][-1] for row in live])


def _selected(writer: Writer, context: Context, rows: Sequence[int]) -> Context:
    same = list(rows) == list(range(len(context.mask)))
    return context if same else writer.select(context, rows)


def _likeliest(logits: Float[Tensor, "B V"], rows: Sequence[int], place: int) -> list[int]:
    tokens: list[int] = logits.argmax(-1).tolist()
    return tokens


def _sampler(decoding: Decoding, seeds: Sequence[int], most: int) -> Pick:
    """Draws a token of each row by the inverse of its distribution, from numbers of the row's own."""
    chance = torch.from_numpy(np.stack([np.random.default_rng(seed).random(most) for seed in seeds]))

    def pick(logits: Float[Tensor, "B V"], rows: Sequence[int], place: int) -> list[int]:
        reach = shares(logits, decoding).cumsum(-1)
        whole = reach[:, -1:].contiguous()
        found = torch.searchsorted(reach, chance[list(rows), place, None] * whole, right=True)
        last = torch.searchsorted(reach, whole)  # the last with a share, should a product be rounded up
        tokens: list[int] = found.minimum(last)[:, 0].tolist()
        return tokens

    return pick


def shares(logits: Float[Tensor, "B V"], decoding: Decoding) -> Float[Tensor, "B V"]:
    """Probabilities that tokens are drawn with, in float64 on the processor."""
    scores = TemperatureLogitsWarper(float(decoding.temperature))(None, logits.cpu().double())
    if decoding.top_p < 1:
        scores = TopPLogitsWarper(decoding.top_p)(None, scores)
    return torch.softmax(scores, -1)


@dataclass
class _Beams:
    """The search of one row, as transformers does it: `early_stopping=False`.

    A beginning that ends is scored by its log-probability divided by its length (the end token counts) to a
    power. The search stops when so many have ended, and none that goes on is better as it stands.

    Attributes:
        limit: most tokens.
        end: the end token.
        decoding: number of beams and length penalty.
        going: beginnings that go on, the likeliest first.
        scores: their log-probabilities, `[beams]`.
        origins: of each, the place of the one that it goes on from.
        ended: the best that ended, with their scores, the best first.
    """

    limit: int
    end: int
    decoding: Decoding
    going: list[Tokens] = field(default_factory=lambda: [()])
    scores: Tensor = field(default_factory=lambda: torch.zeros(1))
    origins: list[int] = field(default_factory=lambda: [0])
    ended: list[tuple[float, Tokens]] = field(default_factory=list)

    def grow(self, log_probs: Float[Tensor, "K V"]) -> None:
        """One more token of each beginning: those that end are set aside, the likeliest others go on."""
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
        self.origins, self.going = [one[0] for one in kept[:beams]], [one[1] for one in kept[:beams]]
        self.scores = torch.tensor([one[2] for one in kept[:beams]])

    def _over(self, best: float | None) -> bool:
        """Whether nothing better is to be expected, the best that goes on being so good."""
        full = len(self.ended) == self.decoding.num_beams
        return best is None or (full and best <= self.ended[-1][0])


def _search(writer: Writer, context: Context, rows: Sequence[_Beams]) -> list[Tokens]:
    """The best answer of each row; beginnings of all rows are read together."""
    live = list(rows)
    while live:
        parts = torch.split(context.next.float().log_softmax(-1), [len(row.going) for row in live])
        origins, start = [], 0
        for row, part in zip(live, parts, strict=True):
            row.grow(part)
            origins += [start + origin for origin in row.origins]
            start += len(part)
        live = [row for row in live if row.going]
        if live:
            tokens = [answer[-1] for row in live for answer in row.going]
            context = writer.step(_selected(writer, context, origins), tokens)
    return [row.ended[0][1] for row in rows]
