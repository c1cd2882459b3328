"""Prompts that are mixed anew for every text, by attention over finished prompts."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from weft.prompts.bank import PromptModule

FIRST_WEIGHTS = 0.01  # standard deviation, as in the released code


class AttentionPrompts(PromptModule):
    """A prompt for each of K tasks, to which finished prompts are added in shares that depend on the text.

    Args:
        target: where the tasks' own prompts start, `[K, P, D]`.
        sources: the finished prompts, `[N, P, D]`; they stay as they are.
        tasks: names, in the order of the task ids.
        down: `[R, D]`, `up`: `[D, R]`, `gain` and `bias`: `[D]`: what makes a query of a text; all tasks
            share it.
        temperature: of the softmax over prompts; none: e * D, at 768 the released code's 2087.

    Source:
        Asai et al. 2022 (arXiv:2205.11961), section 3: P_instance = P_target + sum_j a_j P_j, the target's
        prompt among the P_j. The released code takes the maximum over padding too; here padding counts as
        nothing.
    """

    reads_texts = True
    sources: Tensor

    def __init__(
        self,
        target: Float[Tensor, "K P D"],
        sources: Float[Tensor, "N P D"],
        tasks: tuple[str, ...],
        *,
        down: Float[Tensor, "R D"],
        up: Float[Tensor, "D R"],
        gain: Float[Tensor, " D"],
        bias: Float[Tensor, " D"],
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.temperature = temperature or math.e * target.shape[-1]
        self.target = nn.Parameter(target.detach().clone().float())
        self.register_buffer("sources", sources.detach().clone().float())
        self.down, self.up, self.gain, self.bias = (
            nn.Parameter(one.detach().clone().float()) for one in (down, up, gain, bias)
        )

    @property
    def attention(self) -> list[nn.Parameter]:
        """What makes a query of a text."""
        return [self.down, self.up, self.gain, self.bias]

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""
        return int(self.target.shape[1])

    @property
    def width(self) -> int:
        """D, the size of a prompt's vectors."""
        return int(self.target.shape[2])

    def forward(self, task_ids: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """The tasks' own prompts, to which those of `read` add."""
        return self.target.index_select(0, task_ids)

    def read(
        self, task_ids: Int[Tensor, " B"], texts: Float[Tensor, "B S D"], mask: Int[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B P D"]]:
        """Texts as they are, and each row's prompt with its share of all."""
        own = self(task_ids)
        shares = self.shares(own, texts, mask)
        mixed = torch.einsum("bn,npd->bpd", shares[:, :-1], self.sources)
        return texts, own + mixed + shares[:, -1, None, None] * own

    def shares(
        self, own: Float[Tensor, "B P D"], texts: Float[Tensor, "B S D"], mask: Int[Tensor, "B S"]
    ) -> Float[Tensor, "B M"]:
        """The share of every source's prompt and, last, of the task's own; each row's add up to 1."""
        pooled = texts.float().masked_fill(mask[..., None] == 0, -torch.inf).amax(1)  # [B, D]
        query = silu(pooled @ self.down.T) @ self.up.T
        query = layer_norm(query, (self.width,), self.gain, self.bias)
        known = query @ self.sources.amax(1).T  # [B, N]
        scores = torch.cat([known, (query * own.amax(1)).sum(1, keepdim=True)], 1)
        return torch.softmax(scores / self.temperature, 1)


def new_attention(width: int, size: int, *, seed: int) -> dict[str, Tensor]:
    """First values of what makes a query of a text: small random matrices, and a plain layer norm.

    Args:
        width: D.
        size: R, between the two matrices.
        seed: of the draw.
    """
    draw = torch.Generator().manual_seed(seed)
    return {
        "down": torch.randn(size, width, generator=draw) * FIRST_WEIGHTS,
        "up": torch.randn(width, size, generator=draw) * FIRST_WEIGHTS,
        "gain": torch.ones(width),
        "bias": torch.zeros(width),
    }
