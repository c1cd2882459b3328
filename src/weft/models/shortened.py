"""The first blocks of a model: who asks for an early layer's states need not run the later ones."""

import copy

from torch import nn


def shortened(model: nn.Module, blocks: int) -> nn.Module:
    """A model that ends after its first blocks; weights are shared, and the model itself stays as it is.

    What stands behind the blocks, such as a last norm, is still there: states that the whole model has too
    are those before the last block that is left.

    Args:
        model: its first list of modules are its blocks.
        blocks: how many are left.
    """
    path = next((name for name, part in model.named_modules() if isinstance(part, nn.ModuleList)), None)
    return model if path is None else _cut(model, path.split("."), blocks)


def _cut(module: nn.Module, path: list[str], blocks: int) -> nn.Module:
    if not path:
        assert isinstance(module, nn.ModuleList)
        return module[:blocks]
    first, *rest = path
    twin = copy.copy(module)
    twin._modules = {**module._modules, first: _cut(module.get_submodule(first), rest, blocks)}
    return twin
