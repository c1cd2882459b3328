"""Keys and values of texts under a frozen causal model, computed once and shared by all prompts.

A text's keys and values depend on the model and the text alone, so the key is the token ids and the cache
belongs to one model. Whole texts leave, least recently used first, when the byte budget is full.

To the last bit they depend on the shape of the products that made them. So texts are read in shapes that
follow from their own length alone: a run that goes on in another process reads the same numbers.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from weft.batch import Tokens

READ_TOKENS = {"cpu": 256}  # of one read: where the measured rate stops rising
READ_TOKENS_ELSEWHERE = 8192  # not measured
LENGTHS = 8  # texts are padded to a multiple of this


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

    def prepare(self, sources: Iterable[Tokens]) -> None:
        """Read ahead what is not yet kept; what there is no room for is read when it is needed."""
        missing: list[Tokens] = []
        room = self.max_bytes
        for source in dict.fromkeys(sources):
            room -= self._size(source)
            if room < 0:
                break
            if source in self._kept:
                self._kept.move_to_end(source)  # what is announced leaves last
            else:
                missing.append(source)
        for source, row in self._read(missing):
            self._keep(source, row)

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
        missing = [source for source in dict.fromkeys(sources) if source not in found]
        self.misses += len(missing)
        for source in found:
            self._kept.move_to_end(source)
        for source, row in self._read(missing):
            found[source] = row
            self._keep(source, row)
        return [found[source] for source in sources]

    def _read(self, sources: Sequence[Tokens]) -> Iterator[tuple[Tokens, Tensor]]:
        """Texts with their keys and values `[layers, 2, heads, S, head size]`, in reads of like length."""
        by_length: dict[int, list[Tokens]] = defaultdict(list)
        for source in sources:
            by_length[self._padded(len(source))].append(source)
        tokens = READ_TOKENS.get(self._device.type, READ_TOKENS_ELSEWHERE)
        for length, texts in sorted(by_length.items()):
            rows = max(1, tokens // length)
            for start in range(0, len(texts), rows):
                part = texts[start : start + rows]
                yield from zip(part, self._compute(part, rows, length), strict=True)

    def _padded(self, length: int) -> int:
        """The length at which a text is read: a multiple of eight, if the model has so many positions."""
        positions = getattr(self.lm.config, "max_position_embeddings", None) or length + LENGTHS
        return max(length, min(-(-length // LENGTHS) * LENGTHS, positions))

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.lm.get_input_embeddings().weight.device
        return device

    @torch.no_grad()
    def _compute(self, sources: list[Tokens], rows: int, length: int) -> list[Tensor]:
        """Read texts as `[rows, length]`, padded on the right: later positions do not touch earlier ones."""
        ids = torch.zeros(rows, length, dtype=torch.long)
        for i, source in enumerate(sources):
            ids[i, : len(source)] = torch.tensor(source)
        training = self.lm.training
        cache = (
            self.lm.eval()
            .base_model(input_ids=ids.to(self._device), past_key_values=DynamicCache(), use_cache=True)
            .past_key_values
        )
        self.lm.train(training)
        stacked = torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])
        return [stacked[:, :, i, :, : len(source)].clone() for i, source in enumerate(sources)]

    def _size(self, source: Tokens) -> int:
        """Bytes of a text's keys and values."""
        config = self.lm.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        width = self.lm.get_input_embeddings().weight.element_size()
        return int(config.num_hidden_layers * 2 * heads * size * width) * len(source)

    def _keep(self, source: Tokens, row: Tensor) -> None:
        size = row.numel() * row.element_size()
        if size > self.max_bytes:
            return
        while self.bytes + size > self.max_bytes:
            _, old = self._kept.popitem(last=False)
            self.bytes -= old.numel() * old.element_size()
        self._kept[source] = row
        self.bytes += size
