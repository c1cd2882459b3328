"""Keys and values of texts under a frozen causal model, computed once and shared by all prompts.

A text's keys and values depend on the model and the text alone, so the key is the token ids and the cache
belongs to one model. Whole texts leave, least recently used first, when the byte budget is full.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from weft.batch import Tokens

READ_TOKENS = 2048


class TextCache:
    """Keys and values per text.

    Args:
        lm: the frozen causal model.
        max_bytes: memory for texts; one that does not fit is computed anew each time.
    """

    def __init__(self, lm: Any, max_bytes: int) -> None:
        self.lm, self.max_bytes = lm, max_bytes
        self.bytes = self.hits = self.misses = 0
        self._kept: OrderedDict[Tokens, Tensor] = OrderedDict()  # [layers, 2, heads, S, head size]

    def gather(self, sources: Sequence[Tokens]) -> list[tuple[Tensor, Tensor]]:
        """Every layer's keys and values for a batch of texts, padded on the left with zeros."""
        rows = self._rows(sources)
        longest = max(row.shape[3] for row in rows)
        layers, _, heads, _, size = rows[0].shape
        out = rows[0].new_zeros(layers, 2, len(rows), heads, longest, size)
        for i, row in enumerate(rows):
            out[:, :, i, :, longest - row.shape[3] :] = row
        return [(layer[0], layer[1]) for layer in out]

    def _rows(self, sources: Sequence[Tokens]) -> list[Tensor]:
        found = {source: self._kept[source] for source in sources if source in self._kept}
        self.hits += len(found)
        missing = sorted({source for source in sources if source not in found}, key=len)
        self.misses += len(missing)
        for source in found:
            self._kept.move_to_end(source)
        for part in _chunks(missing):
            for source, row in zip(part, self._compute(part), strict=True):
                found[source] = row
                self._keep(source, row)
        return [found[source] for source in sources]

    @torch.no_grad()
    def _compute(self, sources: list[Tokens]) -> list[Tensor]:
        """Read texts, padded on the right: later positions do not touch earlier ones in a causal model."""
        device = self.lm.get_input_embeddings().weight.device
        ids = torch.zeros(len(sources), max(map(len, sources)), dtype=torch.long, device=device)
        for i, source in enumerate(sources):
            ids[i, : len(source)] = torch.tensor(source, device=device)
        training = self.lm.training
        cache = (
            self.lm.eval()
            .base_model(input_ids=ids, past_key_values=DynamicCache(), use_cache=True)
            .past_key_values
        )
        self.lm.train(training)
        stacked = torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])
        return [stacked[:, :, i, :, : len(source)].clone() for i, source in enumerate(sources)]

    def _keep(self, source: Tokens, row: Tensor) -> None:
        size = row.numel() * row.element_size()
        if size > self.max_bytes:
            return
        while self.bytes + size > self.max_bytes:
            _, old = self._kept.popitem(last=False)
            self.bytes -= old.numel() * old.element_size()
        self._kept[source] = row
        self.bytes += size


def _chunks(sources: list[Tokens]) -> list[list[Tokens]]:
    """Texts, sorted by length, in parts of at most about 2,048 padded tokens."""
    parts: list[list[Tokens]] = []
    for source in sources:
        if parts and (len(parts[-1]) + 1) * len(source) <= READ_TOKENS:
            parts[-1].append(source)
        else:
            parts.append([source])
    return parts
