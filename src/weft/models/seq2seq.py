"""Encoder-decoder models (T5 and kin): the prompt stands before the encoder's text, as in the paper."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
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
from weft.models.caches import filled, joined, kv
from weft.models.choice_tree import ChoiceTree
from weft.models.context import Context
from weft.models.language_model import start_token
from weft.models.tokenizer import answer_tokens


class Memory(NamedTuple):
    """What a context keeps: the encoder's states, and the decoder's cache once it has read a token.

    Of rows that were joined, `read` says which of the decoder's positions count.
    """

    states: Float[Tensor, "B S D"]
    cache: Any = None
    read: Int[Tensor, "B T"] | None = None


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
        states, cache, read = context.memory
        if cache is not None:
            cache.batch_select_indices(torch.tensor(rows, device=self.device))
        return Context(context.mask[rows], Memory(states[rows], cache, None if read is None else read[rows]))

    @torch.no_grad()
    def step(self, context: Context, tokens: Sequence[int]) -> Context:
        """See `Backbone`; the start token is read with the first one."""
        states, cache, read = context.memory
        new = torch.tensor(tokens, device=self.device)[:, None]
        if cache is None:
            new = torch.cat([torch.full_like(new, self.start_token), new], 1)
        if read is not None:
            read = torch.cat([read, read.new_ones(new.shape)], 1)
        out = self._decode(context, new, cache, read)
        return Context(context.mask, Memory(states, out.past_key_values, read), out.logits[:, -1])

    def _decode(self, context: Context, tokens: Tensor, cache: Any, read: Tensor | None) -> Any:
        """The decoder on more tokens."""
        return self.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=context.memory.states),
            attention_mask=context.mask,
            decoder_input_ids=tokens,
            decoder_attention_mask=read,
            past_key_values=cache,
            use_cache=True,
        )

    @torch.no_grad()
    def join(self, contexts: Sequence[Context]) -> Context:
        """See `Backbone`: texts are filled up on the right, what is written on the left.

        Of models whose positions are distances, so that neither moves anything.
        """
        opened = [self._opened(one) for one in contexts]
        longest = max(one.mask.shape[1] for one in opened)
        memories = [one.memory for one in opened]
        most = max(one.read.shape[1] for one in memories)
        states = torch.cat([filled(one.states, longest, 1) for one in memories])
        read = torch.cat([filled(one.read, most, 1, left=True) for one in memories])
        caches = [one.cache for one in memories]
        cache = EncoderDecoderCache(
            _joined([one.self_attention_cache for one in caches], most, left=True),
            _joined([one.cross_attention_cache for one in caches], longest),
        )
        mask = torch.cat([filled(one.mask, longest, 1) for one in opened])
        return Context(mask, Memory(states, cache, read), torch.cat([one.next for one in opened]))

    def _opened(self, context: Context) -> Context:
        """The same context, its start token read."""
        states, cache, read = context.memory
        if cache is None:
            start = context.mask.new_full((len(context.mask), 1), self.start_token)
            cache = self._decode(context, start, None, None).past_key_values
        if read is None:
            read = context.mask.new_ones(len(context.mask), cache.get_seq_length())
        return Context(context.mask, Memory(states, cache, read), context.next)

    @torch.no_grad()
    def after(self, context: Context, rows: Sequence[int], paths: Sequence[Tokens]) -> Float[Tensor, "N T V"]:
        """See `Backbone`; the encoder is not run again."""
        ids, _ = pad_rows(
            [(self.start_token, *path) for path in paths], self.tokenizer.pad_token_id, self.device
        )
        out = self.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=context.memory.states[rows]),
            attention_mask=context.mask[rows],
            decoder_input_ids=ids,
            use_cache=False,
        )
        logits: Tensor = out.logits[:, 1:]
        return logits

    @torch.no_grad()
    def _score(self, context: Context, choices: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """Log-probability of every choice when only choices may be written (nats)."""
        tree = ChoiceTree.of(choices)
        states = context.memory.states
        later = [self._after(states, context.mask, prefix) for prefix in tree.prefixes[1:]]
        return tree.log_probs([context.next, *later])

    def _after(self, memory: Tensor, mask: Tensor, prefix: Tokens) -> Float[Tensor, "B V"]:
        """Next-token logits of every row after some tokens of an answer; the encoder is not run again."""
        read = torch.tensor([self.start_token, *prefix], device=self.device).expand(len(mask), -1)
        out = self.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            attention_mask=mask,
            decoder_input_ids=read,
            use_cache=False,
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    @property
    def start_token(self) -> int:
        """What the decoder reads first."""
        return int(start_token(self.lm.config) or 0)

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
        start = labels.new_full((len(labels), 1), self.start_token)
        shifted = torch.cat([start, labels[:, :-1]], 1)
        return shifted.masked_fill(shifted == IGNORE, self.tokenizer.pad_token_id)


def _joined(caches: Sequence[DynamicCache], length: int, *, left: bool = False) -> DynamicCache:
    """Keys and values of several batches as one, filled up with zeros."""
    return DynamicCache(joined([kv(one) for one in caches], length, left=left))
