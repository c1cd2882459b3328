"""Products with frozen weights that are laid out once for the processor.

A linear layer of the library lays its weights out anew in every product. Of a few hundred rows, as a training
step or a batch of answers has, that takes a fifth to a half of the time, and most of it at the output matrix,
which few rows meet. Frozen weights are laid out once (oneDNN's blocked format), and once more, transposed, at
the first gradient. No modelling code is changed: a layer keeps its weights and gets another `forward`. Each
layout takes as much memory as the weights.
"""

from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from weft.models.measuring import Choice, fastest, one_thread, seconds

LARGEST = 2 << 30  # bytes of weights: a model with more keeps its memory
ROWS, LAYERS = 128, 8  # of the measured product; several layers, so that weights come from memory
WORTH = 0.95  # of the library's time, at most: memory is not spent on less


class Packed:
    """What takes the place of a frozen linear layer's `forward`.

    Args:
        layer: its weights must not change any more, and are laid out as they are now.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.weights = laid_out(layer.weight)

    def __call__(self, rows: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Rows times weights, and bias."""
        out: Tensor = _Product.apply(rows, self)  # type: ignore[no-untyped-call]
        return out

    @cached_property
    def transposed(self) -> Tensor:
        """The weights as the gradient needs them."""
        return laid_out(self.layer.weight.t())


class _Product(torch.autograd.Function):
    """Rows times frozen weights; the gradient goes to the rows alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packed: Packed) -> Tensor:
        ctx.packed = packed
        return _multiply(rows, packed.weights, packed.layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _multiply(gradient, ctx.packed.transposed, None), None


def can_pack(device: torch.device) -> bool:
    """Whether weights can be laid out there: on a processor, with a torch that has oneDNN."""
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def pack(lm: nn.Module) -> None:
    """Lay out the weights of every linear layer of a frozen model, for good."""
    for layer in lm.modules():
        if type(layer) is nn.Linear:
            layer.forward = Packed(layer)  # type: ignore[assignment]


def is_packed(lm: nn.Module) -> bool:
    """Whether a model's weights are laid out."""
    return any(isinstance(layer.forward, Packed) for layer in lm.modules())


def probe_products(width: int, size: int, device: torch.device, dtype: torch.dtype) -> Choice:
    """Whether laid-out weights pay on this machine: `packed` or `library`; about a second.

    Args:
        width: D of the model.
        size: bytes of its weights.
        device: where it will run; other than a processor, the library does it.
        dtype: of the weights; in bfloat16 a step gains less than the memory is worth (docs/log.md).
    """
    if not can_pack(device) or dtype != torch.float32 or size > LARGEST:
        return Choice("library", {})
    with one_thread(device):
        found = fastest(_ways(width, device, dtype))
    pays = found.milliseconds["packed"] < WORTH * found.milliseconds["library"]
    return Choice("packed" if pays else "library", found.milliseconds)


def _ways(width: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Forward and backward through a few layers, each way; the numbers do not matter."""
    plain, packed = (_layers(width, dtype) for _ in range(2))
    pack(packed)
    rows = torch.zeros(ROWS, width, dtype=dtype, requires_grad=True)

    def step(model: nn.Module) -> None:
        torch.autograd.grad(model(rows).sum(), rows)

    return {
        "library": lambda: seconds(lambda: step(plain), device),
        "packed": lambda: seconds(lambda: step(packed), device),
    }


def _layers(width: int, dtype: torch.dtype) -> nn.Sequential:
    """Frozen layers of zeros, for which no random number is drawn."""
    layers = nn.Sequential(*(nn.Linear(width, width, device="meta", dtype=dtype) for _ in range(LAYERS)))
    layers.requires_grad_(False).to_empty(device="cpu")
    for parameter in layers.parameters():
        parameter.zero_()
    return layers


def laid_out(weight: Float[Tensor, "O I"]) -> Tensor:
    """Weights in the processor's layout."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return packed


def _multiply(rows: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weights, bias, "none", [], "")
    return out


@register_flop_formula(torch.ops.mkldnn._linear_pointwise)
def _operations(rows: Any, weights: Any, *rest: Any, **kw: Any) -> int:
    """Of one product, for those who count: as torch counts a matrix product."""
    operations: int = 2 * prod(rows) * weights[0]
    return operations
