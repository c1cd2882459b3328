"""Prompts side by side behind a text, several in each row of the model: each sees the text and itself."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weft.models.caches import PLACES, filled

ROW = 128  # positions of prompts in a row: with more, most of attention is between prompts and thrown away


def at_once(length: int) -> int:
    """How many prompts of a length lie in one row."""
    return max(1, ROW // length)


def apart(count: int, length: int, device: torch.device) -> Bool[Tensor, "N N"]:
    """Which positions of so many prompts each sees: of its own, those not behind it."""
    one = torch.ones(length, length, device=device).tril()
    return torch.kron(torch.eye(count, device=device), one).bool()


def hiding(seen: Bool[Tensor, "R N M"], dtype: torch.dtype) -> Float[Tensor, "R 1 N M"]:
    """What is added to scores: 0, or the least number for what is not seen."""
    hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return hidden.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


class PackedPrompts:
    """How many prompts behind one text lie in rows, so that the text is copied a few times.

    Args:
        text: S, tokens of the text.
        counted: `[B, P]`, which vectors of each prompt count.
    """

    def __init__(self, text: int, counted: Int[Tensor, "B P"]) -> None:
        self.text, self.prompts, self.length = text, len(counted), counted.shape[1]
        self.count = -(-self.prompts // at_once(self.length))
        self.each = -(-self.prompts // self.count)
        self.counted = self.packed(counted)

    def packed(self, parts: Tensor) -> Tensor:
        """Something of each prompt's positions `[B, P, ...]`, by row `[rows, positions, ...]`."""
        return filled(parts, self.count * self.each, 0).reshape(self.count, -1, *parts.shape[2:])

    def last(self, states: Float[Tensor, "R N D"]) -> Float[Tensor, "B D"]:
        """The states at the last position of each prompt."""
        return states.reshape(self.count * self.each, self.length, -1)[: self.prompts, -1]

    def unpacked(self, kept: Float[Tensor, "R H N d"]) -> Float[Tensor, "B H P d"]:
        """Keys or values of each prompt, out of those of text and prompts."""
        own = kept.narrow(PLACES, self.text, self.each * self.length)
        rows, heads, _, size = own.shape
        apart = own.reshape(rows, heads, self.each, self.length, size).transpose(1, 2)
        return apart.flatten(0, 1)[: self.prompts]

    @property
    def positions(self) -> Int[Tensor, "R N"]:
        """The position of each vector: that of a prompt which stands there alone."""
        own: Tensor = self.counted.view(self.count, self.each, self.length).cumsum(2) - 1
        return (self.text + own.clamp_min(0)).flatten(1)

    def mask(self, dtype: torch.dtype) -> Float[Tensor, "R 1 N M"]:
        """What is added to the scores of text and prompts: 0, or the least number for what is not seen."""
        own = apart(self.each, self.length, self.counted.device) & self.counted.bool()[:, None]
        return hiding(torch.cat([own.new_ones(*own.shape[:2], self.text), own], 2), dtype)
