"""Encoder-decoder models (T5 and kin): the prompt stands before the encoder's text, as in the paper."""

from collections.abc import Sequence
from typing import NamedTuple

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
    """What a context keeps: the encoder's states, and the decoder's cache, which holds their keys and values.

    Of rows that were joined, `read` says which of the decoder's positions count.
    """

    states: Float[Tensor, "B S D"]
    cache: EncoderDecoderCache | None = None
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
        states = self.lm.get_encoder()(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        return self._read(Context(mask, Memory(states)), mask.new_full((len(mask), 1), self.start_token))

    @torch.no_grad()
    def select(self, context: Context, rows: Sequence[int]) -> Context:
        """See `Backbone`."""
        states, cache, read = context.memory
        cache.batch_select_indices(torch.tensor(rows, device=self.device))
        return Context(context.mask[rows], Memory(states[rows], cache, None if read is None else read[rows]))

    @torch.no_grad()
    def step(self, context: Context, tokens: Sequence[int]) -> Context:
        """See `Backbone`."""
        return self._read(context, torch.tensor(tokens, device=self.device)[:, None])

    def _read(self, context: Context, tokens: Int[Tensor, "B N"]) -> Context:
        """The context after more tokens of its decoder; uses its cache up."""
        logits, memory = self._logits(context.mask, context.memory, tokens)
        return Context(context.mask, memory, logits[:, -1])

    def _logits(
        self, mask: Int[Tensor, "B S"], memory: Memory, tokens: Int[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B N V"], Memory]:
        """Logits behind more tokens of the decoder, and what is kept then; uses the cache up."""
        states, cache, read = memory
        if read is not None:
            read = torch.cat([read, read.new_ones(tokens.shape)], 1)
        out = self.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=tokens,
            decoder_attention_mask=read,
            past_key_values=cache,
            use_cache=True,
        )
        return out.logits, Memory(states, out.past_key_values, read)

    @torch.no_grad()
    def join(self, contexts: Sequence[Context]) -> Context:
        """See `Backbone`: texts are filled up on the right, what is written on the left.

        Of models whose positions are distances, so that neither moves anything.
        """
        longest = max(one.mask.shape[1] for one in contexts)
        reads = [_read_by(one) for one in contexts]
        most = max(one.shape[1] for one in reads)
        states = torch.cat([filled(one.memory.states, longest, 1) for one in contexts])
        read = torch.cat([filled(one, most, 1, left=True) for one in reads])
        caches = [one.memory.cache for one in contexts]
        cache = EncoderDecoderCache(
            _joined([one.self_attention_cache for one in caches], most, left=True),
            _joined([one.cross_attention_cache for one in caches], longest),
        )
        mask = torch.cat([filled(one.mask, longest, 1) for one in contexts])
        return Context(mask, Memory(states, cache, read), torch.cat([one.next for one in contexts]))

    @torch.no_grad()
    def after(self, context: Context, rows: Sequence[int], paths: Sequence[Tokens]) -> Float[Tensor, "N T V"]:
        """See `Backbone`; neither is the encoder run again, nor are its states mapped again."""
        states, cache, read = context.memory
        own = Memory(states[rows], _rows_of(cache, rows), None if read is None else read[rows])
        ids, _ = pad_rows(paths, self.tokenizer.pad_token_id, self.device)
        return self._logits(context.mask[rows], own, ids)[0]

    @torch.no_grad()
    def _score(self, context: Context, choices: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """Log-probability of every choice when only choices may be written (nats)."""
        tree = ChoiceTree.of(choices)
        later = [self._after(context, prefix) for prefix in tree.prefixes[1:]]
        return tree.log_probs([context.next, *later])

    def _after(self, context: Context, prefix: Tokens) -> Float[Tensor, "B V"]:
        """Next-token logits of every row after some tokens of an answer; the context stays as it was."""
        states, cache, read = context.memory
        apart = EncoderDecoderCache(DynamicCache(kv(cache.self_attention_cache)), cache.cross_attention_cache)
        ids = torch.tensor(prefix, device=self.device).expand(len(context.mask), -1)
        return self._read(Context(context.mask, Memory(states, apart, read)), ids).next

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


def _read_by(context: Context) -> Int[Tensor, "B T"]:
    """Which positions of the decoder count."""
    _, cache, read = context.memory
    return context.mask.new_ones(len(context.mask), cache.get_seq_length()) if read is None else read


def _joined(caches: Sequence[DynamicCache], length: int, *, left: bool = False) -> DynamicCache:
    """Keys and values of several batches as one, filled up with zeros."""
    return DynamicCache(joined([kv(one) for one in caches], length, left=left))


def _rows_of(cache: EncoderDecoderCache, rows: Sequence[int]) -> EncoderDecoderCache:
    """Keys and values of some rows; the cache stays as it was."""
    parts = (cache.self_attention_cache, cache.cross_attention_cache)
    return EncoderDecoderCache(*(DynamicCache([(k[rows], v[rows]) for k, v in kv(part)]) for part in parts))
