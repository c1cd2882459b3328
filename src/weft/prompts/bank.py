"""Prompts as modules: task ids in, prompts out, `task_ids [B] -> [B, P, D]`.

Where the prompt stands is the backbone's matter.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn


def compose(
    shared: Float[Tensor, "P D"], u: Float[Tensor, "*K P R"], v: Float[Tensor, "*K R D"]
) -> Float[Tensor, "*K P D"]:
    """Task prompts from the shared prompt and task factors: `shared * (u @ v)`.

    Source:
        Wang et al. 2023 (arXiv:2303.02861), section 3.2: P_k = P* o W_k, W_k = u_k (x) v_k^T; here any rank.
    """
    return shared * (u @ v)


class PromptBank(nn.Module):
    """The shared prompt and the factors of K tasks.

    Attributes:
        tasks: names, in the order of the task ids.
        shared: P*, `[P, D]`.
        u: `[K, P, R]`.
        v: `[K, R, D]`.
    """

    def __init__(
        self,
        shared: Float[Tensor, "P D"],
        u: Float[Tensor, "K P R"],
        v: Float[Tensor, "K R D"],
        tasks: tuple[str, ...],
    ) -> None:
        super().__init__()
        if len(tasks) != u.shape[0] or u.shape[0] != v.shape[0]:
            raise ValueError(f"{len(tasks)} tasks, {u.shape[0]} rows of u, {v.shape[0]} of v")
        self.tasks = tasks
        self.shared = nn.Parameter(shared.detach().clone().float())
        self.u = nn.Parameter(u.detach().clone().float())
        self.v = nn.Parameter(v.detach().clone().float())

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""
        return len(self.shared)

    def forward(self, task_ids: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """The prompt of each row."""
        # not self.u[task_ids]: on several threads its gradient adds up in an order of chance
        return compose(self.shared, self.u.index_select(0, task_ids), self.v.index_select(0, task_ids))


class SoftPrompts(nn.Module):
    """One plain prompt for each of K tasks: teachers, prompt tuning, SPoT."""

    def __init__(self, prompts: Float[Tensor, "K P D"], tasks: tuple[str, ...]) -> None:
        super().__init__()
        if len(tasks) != len(prompts):
            raise ValueError(f"{len(tasks)} tasks for {len(prompts)} prompts")
        self.tasks = tasks
        self.prompts = nn.Parameter(prompts.detach().clone().float())

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""
        return int(self.prompts.shape[1])

    def forward(self, task_ids: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """The prompt of each row."""
        return self.prompts.index_select(0, task_ids)


PromptModule = PromptBank | SoftPrompts
