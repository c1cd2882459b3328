"""How many tokens of a pass fill a device."""

import torch

PART_TOKENS = {"cpu": 512}  # of one pass of several courses: where the measured rate stops rising
PART_TOKENS_ELSEWHERE = 65536  # not measured


def part_tokens(device: torch.device) -> int:
    """How many tokens of a pass with gradient fill a device."""
    return PART_TOKENS.get(device.type, PART_TOKENS_ELSEWHERE)
