"""Keys and values of a batch's rows: taken out of a cache, filled up, and put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

KV = Sequence[tuple[Tensor, Tensor]]  # of every layer, each `[B, heads, N, head size]`
PLACES, ROOM = 2, 32  # the axis of positions, and how many more a cache has room for


def kv(cache: DynamicCache) -> KV:
    """Every layer's keys and values."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def repeated(kept: KV, rows: int) -> KV:
    """Those of one row, or of a text, for so many rows; nothing is copied."""
    return [(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in kept]


@dataclass(frozen=True)
class Shared:
    """Keys and values of rows that go on from one text: the text's once, and each row's own."""

    text: KV
    own: KV

    def rows(self, rows: Sequence[int] | slice) -> "GrowingCache":
        """Some rows, each with the text."""
        own = [(keys[rows], values[rows]) for keys, values in self.own]
        text = repeated(self.text, len(own[0][0]))
        both = zip(text, own, strict=True)
        held = [
            (torch.cat([k, new_k], PLACES), torch.cat([v, new_v], PLACES)) for (k, v), (new_k, new_v) in both
        ]
        return GrowingCache(held)


def filled(part: Tensor, length: int, axis: int, *, left: bool = False) -> Tensor:
    """A tensor with zeros behind the numbers of an axis (or before them), up to a length."""
    missing = length - part.shape[axis]
    if not missing:
        return part
    behind = (0, 0) * (part.dim() - 1 - axis)  # the axes that come after it
    return F.pad(part, (*behind, missing, 0) if left else (*behind, 0, missing))


def joined(several: Sequence[KV], length: int, *, left: bool = False) -> KV:
    """The rows of several batches as one batch, each filled up to a length."""

    def rows(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([filled(part, length, PLACES, left=left) for part in parts])

    return [
        (rows([keys for keys, _ in layers]), rows([values for _, values in layers]))
        for layers in zip(*several, strict=True)
    ]


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values with room behind them: a further token is put there, and nothing else is copied."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._rooms = (_Room(), _Room())

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kw: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones behind those that are there."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._rooms[0].added(self.keys, key_states)
        self.values = self._rooms[1].added(self.values, value_states)
        return self.keys, self.values


class _Room:
    """A tensor of which the first positions are filled."""

    def __init__(self) -> None:
        self.whole = self.filled = torch.empty(0)

    def added(self, held: Tensor, new: Tensor) -> Tensor:
        """The positions that are held, and new ones; put into other room where there is none behind them."""
        count = held.shape[PLACES] if held.numel() else 0
        length = count + new.shape[PLACES]
        if held is not self.filled or length > self.whole.shape[PLACES]:
            self.whole = new.new_empty((*new.shape[:PLACES], length + ROOM, *new.shape[PLACES + 1 :]))
            if count:
                self.whole.narrow(PLACES, 0, count).copy_(held)
        self.whole.narrow(PLACES, count, new.shape[PLACES]).copy_(new)
        self.filled = self.whole.narrow(PLACES, 0, length)
        return self.filled


class GrowingCache(DynamicCache):  # type: ignore[misc]
    """A cache of such layers, for answers that are written without a gradient.

    Args:
        held: what was read before; it is not written to.
    """

    def __init__(self, held: KV = ()) -> None:
        super().__init__()
        self.layer_class_to_replicate = GrowingLayer
        for keys, values in held:
            layer = GrowingLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            self.layers.append(layer)
