"""States of a model's first layers, without the blocks behind them.

The library's own capture of states leaves hooks on the blocks and gives nothing before the end, so states are
noted here as they go into each block.
"""

import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class _EnoughError(Exception):
    """All that was asked for is noted."""


def early_states(stack: nn.Module, count: int, run: Callable[[], object]) -> list[Tensor]:
    """What goes into a stack's first blocks; the last of these is not run, nor is what stands behind.

    Args:
        stack: its first list of modules are its blocks, `count` or more.
        count: how many states, those of the embeddings first.
        run: runs the stack. What other threads run meanwhile goes on to its end.
    """
    blocks = next(part for part in stack.modules() if isinstance(part, nn.ModuleList))
    found: list[Tensor] = []
    own = threading.get_ident()

    def note(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if threading.get_ident() != own:
            return
        found.append(args[0] if args else named["hidden_states"])
        if len(found) == count:
            raise _EnoughError

    hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks[:count]]
    try:
        run()
    except _EnoughError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return found
