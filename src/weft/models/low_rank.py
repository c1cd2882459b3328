"""Layers of PEFT in a model: low-rank additions (LoRA), and learned scales (IA3)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from weft.errors import ConfigError, UnsupportedError, did_you_mean
from weft.models.added import Parameters, layers_of, linear, matches, pattern


def add_lora(lm: Any, *, rank: int, alpha: float, dropout: float, targets: Sequence[str]) -> Parameters:
    """Low-rank additions to some linear layers; they add nothing before training.

    Args:
        lm: the language model, changed in place.
        rank: of each addition.
        alpha: the addition is scaled by `alpha / rank`.
        dropout: of what an addition reads, in training mode.
        targets: patterns for the ends of the layers' names.

    Raises:
        ConfigError: if a target is no linear layer.
        UnsupportedError: without PEFT.

    Source:
        Hu et al. 2021 (arXiv:2106.09685), section 4.1: h = W x + B A x, B = 0, A random.
    """
    config = _peft().LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=pattern(*targets),
        fan_in_fan_out=_transposed(lm, targets),
    )
    return _injected(config, lm)


def check_targets(lm: nn.Module, targets: Sequence[str]) -> None:
    """Refuse what the additions would be refused for.

    Raises:
        ConfigError: if a target is no linear layer.
        UnsupportedError: without PEFT.
    """
    _peft()
    _transposed(lm, targets)


def add_ia3(lm: Any) -> Parameters:
    """Learned scales, ones before training: of keys, values, and the feed-forward part's hidden values.

    Raises:
        UnsupportedError: without PEFT, or for a family of unknown layers.

    Source:
        Liu et al. 2022 (arXiv:2205.05638), section 3.3. GPT-2's queries, keys and values are one product,
        and are scaled together.
    """
    targets = ia3_targets(lm)
    config = _peft().IA3Config(
        target_modules=pattern(*targets),
        feedforward_modules=pattern(targets[-1]),
        fan_in_fan_out=_transposed(lm, targets),
    )
    return _injected(config, lm)


def ia3_targets(lm: nn.Module) -> tuple[str, str, str]:
    """Patterns for the layers that IA3 scales; the last is the feed-forward part's."""
    family = layers_of(lm)
    return family.key, family.value, family.hidden


@contextmanager
def without_added(lm: Any) -> Iterator[None]:
    """Run a model as it was before layers of PEFT were added."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in lm.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _injected(config: Any, lm: Any) -> Parameters:
    """PEFT's layers put in place; the parameters that are new."""
    before = {id(parameter) for parameter in lm.parameters()}
    _peft().inject_adapter_in_model(config, lm)
    return [parameter for parameter in lm.parameters() if id(parameter) not in before]


def _transposed(lm: nn.Module, targets: Sequence[str]) -> bool:
    """Whether the targets hold their weights transposed, as GPT-2's do.

    Raises:
        ConfigError: if a target is no linear layer.
    """
    known = linear(lm)
    found: list[nn.Module] = []
    for target in targets:
        layers = [layer for name, layer in known.items() if matches(target, name)]
        if not layers:
            raise ConfigError(
                f"the model has no linear layer {target!r}",
                where="method.targets",
                fix=did_you_mean(target, {name.rpartition(".")[2] for name in known}),
            )
        found += layers
    return all(isinstance(layer, Conv1D) for layer in found)


def _peft() -> Any:
    """The library.

    Raises:
        UnsupportedError: if it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise UnsupportedError(
            "this method's layers are PEFT's, which is not installed",
            where="method.name",
            fix="pip install 'weft[peft]'",
            code="C08",
        ) from None
    return peft
