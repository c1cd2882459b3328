"""How much memory a training step takes, measured rather than guessed, and how to take less."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

SHARE = 0.5  # of free memory; the rest is for what lives shortly, and for others
LIMITS = (  # of a container: what it may use, and what it uses
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def rows_that_fit(forward: Callable[[int], Tensor], batch_size: int, free: int) -> int:
    """The largest even share of a batch whose forward pass fits into memory, in rows.

    Args:
        forward: reads so many rows, the longest ones, and gives a value with a gradient.
        batch_size: rows of a step.
        free: bytes at hand.
    """
    if batch_size == 1:
        return 1
    one, two = (saved_bytes(partial(forward, rows)) for rows in (1, 2))
    most = max(1, int(free * SHARE) // max(1, two - one))
    parts = -(-batch_size // min(most, batch_size))
    return -(-batch_size // parts)


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass; a tensor that is kept twice counts once."""
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor.detach())
        return alive[-1]  # not the tensor: what a step keeps of its own result would keep the step for good

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = forward()
    del value
    return sum(kept.values())


def free_bytes(device: torch.device) -> int:
    """Memory at hand: of the accelerator, or of this machine within its container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [_number(Path(most)) - _number(Path(used)) for most, used in LIMITS if _number(Path(most))]
    return max(0, min([_available(), *limits]))


def _available() -> int:
    """Bytes that processes may still take; half of all where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _number(path: Path) -> int:
    """The number in a file; 0 if it has none, or there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def checkpoint_layers(lm: nn.Module) -> None:
    """Keep only what goes into each layer, and compute the rest again in the backward pass.

    Each layer is wrapped, because transformers' own switch works in training mode only, and a frozen model
    is not in it. A cache of keys would be filled twice: not for prompts after cached texts.
    """
    for layer in lm.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., object], *args: object, **kw: object) -> object:
    if not torch.is_grad_enabled():
        return forward(*args, **kw)
    return checkpoint(partial(forward, **kw), *args, use_reentrant=False)
