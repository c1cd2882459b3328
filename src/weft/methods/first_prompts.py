"""Where the prompts of methods that tune one start: from scratch, or from a teacher's. Loads torch."""

import torch
from torch import Tensor

from weft.methods.method import Setup, Starts
from weft.models.fresh_prompt import fresh_prompt
from weft.prompts.starts import picks


def first_prompts(start: str, setup: Setup) -> tuple[Tensor, Starts]:
    """A prompt for each task `[K, P, D]`, and a record of where it comes from.

    Args:
        start: fresh, nearest (the teacher under which the task's rows are likeliest), or a teacher's task.
        setup: what the method is given.

    Raises:
        ConfigError: if there is no such teacher, or the prompt cannot start as the configuration says.
    """
    if start == "fresh":
        prompts = [
            fresh_prompt(setup.backbone, setup.prompt, seed=setup.seed, choices=task.choices)
            for task in setup.tasks
        ]
        return torch.stack(prompts), {name: {"from": "fresh"} for name in setup.names}
    record = picks(start, setup.teachers, setup.names, setup.nearest)
    return torch.stack([setup.teachers[str(record[name]["from"])] for name in setup.names]), record
