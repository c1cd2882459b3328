"""Weights in few bits: whole numbers times a step, one step for each answer and view.

The columns of a view must be of like size for that, and a model's are not: so weights are rounded as they are
on columns that were divided by their scale, where one is known. Of readers with so much regularisation the
signs alone answer as well (docs/log.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weft.evaluation.linear import LinearHead

CLIPS = np.linspace(0.15, 1.0, 24)  # shares of the largest weight, tried as the largest that is kept
UNSCALED = 8  # bits where columns have no scale
Codes = NDArray[np.int8]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """The columns of one view.

    Attributes:
        width: how many.
        scale: of each `[D]`, infinite where a column says nothing; none: all alike.
        bits: of a weight.
    """

    width: int
    scale: NDArray[np.float32] | None
    bits: int

    @classmethod
    def of(cls, width: int, scale: NDArray[np.float32] | None, bits: int) -> "Part":
        """Of a view; without a scale a weight has eight bits."""
        return cls(width, scale, bits if scale is not None else UNSCALED)

    @property
    def size(self) -> int:
        """Bytes of an answer's weights."""
        return -(-self.width * self.bits // 8)

    @property
    def most(self) -> int:
        """The largest code; of one bit there are -1 and 1."""
        return max(1, (1 << (self.bits - 1)) - 1)


@dataclass(frozen=True)
class FewBits:
    """A head in few bits.

    Attributes:
        codes: of all parts, packed `[C, B]`.
        steps: of each answer and part `[C, parts]`.
        bias: `[C]`.
    """

    codes: NDArray[np.uint8]
    steps: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def of(cls, head: LinearHead, parts: Sequence[Part], means: Array) -> "FewBits":
        """The nearest to a head, with the same scores of a text whose columns are at their means `[F]`."""
        weights = head.weights.astype(np.float64)
        codes, steps = packed(weights, parts)
        lost = (weights - unpacked(codes, steps, parts)) @ means
        return cls(codes, steps, (head.bias + lost).astype(np.float32))

    def head(self, parts: Sequence[Part], answers: Sequence[str]) -> LinearHead:
        """The head again."""
        return LinearHead(unpacked(self.codes, self.steps, parts), self.bias, tuple(answers))


def packed(weights: Array, parts: Sequence[Part]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Weights `[C, F]` of the parts' columns side by side, as bytes `[C, B]` and steps `[C, parts]`."""
    found = [
        _rounded(_scaled(own, part), part) for own, part in zip(_split(weights, parts), parts, strict=True)
    ]
    stored = [_stored(codes, part) for (codes, _), part in zip(found, parts, strict=True)]
    return np.concatenate(stored, axis=1), np.stack([steps for _, steps in found], axis=1)


def unpacked(
    stored: NDArray[np.uint8], steps: NDArray[np.float32], parts: Sequence[Part]
) -> NDArray[np.float32]:
    """The weights `[C, F]` that were packed, as they were rounded."""
    ends = np.cumsum([part.size for part in parts])[:-1]
    found = []
    for own, step, part in zip(np.split(stored, ends, axis=1), steps.T, parts, strict=True):
        weights = _codes(own, part) * step[:, None]
        found.append(weights if part.scale is None else weights / part.scale)
    return np.concatenate(found, axis=1).astype(np.float32)


def _split(weights: Array, parts: Sequence[Part]) -> list[Array]:
    return np.split(weights, np.cumsum([part.width for part in parts])[:-1], axis=1)


def _scaled(weights: Array, part: Part) -> Array:
    """Weights on columns that are divided by their scale; 0 on those that say nothing."""
    if part.scale is None:
        return weights
    return weights * np.where(np.isfinite(part.scale), part.scale, 0.0).astype(np.float64)


def _rounded(weights: Array, part: Part) -> tuple[Codes, NDArray[np.float32]]:
    """Codes `[C, D]` and steps `[C]` with the least squared error: signs, or the best of some clips."""
    if part.bits == 1:
        return np.where(weights < 0, -1, 1).astype(np.int8), np.abs(weights).mean(1).astype(np.float32)
    largest = np.abs(weights).max(1)
    tried = np.maximum(CLIPS[:, None] * largest / part.most, np.finfo(np.float32).tiny).astype(np.float32)
    wrong = [((_near(weights, steps, part) * steps[:, None] - weights) ** 2).sum(1) for steps in tried]
    steps = tried[np.argmin(wrong, axis=0), np.arange(len(weights))]
    return _near(weights, steps, part), steps


def _near(weights: Array, steps: NDArray[np.float32], part: Part) -> Codes:
    return np.clip(np.round(weights / steps[:, None]), -part.most, part.most).astype(np.int8)


def _stored(codes: Codes, part: Part) -> NDArray[np.uint8]:
    """Codes as bits, the highest first; the last byte is filled with zeros."""
    raised = (codes > 0 if part.bits == 1 else codes + part.most).astype(np.uint8)
    bits = np.unpackbits(raised[..., None], axis=2)[:, :, 8 - part.bits :]
    return np.packbits(bits.reshape(len(codes), -1), axis=1)


def _codes(stored: NDArray[np.uint8], part: Part) -> NDArray[np.float32]:
    bits = np.unpackbits(stored, axis=1)[:, : part.width * part.bits].reshape(len(stored), part.width, -1)
    raised = (bits * 2 ** np.arange(part.bits - 1, -1, -1)).sum(2).astype(np.float32)
    found: NDArray[np.float32] = 2 * raised - 1 if part.bits == 1 else raised - part.most
    return found
