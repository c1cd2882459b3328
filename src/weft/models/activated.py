"""Low-rank additions that act from an invocation on: the frozen model reads texts, once for all tasks."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from weft.data.batch import Tokens
from weft.errors import ConfigError, UnsupportedError
from weft.models.added import layers_of, with_added
from weft.models.backbone import Backbone
from weft.models.causal import CausalBackbone
from weft.models.low_rank import add_lora, without_added
from weft.models.tuned import TunedModel
from weft.prompts.bank import FixedPrompt


def with_activated(
    backbone: Backbone,
    tasks: tuple[str, ...],
    *,
    invocation: str,
    rank: int,
    alpha: float,
    targets: Sequence[str] = (),
    seed: int,
    dropout: bool = False,
) -> TunedModel:
    """A model whose additions act on an invocation behind the text, and on the answer.

    Args:
        backbone: a causal one, with prompts behind the text; it belongs to the model from here on.
        tasks: names, in the order of the task ids.
        invocation: a text; its tokens' embeddings stand where other methods' prompts stand.
        rank: of each addition.
        alpha: the addition is scaled by `alpha / rank`.
        targets: patterns for the ends of the layers' names; none: queries, keys and values.
        seed: of the first weights.
        dropout: leave the backbone's dropout on in training.

    Raises:
        UnsupportedError: where the text is not read before all else.
        ConfigError: if the invocation has no token.

    Source:
        Greenewald et al. 2025 (arXiv:2504.12397): keys and values before the invocation are the base model's.
    """
    backbone = text_first(backbone)
    tokens, chosen = invocation_tokens(backbone, invocation), layers_that_act(backbone.lm, targets)
    prompt = backbone.embed(torch.tensor([tokens], device=backbone.device))[0]
    prompts = FixedPrompt(prompt, tasks).to(backbone.device)
    add = partial(add_lora, rank=rank, alpha=alpha, dropout=0.0, targets=chosen)
    model = with_added(backbone, "lora", add, tasks, seed=seed, dropout=dropout, prompts=prompts)
    backbone.read_bare(partial(without_added, backbone.lm))
    return model


def text_first(backbone: Backbone) -> CausalBackbone:
    """A model that reads the text before all else.

    Raises:
        UnsupportedError: for another one.
    """
    if not isinstance(backbone, CausalBackbone) or not backbone.suffix:
        raise UnsupportedError(
            "the frozen model must read the text before the additions act",
            where="method.name",
            fix="use a causal model with prompt.position: suffix, or the method lora",
            code="C08",
        )
    return backbone


def invocation_tokens(backbone: Backbone, invocation: str) -> Tokens:
    """Tokens of an invocation, without an end.

    Raises:
        ConfigError: if there are none.
    """
    tokens = backbone.answer_tokens(invocation)[:-1] if invocation.strip() else ()
    if not tokens:
        raise ConfigError("the invocation has no token", where="method.invocation", fix="name a word")
    return tokens


def layers_that_act(lm: nn.Module, targets: Sequence[str]) -> Sequence[str]:
    """Patterns for the ends of the layers' names; as given, or queries, keys and values."""
    if targets:
        return targets
    family = layers_of(lm)
    return tuple(dict.fromkeys((family.query, family.key, family.value)))
