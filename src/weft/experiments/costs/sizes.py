"""A base model's sizes, and the operations of a pass through it: products and attention, two for each weight
and token; norms, softmax and the optimiser are left out, as the field counts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from weft.models.added import linear
from weft.models.language_model import UNUSED

FAR = re.compile(
    r"(EncDecAttention|encoder_attn|cross_?attn|crossattention).*\.(k|v|k_proj|v_proj|key|value)"
)


@dataclass(frozen=True)
class Operations:
    """Of a pass: of products with weights, and of products within attention."""

    maps: float
    attention: float

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.maps + other.maps, self.attention + other.attention)

    @property
    def forward(self) -> float:
        """Of the pass itself."""
        return self.maps + self.attention

    @property
    def step(self) -> float:
        """Forward, and backward through activations: attention multiplies two of them, a weight is one."""
        return 2 * self.maps + 3 * self.attention

    @property
    def full_step(self) -> float:
        """Likewise with the gradients of all weights."""
        return 3 * self.forward


@dataclass(frozen=True)
class Stack:
    """Blocks that tokens go through.

    Attributes:
        blocks: how many.
        maps: weights of all maps that each token meets.
        heads: numbers of a query, all heads of a block together.
        far: weights of maps that the states of another stack meet: keys and values of cross-attention.
    """

    blocks: int
    maps: int
    heads: int
    far: int = 0

    def pass_over(self, tokens: float, keys: float, far: float = 0.0) -> Operations:
        """Of some tokens that see so many keys, and so many states of another stack, which are mapped too."""
        own = Operations(2.0 * self.maps * tokens, 4.0 * self.blocks * self.heads * tokens * keys)
        mapped = Operations(2.0 * self.far * far, 0.0)
        return own + mapped + self.far_attention(tokens, far)

    def far_attention(self, tokens: float, far: float) -> Operations:
        """Of attention to the states of another stack."""
        return Operations(0.0, 4.0 * self.blocks * self.heads * tokens * far)


@dataclass(frozen=True)
class Sizes:
    """Of a base model.

    Attributes:
        reader: what reads texts; of a causal model all there is.
        writer: what writes answers, of an encoder-decoder.
        head: weights of the output matrix; 0 where there is none.
        weights: all weights.
        width: of an embedding, D.
        kept: numbers of the keys and values of a token, of a causal model.
    """

    reader: Stack
    writer: Stack | None
    head: int
    weights: int
    width: int
    kept: int


def sizes_of(lm: Any) -> Sizes:
    """Sizes of a model of transformers; it need have no numbers."""
    config, layers = lm.config, linear(lm)
    out = lm.get_output_embeddings()
    layers = {name: one for name, one in layers.items() if one is not out and UNUSED not in name}
    head = 0 if out is None else int(out.weight.numel())
    weights, width = sum(one.numel() for one in lm.parameters()), lm.get_input_embeddings().weight.shape[1]
    if not config.is_encoder_decoder:
        kept = 2 * config.num_hidden_layers * _heads(config, "num_key_value_heads")
        reader = Stack(config.num_hidden_layers, _weights(layers.values()), _heads(config))
        return Sizes(reader, None, head, weights, width, kept)
    encoder = {id(one) for one in lm.get_encoder().modules()}
    read = [one for one in layers.values() if id(one) in encoder]
    far = [one for name, one in layers.items() if FAR.search(name) and id(one) not in encoder]
    write = [one for one in layers.values() if id(one) not in encoder and not any(one is two for two in far)]
    ours, theirs = getattr(config, "encoder", config), getattr(config, "decoder", config)
    reader = Stack(ours.num_hidden_layers, _weights(read), _heads(ours))
    writer = Stack(_depth(theirs), _weights(write), _heads(theirs), _weights(far))
    return Sizes(reader, writer, head, weights, width, 0)


def _weights(layers: Iterable[nn.Module]) -> int:
    return sum(int(one.weight.numel()) for one in layers)  # type: ignore[misc, operator]


def _depth(config: Any) -> int:
    """Blocks of a decoder, whose settings may be those of the whole model."""
    names = ("num_decoder_layers", "decoder_layers", "num_hidden_layers")
    return int(next(filter(None, (getattr(config, name, None) for name in names))))


def _heads(config: Any, name: str = "num_attention_heads") -> int:
    """Numbers of a query, or of a key, all heads together."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or getattr(config, "d_kv", None) or config.hidden_size // heads
    return int((getattr(config, name, None) or heads) * size)


@dataclass(frozen=True)
class Row:
    """A row as a pass computes it, in tokens.

    Attributes:
        prompt: of its prompt.
        text: of its text.
        answer: that are predicted, the end token among them.
        kept: whether the text's keys and values are there already.
    """

    prompt: float
    text: float
    answer: float = 1.0
    kept: bool = False

    def tokens(self, sizes: Sizes) -> float:
        """Tokens that are computed; of a causal model, the last of an answer is predicted and never read."""
        return self.prompt + self.answer + self.text * (not self.kept) - (sizes.writer is None)

    def operations(self, sizes: Sizes) -> Operations:
        """Of reading the row, and of predicting its answer."""
        out = Operations(2.0 * sizes.head * self.answer, 0.0)
        if sizes.writer is None:
            return out + sizes.reader.pass_over(self.tokens(sizes), self.prompt + self.text + self.answer - 1)
        read = self.prompt + self.text
        written = sizes.writer.pass_over(self.answer, self.answer, read)
        return out + sizes.reader.pass_over(read, read) + written

    def next_token(self, sizes: Sizes) -> Operations:
        """Of one token more behind it."""
        out = Operations(2.0 * sizes.head, 0.0)
        seen = self.prompt + self.text + self.answer
        if sizes.writer is None:
            return out + sizes.reader.pass_over(1.0, seen)
        return out + sizes.writer.pass_over(1.0, self.answer) + sizes.writer.far_attention(1.0, seen)
