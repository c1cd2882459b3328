"""Frozen layers spread over the processes of a training: each holds a part, and gathers a layer to run it.

What stands around the layers (embeddings, output matrix, norms) is whole in every process, as prompts are.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer


def shard_layers(lm: Any, device: torch.device) -> None:
    """Leave to this process its part of every layer's weights (FSDP2).

    From here on all processes must run the model equally often, for a pass of one asks the others for their
    parts.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in [one for one in lm.modules() if isinstance(one, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def own_part(weight: Tensor) -> Tensor:
    """What this process holds of a weight: all, if it is not spread."""
    return weight.to_local() if isinstance(weight, DTensor) else weight
