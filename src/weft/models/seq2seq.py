"""Encoder-decoder models (T5 and kin): the prompt stands before the encoder's text, as in the paper."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from weft.data.batch import IGNORE, Tokens
from weft.models.backbone import (
    Backbone,
    Context,
    HiddenSpec,
    Outputs,
    States,
    TextState,
    pad_rows,
)
from weft.models.choice_tree import ChoiceTree
from weft.models.tokenizer import answer_tokens


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
        return Context(mask, memory, self._after(memory, mask, ()))

    @torch.no_grad()
    def _generate(self, context: Context, max_tokens: int) -> list[Tokens]:
        """Greedy answers, cut at the end token."""
        if context.logits is None:
            raise ValueError("the context has no first prediction")
        end, first = self.tokenizer.eos_token_id, context.logits.argmax(-1)
        ids = first.new_full((len(first), max_tokens), end)
        ids[:, 0] = first
        live = (first != end).nonzero()[:, 0]  # rows that write on
        if max_tokens > 1 and len(live):
            more = self._write_on(context.memory[live], context.mask[live], first[live], max_tokens - 1)
            ids[live, 1 : 1 + more.shape[1]] = more
        return [tuple(row[: row.index(end)] if end in row else row) for row in ids.tolist()]

    def _write_on(self, memory: Tensor, mask: Tensor, first: Tensor, most: int) -> Int[Tensor, "B T"]:
        """At most so many tokens that follow the first; what follows an end token means nothing.

        The library's `generate` would obey the base's own generation settings, such as penalties, as well.
        """
        written: list[Tensor] = []
        ended, cache = torch.zeros_like(first, dtype=torch.bool), None
        read = torch.stack([torch.full_like(first, self._start), first], 1)
        while len(written) < most and not bool(ended.all()):
            out = self.lm(
                encoder_outputs=BaseModelOutput(last_hidden_state=memory),
                attention_mask=mask,
                decoder_input_ids=read,
                past_key_values=cache,
                use_cache=True,
            )
            cache, last = out.past_key_values, out.logits[:, -1].argmax(-1)
            ended |= last == self.tokenizer.eos_token_id
            written.append(last)
            read = last[:, None]
        return torch.stack(written, 1)

    @torch.no_grad()
    def _score(self, context: Context, choices: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """Log-probability of every choice when only choices may be written (nats)."""
        if context.logits is None:
            raise ValueError("the context has no first prediction")
        tree = ChoiceTree.of(choices)
        later = [self._after(context.memory, context.mask, prefix) for prefix in tree.prefixes[1:]]
        return tree.log_probs([context.logits, *later])

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
