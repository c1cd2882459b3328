"""Which implementation of attention a machine runs fastest, by measurement.

They stand in transformers' registry, so that no modelling code is changed. `grouped` is plain attention that
folds the query heads of a group into one product, so that keys and values are never repeated, and adds bias
and mask in place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from weft.models.measuring import Choice, fastest, one_thread, seconds

ROWS, PROMPT, TEXT = 8, 32, 64  # of the measured attention


def grouped(
    module: Any,
    query: Float[Tensor, "B H Q d"],
    key: Float[Tensor, "B G K d"],
    value: Float[Tensor, "B G K d"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **kw: Any,
) -> tuple[Float[Tensor, "B Q H d"], None]:
    """Attention of H query heads in G groups that share keys and values (Ainslie et al. 2023, 2305.13245).

    Mask and bias are added to the scores, and may be broadcast to `[B, H, Q, K]`.
    """
    rows, heads, length, size = query.shape
    groups, keys = key.shape[1:3]
    scale = size**-0.5 if scaling is None else scaling
    folded = (query if scale == 1 else query * scale).reshape(rows, groups, -1, size)
    scores = torch.matmul(folded, key.transpose(2, 3)).view(rows, heads, length, keys)
    for addend in (position_bias, attention_mask):
        if addend is not None:
            scores += _within(addend, scores.dtype)
    weights = F.dropout(F.softmax(scores, -1), dropout, training=module.training)
    mixed = torch.matmul(weights.view(rows, groups, -1, keys), value).view(rows, heads, length, size)
    return mixed.transpose(1, 2).contiguous(), None


def _within(addend: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers that a format has: float32's least is infinite in bfloat16, and a padded row would be NaN."""
    return addend if addend.dtype == dtype else addend.clamp_min(torch.finfo(dtype).min)


AttentionInterface.register("grouped", grouped)
AttentionMaskInterface.register("grouped", eager_mask)
PLAIN = ("bert", "gpt2", "llama", "mistral", "mt5", "qwen2", "qwen3", "t5")  # bias and mask, nothing else
FUNCTIONS: dict[str, Callable[..., tuple[Tensor, None]]] = {
    "grouped": grouped,
    "sdpa": sdpa_attention_forward,
}


@dataclass(frozen=True)
class Heads:
    """The shape of a model's attention.

    Attributes:
        query: H, its query heads.
        keys: G, heads of keys and values.
        size: d, numbers of a head.
        biased: whether positions are a bias on the scores, as in T5.
    """

    query: int
    keys: int
    size: int
    biased: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Heads":
        """Of a model, from its `config.json`."""

        def first(*names: str) -> int:
            return next(int(config[name]) for name in names if config.get(name))

        query = first("num_attention_heads", "num_heads", "n_head")
        width = first("hidden_size", "d_model", "n_embd")
        size = config.get("head_dim") or config.get("d_kv") or width // query
        keys = config.get("num_key_value_heads") or query
        return cls(query, int(keys), int(size), "relative_attention_num_buckets" in config)


def set_attention(lm: Any, name: str) -> None:
    """Choose a model's attention; to a model put together of two, the library does not pass it on."""
    halves = (lm.encoder, lm.decoder) if lm.config.model_type == "encoder-decoder" else (lm,)
    for half in halves:
        half.set_attn_implementation(name)


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether `grouped` does all that a model's attention does, as far as we know."""
    return config.get("model_type") in PLAIN


def probe_attention(
    config: Mapping[str, Any], device: torch.device, dtype: torch.dtype, *, suffix: bool
) -> Choice:
    """Time the implementations on attention of a model's shape, for about a second in all.

    Args:
        config: the model's `config.json`.
        device: where it will run.
        dtype: of its weights.
        suffix: whether only prompt tokens ask, of texts read before.

    What is more than bias and mask in a model's attention is left to the library. On a CPU, models with
    position bias have no choice: there the fused kernel's gradient is 1e-3 off that of plain attention, which
    is within 1e-6 of exact numbers.
    """
    if not is_plain(config):
        return Choice("library", {})
    heads = Heads.of(config)
    if heads.biased and device.type == "cpu":
        return Choice("grouped", {})
    inputs = _inputs(heads, device, dtype, suffix=suffix)
    ways = {name: partial(_time, function, heads, *inputs) for name, function in FUNCTIONS.items()}
    with one_thread(device):
        return fastest(ways)


def _inputs(
    heads: Heads, device: torch.device, dtype: torch.dtype, *, suffix: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and a mask that hides the start of some rows; the numbers do not matter."""
    asked, seen = PROMPT if suffix else PROMPT + TEXT, PROMPT + TEXT

    def ones(count: int, length: int) -> Tensor:
        return torch.ones(ROWS, count, length, heads.size, device=device, dtype=dtype).requires_grad_()

    mask = torch.zeros(ROWS, 1, asked, seen, device=device, dtype=dtype)
    mask[: ROWS // 2, ..., : TEXT // 2] = torch.finfo(dtype).min
    return ones(heads.query, asked), ones(heads.keys, seen), ones(heads.keys, seen), mask


def _time(function: Callable[..., tuple[Tensor, None]], heads: Heads, *inputs: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    module = SimpleNamespace(training=False, is_causal=True, num_key_value_groups=heads.query // heads.keys)
    *parts, mask = inputs

    def step() -> None:
        out, _ = function(module, *parts, mask, scaling=heads.size**-0.5)
        torch.autograd.grad(out.sum(), parts)

    return seconds(step, mask.device)
