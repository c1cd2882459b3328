"""Encoders without a decoder (BERT and kin, sentence encoders): they read texts, and write nothing.

What asks for their hidden states works with them: features of texts, and the readers that are fitted on
those. Answers by words need a language model.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

from jaxtyping import Float, Int
from torch import Tensor

from weft.data.batch import Tokens
from weft.errors import UnsupportedError
from weft.models.backbone import Backbone, HiddenSpec, Outputs, TextState, pad_rows
from weft.models.base_folder import encoder_positions
from weft.models.context import Context


class EncoderBackbone(Backbone):
    """A frozen encoder: the half of a backbone that reads."""

    only_reads = True

    @property
    def positions(self) -> int:
        """Longest input."""
        return encoder_positions(self.lm.config.to_dict())

    def read(self, sources: Sequence[Tokens]) -> TextState:
        """Texts, padded on the right."""
        ids, mask = pad_rows(sources, self.tokenizer.pad_token_id, self.device)
        return TextState(tuple(sources), ids, mask)

    def text_states(self, state: TextState, deepest: int | None = None) -> tuple[Float[Tensor, "B S D"], ...]:
        """Hidden states of texts, of the embeddings and of every layer."""
        return self._states(self.lm, deepest, input_ids=state.ids, attention_mask=state.mask)

    def _refuse(self) -> NoReturn:
        raise UnsupportedError(
            f"{self.name!r} is an encoder: it reads texts and writes no answers",
            where="base.model",
            fix="use a method that only reads (frozen_features, weft), or a language model",
            code="C08",
        )

    def answer_tokens(self, answer: str) -> Tokens:
        """Refused: see `_refuse`."""
        self._refuse()

    def forward(
        self,
        state: TextState,
        prompts: Float[Tensor, "B P D"] | None,
        labels: Int[Tensor, "B T"],
        hidden: HiddenSpec | None = None,
    ) -> Outputs:
        """Refused: see `_refuse`."""
        self._refuse()

    def begin(self, state: TextState, prompts: Float[Tensor, "B P D"] | None) -> Context:
        """Refused: see `_refuse`."""
        self._refuse()

    def select(self, context: Context, rows: Sequence[int]) -> Context:
        """Refused: see `_refuse`."""
        self._refuse()

    def step(self, context: Context, tokens: Sequence[int]) -> Context:
        """Refused: see `_refuse`."""
        self._refuse()

    def after(self, context: Context, rows: Sequence[int], paths: Sequence[Tokens]) -> Float[Tensor, "N T V"]:
        """Refused: see `_refuse`."""
        self._refuse()

    def _score(self, context: Any, choices: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        self._refuse()
