"""Prompts as modules: task ids in, prompts out, `task_ids [B] -> [B, P, D]`.

Where the prompt stands is the backbone's matter.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from weft.config.training import FactorConfig
from weft.errors import ConfigError, did_you_mean
from weft.prompts.factors import draw_factors, mean_factors, plain_mean


def compose(
    shared: Float[Tensor, "P D"], u: Float[Tensor, "*K P R"], v: Float[Tensor, "*K R D"]
) -> Float[Tensor, "*K P D"]:
    """Task prompts from the shared prompt and task factors: `shared * (u @ v)`.

    Source:
        Wang et al. 2023 (arXiv:2303.02861), section 3.2: P_k = P* o W_k, W_k = u_k (x) v_k^T; here any rank.
    """
    return shared * (u @ v)


class PromptModule(nn.Module):
    """What every prompt module has.

    Attributes:
        tasks: names, in the order of the task ids.
        reads_texts: whether prompts depend on the text, or the text's embeddings on the task: then `read`
            makes both, no text is kept and no batch shared; `forward` gives the part of the prompt that is
            the same for every text.
    """

    tasks: tuple[str, ...]
    reads_texts = False
    fixed = False

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """D, the size of a prompt's vectors."""
        raise NotImplementedError

    def read(
        self, task_ids: Int[Tensor, " B"], texts: Float[Tensor, "B S D"], mask: Int[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B P D"]]:
        """Texts' embeddings as the model shall see them, and the prompt of each row."""
        return texts, self(task_ids)

    def mask(self, task_ids: Int[Tensor, " B"]) -> Int[Tensor, "B P"] | None:
        """1 where a row's prompt has a token; none where all of them have all."""
        return None

    def vectors(self) -> Float[Tensor, "K N D"]:
        """Every task's vectors that training moves and the model reads, by which runaway ones are known."""
        device = next(self.parameters()).device
        found: Tensor = self(torch.arange(len(self.tasks), device=device))
        return found


class PromptBank(PromptModule):
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

    @property
    def width(self) -> int:
        """D, the size of a prompt's vectors."""
        return int(self.shared.shape[1])

    @torch.no_grad()
    def composed(self) -> dict[str, Float[Tensor, "P D"]]:
        """Every task's prompt by name."""
        every = self(torch.arange(len(self.tasks), device=self.shared.device))
        return dict(zip(self.tasks, every, strict=True))

    def forward(self, task_ids: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """The prompt of each row."""
        # not self.u[task_ids]: on several threads its gradient adds up in an order of chance
        return compose(self.shared, self.u.index_select(0, task_ids), self.v.index_select(0, task_ids))


class SoftPrompts(PromptModule):
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

    @property
    def width(self) -> int:
        """D, the size of a prompt's vectors."""
        return int(self.prompts.shape[2])

    def forward(self, task_ids: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """The prompt of each row."""
        return self.prompts.index_select(0, task_ids)


class FixedPrompt(PromptModule):
    """One prompt for all tasks, of which nothing is trained: a written text's embeddings."""

    fixed = True

    def __init__(self, prompt: Float[Tensor, "P D"], tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.tasks = tasks
        self.prompt: Tensor
        self.register_buffer("prompt", prompt.detach().clone().float())

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""
        return int(self.prompt.shape[0])

    @property
    def width(self) -> int:
        """D, the size of a prompt's vectors."""
        return int(self.prompt.shape[1])

    def vectors(self) -> Float[Tensor, "K N D"]:
        """The prompt, once."""
        return self.prompt[None]

    def forward(self, task_ids: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """The prompt, for each row."""
        return self.prompt.expand(len(task_ids), -1, -1)


def new_bank(
    shared: Float[Tensor, "P D"], factors: FactorConfig, tasks: tuple[str, ...], *, seed: int
) -> PromptBank:
    """A bank for source training: P* as given, factors as configured."""
    generator = torch.Generator().manual_seed(seed)
    u, v = draw_factors(len(tasks), *shared.shape, rank=factors.rank, init=factors.init, generator=generator)
    if not factors.train:
        u, v = torch.ones_like(u), torch.ones_like(v)
    return PromptBank(shared, u.to(shared.device), v.to(shared.device), tasks)


def target_bank(source: PromptBank, starts: Sequence[str], tasks: tuple[str, ...]) -> PromptBank:
    """A bank for target tasks, from the source's P* and the mean of its factors, or source tasks' own.

    Args:
        source: the bank of the source stage.
        starts: `["mean"]` or `["plain_mean"]` for all, or the source task from which each target starts.
        tasks: the target tasks.

    Raises:
        ConfigError: if a start is no source task.
    """
    with torch.no_grad():
        if list(starts) in (["mean"], ["plain_mean"]):
            mean = mean_factors if starts[0] == "mean" else plain_mean
            shared, u, v = mean(source.shared, source.u, source.v)
            return PromptBank(shared, u.repeat(len(tasks), 1, 1), v.repeat(len(tasks), 1, 1), tasks)
        unknown = [start for start in starts if start not in source.tasks]
        if unknown:
            raise ConfigError(
                f"there is no source task {unknown[0]!r} to start from",
                where="method.start",
                fix=did_you_mean(unknown[0], [*source.tasks, "mean", "nearest"]),
            )
        places = [source.tasks.index(start) for start in starts]
        return PromptBank(source.shared, source.u[places], source.v[places], tasks)
