"""Task factors: first values, a form that does not depend on how they were written, and their mean."""

import torch
from jaxtyping import Float
from torch import Tensor

FACTOR_NOISE = 0.02


def draw_factors(
    tasks: int, length: int, width: int, *, rank: int, init: str, generator: torch.Generator
) -> tuple[Float[Tensor, "K P R"], Float[Tensor, "K R D"]]:
    """First values of u and v.

    `ones` gives a product of one with small noise, so that every P_k starts at P*; `uniform` draws from
    U(-0.5, 0.5); `normal-0.02` draws as PEFT does, which nearly zeroes the prompt.

    Raises:
        ValueError: for a rank outside 1..min(length, width), or an unknown `init`.
    """
    if not 1 <= rank <= min(length, width):
        raise ValueError(f"rank must lie between 1 and {min(length, width)}, not {rank}")
    shapes = ((tasks, length, rank), (tasks, rank, width))
    if init == "ones":
        noise = [torch.randn(shape, generator=generator) * FACTOR_NOISE for shape in shapes]
        return (1 + noise[0]) / rank, 1 + noise[1]
    if init == "uniform":
        return tuple(torch.rand(shape, generator=generator) - 0.5 for shape in shapes)  # type: ignore[return-value]
    if init == "normal-0.02":
        return tuple(torch.randn(shape, generator=generator) * 0.02 for shape in shapes)  # type: ignore[return-value]
    raise ValueError(f"unknown start of the factors: {init!r}")


def normalise_gauge(
    shared: Float[Tensor, "P D"], u: Float[Tensor, "K P 1"], v: Float[Tensor, "K 1 D"]
) -> tuple[Float[Tensor, "P D"], Float[Tensor, "K P 1"], Float[Tensor, "K 1 D"]]:
    """The same rank-one prompts in a form that does not depend on how they were written.

    P* -> diag(a) P* diag(b), u_k -> u_k / a, v_k -> v_k / b, and each task's (u, v) -> (c u, v / c), change
    no prompt, but they change the mean of the factors. Here each task's factors get magnitudes of
    equal geometric mean and signs that agree with the first task's, and across tasks every row and column
    of the factors gets geometric mean one and a positive majority; the rest goes into P*.
    """
    u, v = u[..., 0].double(), v[:, 0].double()  # [K, P], [K, D]
    agreement = (u.sign() * u[:1].sign()).sum(1) + (v.sign() * v[:1].sign()).sum(1)  # [K]
    flips = _majority(agreement, tie=v[:, 0] * v[0, 0])[:, None]
    size_u, size_v = _geometric_mean(u, 1), _geometric_mean(v, 1)  # [K, 1]
    balance = (size_v / size_u).sqrt() * flips
    u, v = u * balance, v / balance
    a = _geometric_mean(u, 0)[0] * _majority(u.sign().sum(0), tie=u[0])  # [P]
    b = _geometric_mean(v, 0)[0] * _majority(v.sign().sum(0), tie=v[0])  # [D]
    fixed = a[:, None] * shared.double() * b
    return fixed.float(), (u / a)[..., None].float(), (v / b)[:, None].float()


def _majority(votes: Tensor, *, tie: Tensor) -> Tensor:
    """+1 or -1 by the sign of a sum of signs; where they balance, by the sign of `tie`."""
    votes = torch.where(votes == 0, tie, votes)
    return torch.where(votes < 0, -1.0, 1.0).to(votes.dtype)


def _geometric_mean(x: Tensor, dim: int) -> Tensor:
    """Geometric mean of the magnitudes, kept away from 0."""
    return x.abs().clamp_min(1e-12).log().mean(dim, keepdim=True).exp()


def mean_factors(
    shared: Float[Tensor, "P D"], u: Float[Tensor, "K P R"], v: Float[Tensor, "K R D"]
) -> tuple[Float[Tensor, "P D"], Float[Tensor, "1 P R"], Float[Tensor, "1 R D"]]:
    """A shared prompt and the mean of the tasks' factors, the start of a new task.

    Rank one: the mean of u and of v, after `normalise_gauge`. Higher ranks: the mean of the products
    u_k v_k, cut to the same rank by a singular value decomposition.

    Source:
        Wang et al. 2023, section 3.3: target factors start at the average of the source factors. The paper
        does not fix the gauge; docs/decisions/0003-gauge.md says why we do.
    """
    if u.shape[-1] == 1:
        shared, u, v = normalise_gauge(shared, u, v)
        return shared, u.mean(0, keepdim=True), v.mean(0, keepdim=True)
    left, sizes, right = torch.linalg.svd((u.double() @ v.double()).mean(0), full_matrices=False)
    rank = u.shape[-1]
    root = sizes[:rank].sqrt()
    return shared, (left[:, :rank] * root)[None].float(), (root[:, None] * right[:rank])[None].float()


def plain_mean(
    shared: Float[Tensor, "P D"], u: Float[Tensor, "K P R"], v: Float[Tensor, "K R D"]
) -> tuple[Float[Tensor, "P D"], Float[Tensor, "1 P R"], Float[Tensor, "1 R D"]]:
    """The shared prompt and the mean of the factors as training left them, to compare with `mean_factors`.

    Source:
        PEFT's `AVERAGE_SOURCE_TASKS`. It depends on how the factors are written: see `normalise_gauge`.
    """
    return shared, u.mean(0, keepdim=True), v.mean(0, keepdim=True)
