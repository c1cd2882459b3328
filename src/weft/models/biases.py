"""Bias terms: those that a model has, or, where it has none, one for every linear layer and layer norm."""

from typing import Any

from torch import Tensor, nn

from weft.models.added import Parameters, norms


def train_biases(lm: nn.Module) -> Parameters:
    """A model's bias terms; zeros are added where it has none at all, as T5 and Llama.

    T5-base gets 282,496, the published count (280K). With D = 768: the four products of 36 attentions
    4 * 36 * D, the feed-forward parts of 24 layers 24 * (3,072 + D), the layer norms, of which an encoder
    layer has two, a decoder layer three, and either stack one at its end, 62 * D, and the output layer
    32,128. Neither a count without the output layer nor one without the norms at the ends gives that number.

    Source:
        Ben Zaken et al. 2022 (arXiv:2106.10199), BitFit.
    """
    return _biases(lm) or _added(lm)


def _biases(lm: nn.Module) -> Parameters:
    named = lm.named_parameters()
    return [parameter for name, parameter in named if name.rpartition(".")[2] == "bias"]


def _added(lm: nn.Module) -> Parameters:
    """A bias of zeros for every linear layer and layer norm."""
    for layer in [one for one in lm.modules() if isinstance(one, nn.Linear)]:
        layer.bias = _zeros(layer)
    for norm in norms(lm):
        norm.bias = _zeros(norm)
        norm.register_forward_hook(_plus_bias)
    return _biases(lm)


def _zeros(layer: Any) -> nn.Parameter:
    """As many as a layer has outputs."""
    return nn.Parameter(layer.weight.new_zeros(len(layer.weight)))


def _plus_bias(layer: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
    moved: Tensor = out + layer.bias
    return moved
