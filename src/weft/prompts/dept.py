"""A short prompt, and offsets of low rank that are added to the text's embeddings by position."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from weft.prompts.bank import SoftPrompts


class OffsetPrompts(SoftPrompts):
    """A prompt for each of K tasks, and what is added to the embeddings of the task's texts.

    Args:
        prompts: `[K, P, D]`.
        a: `[K, S, R]`, a row for every position of a text; what stands later gets no offset.
        b: `[K, R, D]`.
        tasks: names, in the order of the task ids.

    Source:
        Shi and Lipani 2023 (arXiv:2309.05173), section 2.2: E + A B. The released code multiplies A B by a
        constant; here that is left to the offsets' learning rate.
    """

    reads_texts = True

    def __init__(
        self,
        prompts: Float[Tensor, "K P D"],
        a: Float[Tensor, "K S R"],
        b: Float[Tensor, "K R D"],
        tasks: tuple[str, ...],
    ) -> None:
        super().__init__(prompts, tasks)
        self.a = nn.Parameter(a.detach().clone().float())
        self.b = nn.Parameter(b.detach().clone().float())

    def read(
        self, task_ids: Int[Tensor, " B"], texts: Float[Tensor, "B S D"], mask: Int[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B P D"]]:
        """Texts with their offsets, and the prompt of each row; a row's first own token is at position 0."""
        positions = mask.cumsum(1) - 1
        inside = (mask > 0) & (positions < self.a.shape[1])
        rows = task_ids[:, None] * self.a.shape[1] + positions.where(inside, 0)
        a = self.a.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, -1)
        offsets = (a @ self.b.index_select(0, task_ids)) * inside[..., None]
        return texts + offsets.to(texts.dtype), self(task_ids)

    def vectors(self) -> Float[Tensor, "K N D"]:
        """Every task's prompt and offsets."""
        return torch.cat([self.prompts, self.a @ self.b], 1)


def new_offsets(
    tasks: int, positions: int, rank: int, width: int, *, seed: int
) -> tuple[Float[Tensor, "K S R"], Float[Tensor, "K R D"]]:
    """First values of A and B: uniform of variance 1 / (3 R) as in the released code, and 0."""
    draw = torch.Generator().manual_seed(seed)
    a = (torch.rand(tasks, positions, rank, generator=draw) * 2 - 1) / rank**0.5
    return a, torch.zeros(tasks, rank, width)
