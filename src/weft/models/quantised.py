"""Frozen weights of 8 or 4 bits, made when a model is loaded; products take them in the model's own format.

Weights alone are rounded, never what is multiplied with them: gradients to a prompt are those of the model
with the rounded weights. Embeddings, norms and the output layer stay as they are.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from weft.errors import UnsupportedError
from weft.models.base_folder import BaseFolder

OWN = "own"
EXTRA = "pip install 'weft[quantised]'"
KEY = "base.weights"
LAID_OUT = "support_avx512bf16_for_cpu"  # bitsandbytes' name for it


class Way(NamedTuple):
    """How weights are rounded: the package that does it, and what transformers is told."""

    package: str
    told: Callable[[torch.dtype], Any]


def _int8(dtype: torch.dtype) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _nf4(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


WAYS = {"int8": Way("torchao", _int8), "nf4": Way("bitsandbytes", _nf4)}


def check_weights(weights: str, folder: BaseFolder) -> None:
    """Refuse weights that cannot be made here, before any are read.

    Raises:
        UnsupportedError: without the package, or for a model whose layers it does not know.
    """
    if weights == OWN:
        return
    package = WAYS[weights].package
    if find_spec(package) is None:
        raise UnsupportedError(
            f"weights in {weights} are made by the package {package}, which is not installed",
            where=KEY,
            fix=f"{EXTRA}, or set {KEY}: own",
            code="C18",
        )
    if weights == "int8" and folder.config.get("model_type") == "gpt2":
        raise UnsupportedError(
            "the layers of GPT-2 are of a kind that torchao does not round",
            where=KEY,
            fix=f"set {KEY}: nf4, or own",
            code="C08",
        )


def loading(weights: str, dtype: str, device: Any) -> dict[str, Any]:
    """What transformers is told to load a model with such weights."""
    if weights == OWN:
        return {}
    told = WAYS[weights].told(getattr(torch, dtype))
    return {"quantization_config": told, "device_map": {"": device}}


def keep_layout(lm: nn.Module) -> None:
    """Let rounded weights lie as they were made.

    On processors with bf16 units bitsandbytes lays them out anew at the first product without a gradient, in
    a form that no gradient goes through, and rounds what is multiplied with them.
    """
    for part in lm.modules():
        if hasattr(part, LAID_OUT):
            setattr(part, LAID_OUT, False)


def numbers_of(value: Tensor) -> list[Tensor]:
    """The plain tensors of which a parameter is made."""
    names = getattr(value, "tensor_data_names", None)
    return [getattr(value, name) for name in names] if names else [value]
