"""Bottleneck adapters behind the parts of a model's layers."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from weft.models.added import Parameters, layers_of, linear, matches, norms

SPREAD = 0.01  # standard deviation of first weights


class Adapter(nn.Module):
    """`x + up(gelu(down(x)))`; it changes nothing before training, for `up` starts at zero.

    Args:
        width: D, numbers that it reads and gives.
        bottleneck: numbers between.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.normal_(self.down.weight, std=SPREAD)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """What a part of a layer gives, corrected."""
        hidden = nn.functional.gelu(self.down(x), approximate="tanh")
        corrected: Tensor = x + self.up(hidden)
        return corrected


def add_adapters(lm: nn.Module, *, bottleneck: int, norms_too: bool) -> Parameters:
    """An adapter behind self-attention and one behind the feed-forward part of every layer.

    Args:
        lm: the language model, changed in place.
        bottleneck: numbers between an adapter's two products.
        norms_too: whether the model's layer norms are trained as well.

    Raises:
        UnsupportedError: for a family of unknown layers.

    Source:
        Houlsby et al. 2019 (arXiv:1902.00751), section 2.1; places, GELU and bottleneck D / 32 as Karimi
        Mahabadi et al. 2021 (arXiv:2106.04647) have it for T5-base, where 48 adapters of
        2 * 768 * 24 + 24 + 768 numbers and 62 layer norms of 768 are 1,855,104, 0.832 % of the model.
    """
    family = layers_of(lm)
    added: list[nn.Module] = []
    for name, layer in linear(lm).items():
        if matches(family.attended, name) or matches(family.hidden, name):
            layer.adapter = adapter = _behind(layer, bottleneck)
            layer.register_forward_hook(_corrected)
            added.append(adapter)
    trained = [*added, *norms(lm)] if norms_too else added
    return [parameter for module in trained for parameter in module.parameters()]


def _behind(layer: Any, bottleneck: int) -> Adapter:
    width = getattr(layer, "out_features", None) or layer.nf  # the latter is GPT-2's
    return Adapter(width, bottleneck).to(layer.weight.device, layer.weight.dtype)


def _corrected(layer: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
    corrected: Tensor = layer.adapter(out)
    return corrected
