"""Encoder-decoder models (T5 and kin): the prompt stands before the encoder's text, as in the paper."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from weft.data.batch import IGNORE, Tokens
from weft.models.backbone import (
    Backbone,
    HiddenSpec,
    Outputs,
    States,
    TextState,
    pad_rows,
)
from weft.models.choice_tree import ChoiceTree
from weft.models.context import Context
from weft.models.tokenizer import answer_tokens


class Memory(NamedTuple):
    """What a context keeps: the encoder's states, and the decoder's cache once it has read a token."""

    states: Float[Tensor, "B S D"]
    cache: Any = None


class Seq2SeqBackbone(Backbone):
    """An encoder-decoder language model."""

    def answer_tokens(self, answer: str) -> Tokens:
        """Token ids of an answer, with the end token."""
        return answer_tokens(self.tokenizer, answer, spaced=False)

    def read(self, sources: Sequence[Tokens]) -> TextState:
        """Texts, padded on the right. Nothing is kept of them: the encoder mixes prompt and text."""
        ids, mask = pad_rows(sources, self.tokenizer.pad_token_id, self.device)
        return TextState(tuple(sources), ids, mask)

    def text_states(self, state: TextState, deepest: int | None = None) -> tuple[Float[Tensor, "B S D"], ...]:
        """Hidden states of texts without a prompt in the encoder, of the embeddings and of every layer."""
        embeds, mask = self._join(state, None)
        return self._states(self.lm.get_encoder(), deepest, inputs_embeds=embeds, attention_mask=mask)

    def forward(
        self,
        state: TextState,
        prompts: Float[Tensor, "B P D"] | None,
        labels: Int[Tensor, "B T"],
        hidden: HiddenSpec | None = None,
    ) -> Outputs:
        """Logits of the labels; hidden states of the encoder (text positions) and decoder (targets)."""
        embeds, mask = self._join(state, prompts)
        out = self.lm(
            inputs_embeds=embeds,
            attention_mask=mask,
            decoder_input_ids=self._shift_right(labels),
            output_hidden_states=hidden is not None,
            use_cache=False,
        )
        if hidden is None:
            return Outputs(out.logits)
        counted = self._counted(state, prompts, hidden)
        states = [States(layer, counted) for layer in hidden.pick(out.encoder_hidden_states)]
        states += [States(layer, labels != IGNORE) for layer in hidden.pick(out.decoder_hidden_states)]
        return Outputs(out.logits, tuple(states))

    @torch.no_grad()
    def begin(self, state: TextState, prompts: Float[Tensor, "B P D"] | None) -> Context:
        """Encode texts and prompts once, and predict the first token."""
        embeds, mask = self._join(state, prompts)
        memory = self.lm.get_encoder()(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        return Context(mask, Memory(memory), self._after(memory, mask, ()))

    @torch.no_grad()
    def select(self, context: Context, rows: Sequence[int]) -> Context:
        """See `Backbone`."""
        states, cache = context.memory
        if cache is not None:
            cache.batch_select_indices(torch.tensor(rows, device=self.device))
        return Context(context.mask[rows], Memory(states[rows], cache))

    @torch.no_grad()
    def step(self, context: Context, tokens: Sequence[int]) -> Context:
        """See `Backbone`; the start token is read with the first one."""
        states, cache = context.memory
        read = torch.tensor(tokens, device=self.device)[:, None]
        if cache is None:
            read = torch.cat([torch.full_like(read, self._start), read], 1)
        out = self.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=context.mask,
            decoder_input_ids=read,
            past_key_values=cache,
            use_cache=True,
        )
        return Context(context.mask, Memory(states, out.past_key_values), out.logits[:, -1])

    @torch.no_grad()
    def _score(self, context: Context, choices: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """Log-probability of every choice when only choices may be written (nats)."""
        tree = ChoiceTree.of(choices)
        states = context.memory.states
        later = [self._after(states, context.mask, prefix) for prefix in tree.prefixes[1:]]
        return tree.log_probs([context.next, *later])

    def _after(self, memory: Tensor, mask: Tensor, prefix: Tokens) -> Float[Tensor, "B V"]:
        """Next-token logits of every row after some tokens of an answer; the encoder is not run again."""
        read = torch.tensor([self._start, *prefix], device=self.device).expand(len(mask), -1)
        out = self.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            attention_mask=mask,
            decoder_input_ids=read,
            use_cache=False,
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    @property
    def _start(self) -> int:
        return int(self.lm.config.decoder_start_token_id)

    def _join(self, state: TextState, prompts: Tensor | None) -> tuple[Tensor, Tensor]:
        """`[prompt][text]` as embeddings `[B, P+S, D]` and mask `[B, P+S]`."""
        embeds = self.embed(state.ids) if state.embeds is None else state.embeds
        if prompts is None:
            return embeds, state.mask
        mask = torch.cat([state.mask_of(prompts), state.mask], 1)
        return torch.cat([prompts.to(embeds.dtype), embeds], 1), mask

    def _counted(self, state: TextState, prompts: Tensor | None, hidden: HiddenSpec) -> Bool[Tensor, "B N"]:
        text = state.mask.bool()
        if prompts is None:
            return text
        return torch.cat([state.mask_of(prompts).bool() & hidden.prompt_positions, text], 1)

    def _shift_right(self, labels: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """What the decoder reads: the start token, then the labels but the last."""
        start = labels.new_full((len(labels), 1), self._start)
        shifted = torch.cat([start, labels[:, :-1]], 1)
        return shifted.masked_fill(shifted == IGNORE, self.tokenizer.pad_token_id)
