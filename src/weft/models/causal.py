"""Causal models (Llama, Qwen, GPT-2 and kin): the prompt stands before the text or after it.

`prefix`: `[prompt][text][answer]`. `suffix`: `[text][prompt][answer]`; there the text's keys and values
do not depend on the prompt, so they are computed once without gradient and kept in a `TextCache`.
Rows are padded between their parts and masked; positions count each row's own tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from weft.data.batch import IGNORE, Tokens
from weft.models.backbone import (
    Backbone,
    HiddenSpec,
    Opening,
    Outputs,
    States,
    TextState,
    pad_rows,
)
from weft.models.caches import KV, GrowingCache, Shared, filled, joined, kv, repeated
from weft.models.choice_tree import ChoiceTree
from weft.models.context import Context
from weft.models.packed_prompts import PackedPrompts, apart, at_once, hiding
from weft.models.text_cache import TextCache
from weft.models.tokenizer import answer_tokens


class _Read(NamedTuple):
    """What one pass gives: logits `[B, keep, V]`, the filled cache, hidden states if asked for."""

    logits: Tensor
    past_key_values: Any
    hidden_states: Any


class CausalBackbone(Backbone):
    """A decoder-only language model.

    Args:
        suffix: whether prompts stand after the text.
        texts: keys and values of texts, for suffix prompts; none: in memory, up to 2 GB.
    """

    def __init__(
        self, lm: Any, tokenizer: Any, *, suffix: bool, texts: TextCache | None = None, **kw: str
    ) -> None:
        super().__init__(lm, tokenizer, **kw)
        self.suffix = suffix
        self.texts = texts or TextCache(lm, 2 << 30)
        self.reads_bare = False

    @property
    def keeps_texts(self) -> bool:
        """Whether a text is read once and kept: prompts stand after it, and the weights it meets stay put."""
        return self.suffix and (self.frozen or self.reads_bare)

    @property
    def mixes_prompts(self) -> bool:
        """Positions count each row's own tokens."""
        return True

    def read_bare(self, bare: Callable[[], AbstractContextManager[None]]) -> None:
        """Read texts by the frozen weights alone, and keep them, although a method adds weights.

        Args:
            bare: a context in which the model runs without what was added.
        """
        self.reads_bare, self.texts.bare = True, bare

    def answer_tokens(self, answer: str) -> Tokens:
        """Token ids of an answer with its leading space, and the end token."""
        return answer_tokens(self.tokenizer, answer, spaced=True)

    def read(self, sources: Sequence[Tokens]) -> TextState:
        """Texts, padded on the left, so that what follows stands next to them."""
        flipped, mask = pad_rows([row[::-1] for row in sources], self.tokenizer.pad_token_id, self.device)
        return TextState(tuple(sources), flipped.flip(1), mask.flip(1))

    def text_states(self, state: TextState, deepest: int | None = None) -> tuple[Float[Tensor, "B S D"], ...]:
        """Hidden states of texts without a prompt, of the embeddings and of every layer."""
        positions = (state.mask.cumsum(1) - 1).clamp_min(0)
        return self._states(
            self.lm.base_model,
            deepest,
            inputs_embeds=self._text(state),
            attention_mask=state.mask,
            position_ids=positions,
            use_cache=False,
        )

    def prepare(self, sources: Iterable[Tokens]) -> None:
        """Read texts ahead, where they are kept: many at once cost half of what a few at a time do."""
        if self.keeps_texts:
            self.texts.prepare(sources)

    def prepare_states(
        self, sources: Iterable[Tokens], deepest: int
    ) -> Iterator[tuple[Tokens, list[Float[Tensor, "S D"]]]]:
        """See `Backbone`."""
        return self.texts.states(sources, deepest)

    def forward(
        self,
        state: TextState,
        prompts: Float[Tensor, "B P D"] | None,
        labels: Int[Tensor, "B T"],
        hidden: HiddenSpec | None = None,
    ) -> Outputs:
        """Logits of the labels; hidden states of the positions that are computed here."""
        embeds, mask, cache = self._join(state, prompts)
        fed = labels[:, :-1].clamp_min(0)  # the last target is predicted, never read
        embeds = torch.cat([embeds, self.embed(fed)], 1)
        mask = torch.cat([mask, (labels[:, :-1] != IGNORE).long()], 1)
        out = self._run(embeds, mask, cache, keep=labels.shape[1], output_hidden_states=hidden is not None)
        if hidden is None:
            return Outputs(out.logits)
        counted = self._counted(state, prompts, labels, hidden)
        return Outputs(out.logits, tuple(States(layer, counted) for layer in hidden.pick(out.hidden_states)))

    def answer_states(
        self, state: TextState, prompts: Float[Tensor, "K P D"], layers: Sequence[int]
    ) -> list[Float[Tensor, "B K D"]]:
        """See `Backbone`; no block behind the deepest layer is run, and prompts go together behind a text."""
        together = at_once(prompts.shape[1]) if self._cached(state, prompts) else 1
        found = [self._answer_states(state, part, layers) for part in torch.split(prompts, together)]
        return [torch.cat(layer, 1) for layer in zip(*found, strict=True)]

    def _answer_states(
        self, state: TextState, prompts: Float[Tensor, "K P D"], layers: Sequence[int]
    ) -> list[Float[Tensor, "B K D"]]:
        """Under prompts that are read in one pass."""
        length = prompts.shape[1]
        if len(prompts) > 1:
            inputs, ends = self._side_by_side(state, prompts), slice(length - 1, None, length)
        else:
            inputs, ends = self._inputs(*self._join(state, self.for_all(prompts[0], state))), slice(-1, None)
        states = self._states(self.lm.base_model, max(layers), **inputs)
        return [states[layer][:, ends] for layer in layers]

    def _side_by_side(self, state: TextState, prompts: Float[Tensor, "K P D"]) -> dict[str, Any]:
        """What the blocks are given of prompts behind each kept text: each sees the text and itself."""
        count, length, _ = prompts.shape
        own = apart(count, length, self.device).expand(len(state.ids), -1, -1)
        text = state.mask.bool()[:, None].expand(-1, count * length, -1)
        places = torch.arange(length, device=self.device).repeat(count)
        return {
            "inputs_embeds": self.for_all(prompts.flatten(0, 1).to(self.embeddings.dtype), state),
            "attention_mask": hiding(torch.cat([text, own], 2), self.embeddings.dtype),
            "position_ids": state.mask.sum(1, keepdim=True) + places,
            "past_key_values": self._kept(state),
            "use_cache": True,
        }

    @torch.no_grad()
    def begin(self, state: TextState, prompts: Float[Tensor, "B P D"] | None) -> Context:
        """Read prompts (and texts, where they are not cached) and predict the first token."""
        embeds, mask, cache = self._join(state, prompts)
        out = self._run(embeds, mask, GrowingCache(() if cache is None else kv(cache)), keep=1)
        return Context(mask, out.past_key_values, out.logits[:, -1])

    @torch.no_grad()
    def begin_together(
        self, source: Tokens, prompts: Float[Tensor, "B P D"], counted: Int[Tensor, "B P"]
    ) -> Context:
        """As `begin`, of one text under many prompts that stand after it: the text is there once.

        Several prompts stand behind it in one row of the model, and see the text and themselves alone.

        Args:
            source: the text.
            prompts: one for each answer.
            counted: which of their vectors count.
        """
        text = self.texts.gather([source])
        rows = PackedPrompts(len(source), counted)
        out = self.lm.base_model(
            inputs_embeds=rows.packed(prompts.to(self.embeddings.dtype)),
            attention_mask=rows.mask(self.embeddings.dtype),
            position_ids=rows.positions,
            past_key_values=GrowingCache(repeated(text, rows.count)),
            use_cache=True,
        )
        own = [(rows.unpacked(keys), rows.unpacked(values)) for keys, values in kv(out.past_key_values)]
        last = rows.last(out.last_hidden_state)
        ones = counted.new_ones(len(counted), len(source))
        return Context(
            torch.cat([ones, counted], 1), Shared(text, own), self.lm.get_output_embeddings()(last)
        )

    @torch.no_grad()
    def open(self, tokens: Tokens) -> Opening:
        """The keys and values of what several inputs begin with."""
        if not tokens:
            return Opening(tokens, [])
        state = self.read([tokens])
        read = self._run(self._text(state), state.mask, DynamicCache(), keep=1)
        return Opening(tokens, kv(read.past_key_values))

    @torch.no_grad()
    def begin_after(self, opening: Opening, sources: Sequence[Tokens]) -> Context:
        """As `begin`, of texts that go on from an opening, which is not read again."""
        state = self.read(sources)
        rows = len(state.ids)
        kept = repeated(opening.memory, rows)
        return self.begin_behind(kept, state.mask.new_ones(rows, len(opening.tokens)), state)

    @torch.no_grad()
    def begin_behind(self, kept: KV, counted: Int[Tensor, "B P"], state: TextState) -> Context:
        """As `begin`, of texts behind what was read before, such as prompts.

        Args:
            kept: keys and values of each row's beginning.
            counted: which of their positions count.
            state: the texts.
        """
        mask = torch.cat([counted, state.mask], 1)
        out = self._run(self._text(state), mask, GrowingCache(kept), keep=1)
        return Context(mask, out.past_key_values, out.logits[:, -1])

    @torch.no_grad()
    def read_prompt(self, prompt: Float[Tensor, "P D"]) -> KV:
        """Keys and values of a prompt that stands before all else, read alone."""
        whole = prompt[None].to(self.embeddings.dtype)
        mask = torch.ones(whole.shape[:2], dtype=torch.long, device=self.device)
        return kv(self._run(whole, mask, DynamicCache(), keep=1).past_key_values)

    @torch.no_grad()
    def select(self, context: Context, rows: Sequence[int]) -> Context:
        """See `Backbone`."""
        if isinstance(context.memory, Shared):
            return Context(context.mask[rows], context.memory.rows(rows))
        context.memory.batch_select_indices(torch.tensor(rows, device=self.device))
        return Context(context.mask[rows], context.memory)

    @torch.no_grad()
    def step(self, context: Context, tokens: Sequence[int]) -> Context:
        """See `Backbone`."""
        last = torch.tensor(tokens, device=self.device)[:, None]
        mask = torch.cat([context.mask, context.mask.new_ones(last.shape)], 1)
        out = self._run(self.embed(last), mask, _apart(context.memory), keep=1)
        return Context(mask, out.past_key_values, out.logits[:, -1])

    @torch.no_grad()
    def join(self, contexts: Sequence[Context]) -> Context:
        """See `Backbone`: filled up on the left, where what is masked moves no position."""
        longest = max(one.mask.shape[1] for one in contexts)
        mask = torch.cat([filled(one.mask, longest, 1, left=True) for one in contexts])
        cache = GrowingCache(joined([kv(_apart(one.memory)) for one in contexts], longest, left=True))
        return Context(mask, cache, torch.cat([one.next for one in contexts]))

    @torch.no_grad()
    def after(self, context: Context, rows: Sequence[int], paths: Sequence[Tokens]) -> Float[Tensor, "N T V"]:
        """See `Backbone`."""
        ids, counted = pad_rows(paths, self.tokenizer.pad_token_id, self.device)
        if isinstance(context.memory, Shared):
            cache = context.memory.rows(rows)
        else:
            cache = GrowingCache([(k[rows], v[rows]) for k, v in kv(context.memory)])
        mask = torch.cat([context.mask[rows], counted], 1)
        return self._run(self.embed(ids), mask, cache, keep=ids.shape[1]).logits

    @torch.no_grad()
    def _score(self, context: Context, choices: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """Log-probability of every choice when only choices may be written (nats)."""
        tree = ChoiceTree.of(choices)
        later = [self._after(context, prefix) for prefix in tree.prefixes[1:]]
        return tree.log_probs([context.next, *later])

    def _after(self, context: Context, prefix: Tokens) -> Float[Tensor, "B V"]:
        """Next-token logits of every row after some tokens of an answer; the context stays as it was."""
        cache = DynamicCache(kv(context.memory))
        ids = torch.tensor(prefix, device=self.device).expand(len(context.mask), -1)
        mask = torch.cat([context.mask, context.mask.new_ones(ids.shape)], 1)
        return self._run(self.embed(ids), mask, cache, keep=1).logits[:, -1]

    def _text(self, state: TextState) -> Tensor:
        return self.embed(state.ids) if state.embeds is None else state.embeds

    def _cached(self, state: TextState, prompts: Tensor | None) -> bool:
        """Whether texts come from the cache: a prompt follows, and neither weights nor embeddings change."""
        return self.keeps_texts and prompts is not None and state.embeds is None

    def _join(self, state: TextState, prompts: Tensor | None) -> tuple[Tensor, Tensor, DynamicCache | None]:
        """What is still to be read, the mask over all positions, and the cache of those read before."""
        if prompts is None:
            return self._text(state), state.mask, None
        prompt = prompts.to(self.embeddings.dtype)
        ones = state.mask_of(prompts)
        if self._cached(state, prompts):
            return prompt, torch.cat([state.mask, ones], 1), self._kept(state)
        parts = [(self._text(state), state.mask), (prompt, ones)]
        if not self.suffix:
            parts.reverse()
        return torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts], 1), None

    def _kept(self, state: TextState) -> DynamicCache:
        """What was read of texts, as a cache that grows apart from it."""
        if state.memory is None:
            state.memory = self.texts.gather(state.sources)
        return DynamicCache(state.memory)

    def _run(
        self, embeds: Tensor, mask: Tensor, cache: DynamicCache | None, *, keep: int, **kw: Any
    ) -> _Read:
        """One pass over new positions, of which the last `keep` give logits."""
        out = self.lm.base_model(**self._inputs(embeds, mask, cache), **kw)
        last = out.last_hidden_state[:, -keep:]
        flat = self.lm.get_output_embeddings()(last.flatten(0, 1))  # flat: a 3-d product is 5 times slower
        return _Read(flat.view(*last.shape[:2], -1), out.past_key_values, out.hidden_states)

    @staticmethod
    def _inputs(embeds: Tensor, mask: Tensor, cache: DynamicCache | None) -> dict[str, Any]:
        """What the blocks are given of new positions."""
        return {
            "inputs_embeds": embeds,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp_min(0)[:, -embeds.shape[1] :],
            "past_key_values": cache,
            "use_cache": cache is not None,
        }

    def _counted(
        self, state: TextState, prompts: Tensor | None, labels: Int[Tensor, "B T"], hidden: HiddenSpec
    ) -> Bool[Tensor, "B N"]:
        """Positions that predict a target, and those of the text where they are computed here."""
        targets = labels != IGNORE  # position j of the last T predicts label j
        parts = [] if self._cached(state, prompts) else [state.mask.bool()]
        if prompts is not None:
            prompt = state.mask_of(prompts).bool() & hidden.prompt_positions
            parts.insert(len(parts) if self.suffix else 0, prompt)
        before = torch.cat(parts, 1)
        return torch.cat([before[:, :-1], before[:, -1:] | targets[:, :1], targets[:, 1:]], 1)


def _apart(memory: Any) -> Any:
    """A cache of which each row has its own text."""
    return memory.rows(slice(None)) if isinstance(memory, Shared) else memory
