"""Weights that are added to a model, or chosen among its own; they alone are trained."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from weft.errors import UnsupportedError
from weft.models.backbone import Backbone
from weft.models.tuned import TunedModel, own
from weft.prompts.bank import PromptModule

Parameters = list[nn.Parameter]


@dataclass(frozen=True)
class Layers:
    """Which linear layers of a family do what; each a pattern for the end of their names.

    Attributes:
        query: reads the queries of every attention, that of a decoder to its encoder too.
        key: likewise the keys.
        value: likewise the values.
        attended: the output of self-attention.
        hidden: reads the hidden values of the feed-forward part, and gives its output.
    """

    query: str
    key: str
    value: str
    attended: str
    hidden: str


FAMILIES = (
    Layers("q", "k", "v", r"SelfAttention\.o", "wo"),  # T5
    Layers("q_proj", "k_proj", "v_proj", "o_proj", "down_proj"),  # Llama, Qwen and kin
    Layers("q_proj", "k_proj", "v_proj", r"self_attn\.out_proj", "fc2"),  # BART
    Layers("c_attn", "c_attn", "c_attn", r"attn\.c_proj", r"mlp\.c_proj"),  # GPT-2: three in one product
    Layers("query", "key", "value", r"attention\.output\.dense", r"\d+\.output\.dense"),  # BERT
)


def layers_of(lm: nn.Module) -> Layers:
    """What a model's layers are called.

    Raises:
        UnsupportedError: for a family that weft does not know.
    """
    names = list(linear(lm))
    for family in FAMILIES:
        if all(any(matches(getattr(family, one.name), name) for name in names) for one in fields(family)):
            return family
    raise UnsupportedError(
        f"the layers of {type(lm).__name__} have names that weft does not know",
        where="method.name",
        fix="use bitfit or full; or lora with method.targets",
        code="C08",
    )


def pattern(*ends: str) -> str:
    """Matches a whole name that ends so, at a dot."""
    return rf"(.*\.)?({'|'.join(ends)})"


def matches(end: str, name: str) -> bool:
    """Whether a layer's name ends so."""
    return re.fullmatch(pattern(end), name) is not None


def linear(lm: nn.Module) -> dict[str, nn.Module]:
    """The linear layers by name; GPT-2 has some that hold their weights transposed."""
    return {name: layer for name, layer in lm.named_modules() if isinstance(layer, nn.Linear | Conv1D)}


def norms(lm: nn.Module) -> list[nn.Module]:
    """The layer norms, those without a mean and a bias too."""
    return [layer for layer in lm.modules() if "norm" in type(layer).__name__.lower() and has_gain(layer)]


def has_gain(layer: nn.Module) -> bool:
    """Whether a layer's own weight is a vector."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 1


def with_added(
    backbone: Backbone,
    group: str,
    add: Callable[[Any], Iterable[nn.Parameter]],
    tasks: tuple[str, ...],
    *,
    seed: int,
    dropout: bool = False,
    prompts: PromptModule | None = None,
) -> TunedModel:
    """A model that trains what `add` gives, and no prompt. The backbone belongs to it from here on.

    Args:
        backbone: one that no other method has changed.
        group: what the trained parameters are called in `optim.lr`.
        add: adds to a language model, and gives what is to be trained of it.
        tasks: names, in the order of the task ids.
        seed: of what `add` draws.
        dropout: leave the backbone's dropout on in training.
        prompts: fixed ones, if any.

    Raises:
        UnsupportedError: if another method has changed this backbone already, or `add` cannot change it.
    """
    own(backbone)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parameters = list(add(backbone.lm))
    backbone.lm.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    backbone.lm.eval()
    return TunedModel(backbone, prompts, {group: parameters}, tasks, dropout=dropout)
