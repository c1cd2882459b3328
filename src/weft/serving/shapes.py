"""The shape of a batch: as its rows are, or fixed, so that no number depends on what else is asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from weft.data.batch import Tokens
from weft.models import Backbone, TextState
from weft.models.caches import KV, PLACES, filled
from weft.models.decoding import Beams
from weft.serving.batches import rung
from weft.serving.rows import Row
from weft.serving.settings import EngineSettings


def padded(row: Row, backbone: Backbone) -> tuple[int, int]:
    """Prompt and text of a row in a fixed shape; where padding would move positions, a prompt has none."""
    prompt = rung(row.prompt_length) if backbone.mixes_prompts else row.prompt_length
    return prompt, rung(len(row.source))


@dataclass(frozen=True)
class Shape:
    """Rows, prompt and text of a batch, at least.

    Rows that fill it up have a text of one token that counts, and no prompt.
    """

    rows: int = 0
    prompt: int = 0
    text: int = 0

    @classmethod
    def of(cls, rows: Sequence[Row], settings: EngineSettings, backbone: Backbone) -> "Shape":
        """The shape that rows are read in, which are of one kind. Beams are read alone."""
        if not settings.fixed:
            return cls()
        prompt, text = padded(rows[0], backbone)
        count = 1 if isinstance(rows[0].writing, Beams) else settings.rows
        return cls(count, prompt, min(text, backbone.positions or text))

    def state(self, backbone: Backbone, sources: Sequence[Tokens]) -> TextState:
        """Texts, and those that fill up."""
        missing = max(0, self.rows - len(sources))
        if not missing:
            return backbone.read(sources)
        filler = (backbone.tokenizer.pad_token_id,) * self.text
        state = backbone.read([*sources, *[filler] * missing])
        state.mask[len(sources) :, :-1] = 0
        return state

    def prompts(self, prompts: Tensor) -> Tensor:
        """Prompts of all rows."""
        return self._rows(filled(prompts, max(self.prompt, prompts.shape[1]), 1, left=True))

    def mask(self, mask: Tensor) -> Tensor:
        """Which of their vectors count."""
        return self.prompts(mask)

    def kept(self, kept: KV) -> KV:
        """Keys and values of prompts of all rows."""
        length = max(self.prompt, kept[0][0].shape[PLACES])
        return [(self._there(keys, length), self._there(values, length)) for keys, values in kept]

    def _there(self, part: Tensor, length: int) -> Tensor:
        return self._rows(filled(part, length, PLACES, left=True))

    def _rows(self, part: Tensor) -> Tensor:
        return filled(part, max(self.rows, len(part)), 0)
