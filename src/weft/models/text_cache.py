"""Keys and values of texts under a frozen causal model, computed once and shared by all prompts.

A text's keys and values depend on the model and the text alone. They are kept in 16 bits, in pages that all
processes with the same folder share. What is used is always the rounded numbers, also when a text was just
read, so that no result depends on what was kept: of a model in bfloat16 they are its own, of one in float32
they are float16's, but for a text with a value beyond float16's range, which stays as it is.

To the last bit they depend on the shape of the products that made them. So texts are read in shapes that
follow from their own length alone: a run that goes on in another process reads the same numbers.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache

from weft import storage
from weft.data.batch import Tokens
from weft.models.packed import is_packed
from weft.storage.page_store import PageStore

READ_TOKENS = {"cpu": 256}  # of one read: where the measured rate stops rising
READ_TOKENS_ELSEWHERE = 8192  # not measured
LENGTHS = 8  # texts are padded to a multiple of this
PAGE_BYTES = 16 << 20  # of a page: what a kill may lose, and what leaves at once
KV, BYTES = "kv", 2  # name of a row in a page, and bytes of its numbers
PAGES = 16  # at least, in a budget
PROBE = tuple(range(3, 3 + LENGTHS))  # token ids; any will do


class _Read(NamedTuple):
    """A text that was read.

    Attributes:
        row: keys and values `[layers, 2, heads, S, head size]`.
        states: of the first layers `[S, D]`, the embeddings among them.
    """

    source: Tokens
    row: Tensor
    states: list[Tensor]


class TextCache:
    """Keys and values per text.

    Args:
        lm: the frozen causal model.
        max_bytes: of texts that are kept; one that does not fit is computed anew each time.
        folder: where pages of texts lie; none: in memory.
        warn: told when the disk fails, or a page is damaged.
        read_tokens: of one read, filled up where there is less; none: as many as the device reads best. Fewer
            are better where single texts come.
    """

    def __init__(
        self,
        lm: Any,
        max_bytes: int,
        folder: Path | None = None,
        warn: Callable[[str], None] = lambda text: None,
        *,
        read_tokens: int | None = None,
    ) -> None:
        self.lm, self.max_bytes, self.read_tokens = lm, max_bytes, read_tokens
        self.hits = self.misses = 0
        self.bare: Callable[[], AbstractContextManager[None]] = nullcontext  # takes off what a method added
        self._pages = PageStore(folder, max_bytes, warn)

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        return self._pages.bytes

    def prepare(self, sources: Iterable[Tokens]) -> None:
        """Read ahead what is not yet kept; what there is no room for is read when it is needed."""
        for _ in self._keep(self._read(self._missing(sources))):
            pass

    def states(self, sources: Iterable[Tokens], deepest: int) -> Iterator[tuple[Tokens, list[Tensor]]]:
        """Each different text with its hidden states `[S, D]`; kept on the way, as far as there is room.

        All texts are read, those that are kept too: so numbers do not depend on what was kept.

        Args:
            sources: the texts.
            deepest: the last layer that is asked for; 0: the embeddings.
        """
        every = dict.fromkeys(sources)
        missing = set(self._missing(every))
        for read in self._keep(self._read(every, deepest + 1), missing):
            yield read.source, read.states

    def _missing(self, sources: Iterable[Tokens]) -> list[Tokens]:
        """Different texts that are not kept, and for which there is room."""
        self._pages.refresh()
        missing: list[Tokens] = []
        room = self.max_bytes
        for source in dict.fromkeys(sources):
            room -= self._size(source)
            if room < 0:
                break
            if (key := self._key(source)) in self._pages:
                self._pages.touch(key)  # what is announced leaves last
            else:
                missing.append(source)
        return missing

    def gather(self, sources: Sequence[Tokens]) -> list[tuple[Tensor, Tensor]]:
        """Every layer's keys and values for a batch of texts, padded on the left with zeros.

        They have the model's number format, `[B, heads, S, head size]`.
        """
        rows = self._rows(sources)
        longest = max(row.shape[3] for row in rows)
        layers, _, heads, _, size = rows[0].shape
        out = torch.zeros(layers, 2, len(rows), heads, longest, size, dtype=self._dtype, device=self._device)
        for i, row in enumerate(rows):
            out[:, :, i, :, longest - row.shape[3] :] = row
        return [(layer[0], layer[1]) for layer in out]

    def _rows(self, sources: Sequence[Tokens]) -> list[Tensor]:
        wanted = dict.fromkeys(sources)
        if not all(self._key(source) in self._pages for source in wanted):
            self._pages.refresh()
        found = {source: row for source in wanted if (row := self._kept(source)) is not None}
        self.hits += len(found)
        missing = [source for source in wanted if source not in found]
        self.misses += len(missing)
        found.update((read.source, read.row) for read in self._keep(self._read(missing)))
        return [found[source] for source in sources]

    def _kept(self, source: Tokens) -> Tensor | None:
        entry = self._pages.get(self._key(source))
        return None if entry is None else entry[KV]

    def _keep(self, read: Iterable[_Read], wanted: Collection[Tokens] | None = None) -> Iterator[_Read]:
        """The same, which go to pages as these fill: all, or those that are wanted."""
        most = min(PAGE_BYTES, self.max_bytes // PAGES)
        page: dict[str, dict[str, Tensor]] = {}
        held = 0
        for one in read:
            if wanted is None or one.source in wanted:
                page[self._key(one.source)] = {KV: one.row}
                held += one.row.nbytes
            if held >= most:
                self._pages.put(page)
                page, held = {}, 0
            yield one
        self._pages.put(page)

    def _key(self, source: Tokens) -> str:
        """Names a text and all that its numbers depend on."""
        return hashlib.sha256(f"{self._maker} {source}".encode()).hexdigest()

    @cached_property
    def _maker(self) -> str:
        """Names what makes the numbers: settings, and what the model makes of one text, bit by bit.

        That text stands for the weights and for all that no setting names, such as the processor.
        """
        if self._pages.folder is None:
            return ""  # nobody else's texts are there
        probe = self._compute([PROBE], 1, len(PROBE))[0].row
        facts = {
            "versions": [torch.__version__, transformers.__version__],
            "attention": self.lm.config._attn_implementation,
            "packed": is_packed(self.lm),
            "dtype": str(self._dtype),
            "threads": [self._device.type, torch.get_num_threads()],
            "reads": [self._read_tokens, LENGTHS],
            "text": storage.sha256_bytes(probe.cpu().float().numpy().tobytes()),
        }
        return storage.sha256_json(facts)

    def _read(self, sources: Iterable[Tokens], layers: int = 0) -> Iterator[_Read]:
        """Texts with their rows and the states of so many layers, in reads of like length."""
        by_length: dict[int, list[Tokens]] = defaultdict(list)
        for source in sources:
            by_length[self._padded(len(source))].append(source)
        for length, texts in sorted(by_length.items()):
            rows = max(1, self._read_tokens // length)
            for start in range(0, len(texts), rows):
                part = texts[start : start + rows]
                for one in self._compute(part, rows, length, layers):
                    yield one._replace(row=self._rounded(one.row))

    def _padded(self, length: int) -> int:
        """The length at which a text is read: a multiple of eight, if the model has so many positions."""
        positions = getattr(self.lm.config, "max_position_embeddings", None) or length + LENGTHS
        return max(length, min(-(-length // LENGTHS) * LENGTHS, positions))

    @property
    def _read_tokens(self) -> int:
        return self.read_tokens or READ_TOKENS.get(self._device.type, READ_TOKENS_ELSEWHERE)

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.lm.get_input_embeddings().weight.dtype
        return dtype

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.lm.get_input_embeddings().weight.device
        return device

    @torch.no_grad()
    def _compute(self, sources: list[Tokens], rows: int, length: int, layers: int = 0) -> list[_Read]:
        """Read texts as `[rows, length]`, padded on the right: later positions do not touch earlier ones."""
        ids = torch.zeros(rows, length, dtype=torch.long)
        for i, source in enumerate(sources):
            ids[i, : len(source)] = torch.tensor(source)
        training = self.lm.training
        with self.bare(), torch.autocast(self._device.type, enabled=False):  # alike, whoever asks
            out = self.lm.eval().base_model(
                input_ids=ids.to(self._device),
                past_key_values=DynamicCache(),
                use_cache=True,
                output_hidden_states=layers > 0,
            )
        self.lm.train(training)
        states = (out.hidden_states or ())[:layers]
        kept = out.past_key_values.layers
        stacked = torch.stack([torch.stack([layer.keys, layer.values]) for layer in kept])
        return [
            _Read(one, stacked[:, :, i, :, : len(one)].clone(), [layer[i, : len(one)] for layer in states])
            for i, one in enumerate(sources)
        ]

    def _size(self, source: Tokens) -> int:
        """Bytes of a text's keys and values."""
        config = self.lm.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(config.num_hidden_layers * 2 * heads * size * BYTES) * len(source)

    def _rounded(self, row: Tensor) -> Tensor:
        """The nearest 16-bit numbers; the row itself, if it has values beyond their range."""
        if row.dtype == torch.bfloat16:
            return row
        half = row.half()
        return half if bool(half.isfinite().all()) else row
