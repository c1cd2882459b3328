"""Keys and values of a batch's rows: taken out of a cache, filled up, and put together."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

KV = list[tuple[Tensor, Tensor]]  # of every layer, each `[B, heads, N, head size]`
PLACES = 2  # the axis of positions


def kv(cache: DynamicCache) -> KV:
    """Every layer's keys and values."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def filled(part: Tensor, length: int, axis: int, *, left: bool = False) -> Tensor:
    """A tensor with zeros behind the numbers of an axis (or before them), up to a length."""
    missing = length - part.shape[axis]
    if not missing:
        return part
    zeros = part.new_zeros((*part.shape[:axis], missing, *part.shape[axis + 1 :]))
    return torch.cat([zeros, part] if left else [part, zeros], axis)


def joined(several: Sequence[KV], length: int, *, left: bool = False) -> KV:
    """The rows of several batches as one batch, each filled up to a length."""

    def rows(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([filled(part, length, PLACES, left=left) for part in parts])

    return [
        (rows([keys for keys, _ in layers]), rows([values for _, values in layers]))
        for layers in zip(*several, strict=True)
    ]
