"""What a backbone is: a frozen language model that reads texts under prompts, whatever its family.

read(sources) -> TextState                   texts, made once and used with any number of prompts
forward(state, prompts, labels) -> Outputs   training: logits at target positions, hidden states
begin(state, prompts) -> Context             inference: text and prompt read, ready to answer
generate(context, n) / score(context, choices)
select(context, rows), step(context, tokens): what `generate` is made of
join(contexts): rows of several batches go on together
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, autocast, nn

from weft.config.decoding import GREEDY, Decoding
from weft.data.batch import Encoded, Tokens
from weft.errors import DataError
from weft.models.base_folder import rope_limit
from weft.models.codec import TokenizerCodec
from weft.models.context import Context
from weft.models.decoding import decode
from weft.models.early_states import early_states
from weft.models.kept_readings import KeptReadings
from weft.models.quantised import numbers_of
from weft.models.sharding import own_part
from weft.models.tokenizer import textless_ids
from weft.models.windows import open_windows, window_of

WRITERS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers")  # names of a decoder's depth


@dataclass(frozen=True)
class HiddenSpec:
    """Which hidden states a forward pass returns.

    Attributes:
        layers: `last`, `all`, or numbers that count from 0.
        prompt_positions: whether prompt positions count.
    """

    layers: str | tuple[int, ...] = "last"
    prompt_positions: bool = False

    def pick(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The chosen ones of a model's hidden states, of which the first is the embedding layer's.

        Raises:
            ValueError: for a layer that the model does not have.
        """
        layers = list(states[1:])
        if self.layers == "last":
            return layers[-1:]
        if self.layers == "all":
            return layers
        numbers = [int(number) for number in self.layers]
        wrong = [number for number in numbers if not 0 <= number < len(layers)]
        if wrong:
            raise ValueError(f"layer {wrong[0]} does not exist; the model has layers 0 to {len(layers) - 1}")
        return [layers[number] for number in numbers]


@dataclass(frozen=True)
class States:
    """One layer's hidden states `[B, N, D]` and the positions that count `[B, N]`."""

    hidden: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"]


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gives: logits aligned with the labels, and hidden states if asked for."""

    logits: Float[Tensor, "B T V"]
    states: tuple[States, ...] = ()


@dataclass
class TextState:
    """Texts as a model reads them.

    Attributes:
        embeds: what is read instead of the tokens' embeddings, where a method changes them.
        prompt_mask: which tokens of each row's prompt count, where prompts have unlike lengths; none: all.
        memory: what a family computes once and keeps.
    """

    sources: tuple[Tokens, ...]
    ids: Int[Tensor, "B S"]
    mask: Int[Tensor, "B S"]
    embeds: Float[Tensor, "B S D"] | None = None
    prompt_mask: Int[Tensor, "B P"] | None = None
    memory: Any = field(default=None)

    def mask_of(self, prompts: Float[Tensor, "B P D"]) -> Int[Tensor, "B P"]:
        """Which tokens of the rows' prompts count."""
        return self.mask.new_ones(prompts.shape[:2]) if self.prompt_mask is None else self.prompt_mask


@dataclass(frozen=True)
class Opening:
    """Tokens that several inputs begin with, and what a family keeps of having read them."""

    tokens: Tokens
    memory: Any = None


class Backbone(nn.Module, ABC):
    """A frozen language model with its tokenizer.

    Args:
        lm: a transformers model; its parameters are frozen here and stay so, but for full fine-tuning.
        tokenizer: its tokenizer.
        name: what was asked for (`smollm2`, a folder, a hub id).
        base_hash: SHA-256 of the weights and tokenizer files.

    Attributes:
        kept: readings of texts that need not be made again; none are kept unless room is given.
        rounds: whether products are computed in bfloat16, of weights that keep their own format.
        sharded: whether its layers are spread over processes, which must then run it equally often.
    """

    only_reads = False  # whether it writes no answers

    def __init__(self, lm: Any, tokenizer: Any, *, name: str = "", base_hash: str = "") -> None:
        super().__init__()
        self.lm, self.tokenizer = lm, tokenizer
        self.name, self.base_hash = name, base_hash
        self.frozen, self.rounds, self.sharded = True, False, False
        self.kept = KeptReadings()
        lm.requires_grad_(False)
        lm.eval()
        open_windows(lm)

    @property
    def width(self) -> int:
        """D, the size of an embedding."""
        return int(self.embeddings.shape[1])

    @property
    def embeddings(self) -> Float[Tensor, "V D"]:
        """The input embedding matrix."""
        weight: Tensor = self.lm.get_input_embeddings().weight
        return weight

    @cached_property
    def scale(self) -> float:
        """Root mean square of tokens' embeddings, the natural size of a prompt's entries."""
        return self.embed_scale * float(self.embeddings.detach().float().pow(2).mean().sqrt())

    @property
    def embed_scale(self) -> float:
        """What the embedding layer multiplies its matrix by, as Gemma's does."""
        return float(getattr(self.lm.get_input_embeddings(), "embed_scale", None) or 1.0)

    @property
    def depths(self) -> list[int]:
        """Blocks of each stack that a text goes through: one, or an encoder's and a decoder's."""
        config = self.lm.config
        if not config.is_encoder_decoder:
            return [int(config.num_hidden_layers)]
        reader, writer = getattr(config, "encoder", config), getattr(config, "decoder", config)
        return [
            int(reader.num_hidden_layers),
            int(next(filter(None, (getattr(writer, name, None) for name in WRITERS)))),
        ]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.embeddings.device

    @cached_property
    def positions(self) -> int | None:
        """Longest input that is read alike in any batch; none where positions are relative, as in T5."""
        reader = getattr(self.lm.config, "encoder", self.lm.config)
        whole = (rope_limit(reader.to_dict()), window_of(self.lm.config.to_dict()))
        ends = (getattr(reader, "max_position_embeddings", None), *whole)
        return min((int(end) for end in ends if end is not None), default=None)

    def most_tokens(self, limit: int) -> int:
        """Tokens of the longest text: the limit, or fewer where the model has fewer positions."""
        around = self.codec.whole(0)
        return min(limit, self.positions - around if self.positions else limit)

    @property
    def mixes_prompts(self) -> bool:
        """Whether prompts of unlike length share batches: filled up on the left, they move no position."""
        return self.positions is None

    @property
    def special_ids(self) -> set[int]:
        """Token ids that are no text; see `textless_ids`."""
        return textless_ids(self.tokenizer, len(self.embeddings))

    @property
    def keeps_texts(self) -> bool:
        """Whether a text is read once and kept, for any prompt."""
        return False

    def weights_hash(self) -> str:
        """SHA-256 of every parameter's bytes; the same before and after any stage but full fine-tuning.

        Of layers that are spread over processes, the part in this one counts.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.lm.named_parameters()):
            digest.update(name.encode())
            for part in numbers_of(own_part(value.detach())):
                digest.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @contextmanager
    def mode(self, *, dropout: bool) -> Iterator[None]:
        """Run with dropout on or off, which is put back afterwards, and with the chosen products."""
        before = self.lm.training
        if before != dropout:  # asked at every step, and to tell all parts of a model takes a while
            self.lm.train(dropout)
        try:
            with autocast(self.device.type, torch.bfloat16) if self.rounds else nullcontext():
                yield
        finally:
            if before != dropout:
                self.lm.train(before)

    def text_tokens(self, text: str, limit: int | None = None) -> tuple[Tokens, bool]:
        """Token ids of a text, and whether it was cut to `limit`, which counts no chat template around it.

        Raises:
            DataError: if the text has no token but special ones around it.
        """
        ids = self.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        if len(ids) <= self.added_tokens:
            raise DataError(f"the text {text[:40]!r} has no token", fix="remove empty rows", code="D03")
        cut = limit is not None and len(ids) > self.codec.whole(limit)
        if cut and limit is not None:
            ids = self.codec.cut(text, limit)
        return tuple(ids), cut

    @cached_property
    def codec(self) -> TokenizerCodec:
        """What its tokenizer makes of texts."""
        return TokenizerCodec(self.tokenizer)

    @property
    def added_tokens(self) -> int:
        """Special tokens that the tokenizer puts around every text."""
        return self.codec.added

    def encode(self, source: str, target: str, limit: int | None = None) -> Encoded:
        """An example's text and answer as token ids, tokenised apart."""
        return Encoded(self.text_tokens(source, limit)[0], self.answer_tokens(target))

    def decode(self, tokens: Sequence[int]) -> str:
        """Token ids as text, without special tokens and outer white space."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def embed(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The model's embeddings of tokens."""
        embeds: Tensor = self.lm.get_input_embeddings()(ids)
        return embeds

    @abstractmethod
    def answer_tokens(self, answer: str) -> Tokens:
        """Token ids of an answer, with the end token."""

    @abstractmethod
    def read(self, sources: Sequence[Tokens]) -> TextState:
        """Texts, padded and on the device."""

    @abstractmethod
    def text_states(self, state: TextState, deepest: int | None = None) -> tuple[Float[Tensor, "B S D"], ...]:
        """Hidden states of texts without a prompt, of the embeddings and of every layer.

        Args:
            state: the texts.
            deepest: the last layer that is asked for; blocks behind it are not run. None: all.
        """

    def _states(self, stack: Any, deepest: int | None, **inputs: Any) -> tuple[Tensor, ...]:
        """Of the stack that reads texts, up to a layer."""
        if deepest is None or deepest >= self.depths[0]:  # a norm stands behind the last block
            return tuple(stack(**inputs, output_hidden_states=True).hidden_states)
        return tuple(early_states(stack, deepest + 1, lambda: stack(**inputs)))

    def prepare(self, sources: Iterable[Tokens]) -> None:
        """Be told which texts will be read soon; a family that keeps texts reads them together."""

    def prepare_states(
        self, sources: Iterable[Tokens], deepest: int
    ) -> Iterator[tuple[Tokens, list[Float[Tensor, "S D"]]]]:
        """As `prepare`, of a family that keeps texts: each different one, and its states up to a layer."""
        raise NotImplementedError(f"{type(self).__name__} keeps no texts")

    @abstractmethod
    def forward(
        self,
        state: TextState,
        prompts: Float[Tensor, "B P D"] | None,
        labels: Int[Tensor, "B T"],
        hidden: HiddenSpec | None = None,
    ) -> Outputs:
        """Logits of the labels under the prompts."""

    def answer_states(
        self, state: TextState, prompts: Float[Tensor, "K P D"], layers: Sequence[int]
    ) -> list[Float[Tensor, "B K D"]]:
        """States that predict an answer's first token under each prompt, an encoder-decoder's of its decoder.

        Args:
            state: the texts.
            prompts: each for all texts.
            layers: from 1 for the first block's output.
        """
        labels = torch.zeros(len(state.ids), 1, dtype=torch.long, device=self.device)  # predicted, never read
        spec = HiddenSpec(tuple(layer - 1 for layer in layers))
        every = [self.forward(state, self.for_all(prompt, state), labels, spec) for prompt in prompts]
        own = [out.states[-len(layers) :] for out in every]  # an encoder's stand before
        return [torch.stack([one.hidden[:, -1] for one in layer], 1) for layer in zip(*own, strict=True)]

    @staticmethod
    def for_all(prompt: Float[Tensor, "P D"], state: TextState) -> Float[Tensor, "B P D"]:
        """One prompt for all rows of some texts."""
        return prompt.expand(len(state.ids), -1, -1)

    @abstractmethod
    def begin(self, state: TextState, prompts: Float[Tensor, "B P D"] | None) -> Context:
        """Read texts and prompts once, for `score` and then `generate`."""

    def open(self, tokens: Tokens) -> Opening:
        """What several inputs begin with; a family that can reads it here, once for all of them."""
        return Opening(tokens)

    def begin_after(self, opening: Opening, sources: Sequence[Tokens]) -> Context:
        """As `begin` without prompts, of texts that go on from an opening: `[opening][text]`.

        Args:
            opening: of this model, as its weights are now.
            sources: the rest of each input, at least one token.
        """
        return self.begin(self.read([opening.tokens + one for one in sources]), None)

    def generate(
        self,
        context: Context,
        max_tokens: int | Sequence[int],
        decoding: Decoding = GREEDY,
        seeds: Sequence[int] = (),
    ) -> list[Tokens]:
        """Written answers, cut at the end token. Uses the context up.

        Args:
            context: from `begin`.
            max_tokens: longest answer, of all rows or of each.
            decoding: how tokens are chosen; the likeliest one, if nothing is said.
            seeds: of each row, where tokens are drawn.
        """
        limits = [max_tokens] * len(context.next) if isinstance(max_tokens, int) else max_tokens
        with torch.no_grad(), self.mode(dropout=False):
            return decode(self, context, limits, self.tokenizer.eos_token_id, decoding, seeds)

    def score(self, context: Context, choices: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """Log-probability of every choice when only choices may be written (nats).

        At every token where the choices part, the model's distribution is taken over the tokens that
        lead to a choice. Where first tokens differ, nothing needs to be read beyond the prompt.
        The context stays as it was.
        """
        with torch.no_grad(), self.mode(dropout=False):
            return self._score(context, choices)

    @abstractmethod
    def select(self, context: Context, rows: Sequence[int]) -> Context:
        """Some rows, in this order; one may come several times. Uses the given context up."""

    @abstractmethod
    def step(self, context: Context, tokens: Sequence[int]) -> Context:
        """One more token of every row, read. Uses the given context up."""

    def join(self, contexts: Sequence[Context]) -> Context:
        """The rows of several contexts as one, also where they have read and written unlike many tokens.

        Only where `mixes_prompts`. Uses the given contexts up.
        """
        raise NotImplementedError(f"rows of unlike length share no batch of a {type(self).__name__}")

    @abstractmethod
    def after(self, context: Context, rows: Sequence[int], paths: Sequence[Tokens]) -> Float[Tensor, "N T V"]:
        """Logits behind every token of a path that follows a row; the context stays as it was.

        Args:
            context: from `begin`.
            rows: of the context; one may come several times.
            paths: the tokens that each goes on with. What stands behind the shorter ones means nothing.
        """

    @abstractmethod
    def _score(self, context: Context, choices: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """What `score` does, in a family's way."""


def pad_rows(rows: Sequence[Tokens], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of unlike length as one tensor, padded on the right, and its mask; both `[B, S]`."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), value, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)
