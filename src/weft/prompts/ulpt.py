"""Prompts as short codes, taken up to full width by a frozen random matrix that is drawn, not kept."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from weft.errors import ArtifactError
from weft.prompts.bank import PromptModule

DRAWS = 1_000_000  # numbers of draws, which a file holds exactly as float32


class ProjectedPrompts(PromptModule):
    """Codes, a scale and a shift for each of K tasks; all share one random projection `[R, D]`.

    Args:
        codes: `[K, P, R]`.
        scale: `[K, D]`.
        shift: `[K, D]`.
        draw: number of the projection's draw, from 0, `[1]`.
        witness: the projection's last row `[D]`, by which another draw is known; none: this is the first.
        tasks: names, in the order of the task ids.

    Raises:
        ArtifactError: if the draw gives another projection than that of the witness.

    Source:
        Wu et al. 2025 (arXiv:2502.04501): P = (Z R) * scale + shift, R frozen, of variance 1 / r.
    """

    draw: Tensor
    witness: Tensor
    projection: Tensor

    def __init__(
        self,
        codes: Float[Tensor, "K P R"],
        scale: Float[Tensor, "K D"],
        shift: Float[Tensor, "K D"],
        draw: Float[Tensor, " 1"],
        tasks: tuple[str, ...],
        witness: Float[Tensor, " D"] | None = None,
    ) -> None:
        super().__init__()
        self.tasks = tasks
        drawn = projection(int(draw[0]), codes.shape[-1], scale.shape[-1])
        if witness is not None and not torch.equal(witness.cpu(), drawn[-1]):
            raise ArtifactError(
                "the frozen projection cannot be drawn again: this version of NumPy draws other numbers",
                fix="use the version of NumPy that env.json names, or train the run again",
                code="A07",
            )
        self.codes, self.scale, self.shift = (
            nn.Parameter(one.detach().clone().float()) for one in (codes, scale, shift)
        )
        self.register_buffer("draw", draw.detach().clone().float())
        self.register_buffer("witness", drawn[-1].clone())
        self.register_buffer("projection", drawn, persistent=False)

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""
        return int(self.codes.shape[1])

    @property
    def width(self) -> int:
        """D, the size of a prompt's vectors."""
        return int(self.scale.shape[1])

    def forward(self, task_ids: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """The prompt of each row."""
        codes, scale, shift = (one.index_select(0, task_ids) for one in (self.codes, self.scale, self.shift))
        return (codes @ self.projection) * scale[:, None] + shift[:, None]


def projection(draw: int, rank: int, width: int) -> Float[Tensor, "R D"]:
    """The frozen projection of a draw: uniform, of mean 0 and variance 1 / R, the same on every machine."""
    numbers = np.random.Generator(np.random.PCG64(draw)).random((rank, width))
    return torch.from_numpy(((2 * numbers - 1) * np.sqrt(3 / rank)).astype(np.float32))


def new_codes(
    tasks: tuple[str, ...], length: int, rank: int, width: int, *, size: float, seed: int
) -> ProjectedPrompts:
    """First values: standard normal codes, a scale that gives prompts of a size, no shift.

    Args:
        tasks: names.
        length: P.
        rank: R.
        width: D.
        size: root mean square of the prompts' entries: that of embeddings.
        seed: of codes and projection.
    """
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(len(tasks), length, rank, generator=generator)
    scale, shift = torch.full((len(tasks), width), size), torch.zeros(len(tasks), width)
    return ProjectedPrompts(codes, scale, shift, torch.tensor([float(seed % DRAWS)]), tasks)
