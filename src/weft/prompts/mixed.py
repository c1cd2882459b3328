"""Prompts of several finished runs in one batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from weft.prompts.bank import PromptModule


class MixedPrompts(PromptModule):
    """Prompts of several modules as one, composed when rows ask for them; no whole prompt is kept.

    In a batch the shorter ones are filled up on the left: there, what is masked changes no distance between
    tokens that count.

    Args:
        parts: modules whose prompts depend on no text; the task ids of one follow those of the one before.
    """

    lengths: Tensor  # of each part's prompts
    part: Tensor  # of each task
    own: Tensor  # id of each task in its part

    def __init__(self, parts: Sequence[PromptModule]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.tasks = tuple(name for part in parts for name in part.tasks)
        counts = [len(part.tasks) for part in parts]
        self.register_buffer("lengths", torch.tensor([part.length for part in parts]))
        self.register_buffer("part", torch.arange(len(parts)).repeat_interleave(torch.tensor(counts)))
        self.register_buffer("own", torch.cat([torch.arange(count) for count in counts]))

    @property
    def length(self) -> int:
        """P of the longest."""
        return int(self.lengths.max())

    @property
    def width(self) -> int:
        """D, the size of a prompt's vectors."""
        return next(int(part.width) for part in self.parts)  # type: ignore[arg-type]

    def forward(self, task_ids: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """The prompt of each row; P is that of the longest that is asked for."""
        parts, longest = self.part[task_ids], int(self._lengths(task_ids).max())
        found = torch.zeros(len(task_ids), longest, self.width, device=task_ids.device)
        for number in sorted(set(parts.tolist())):
            rows = (parts == number).nonzero()[:, 0]
            prompts = self.parts[number](self.own[task_ids[rows]])
            found[rows, longest - prompts.shape[1] :] = prompts
        return found

    def mask(self, task_ids: Int[Tensor, " B"]) -> Int[Tensor, "B P"]:
        """1 where a row's prompt has a token."""
        lengths = self._lengths(task_ids)
        longest = int(lengths.max())
        places = torch.arange(longest, device=task_ids.device)
        return (places >= longest - lengths[:, None]).long()

    def _lengths(self, task_ids: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        return self.lengths[self.part[task_ids]]
