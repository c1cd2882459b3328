"""Multitask prompt tuning (Wang et al. 2023, arXiv:2303.02861): shared prompt, task factors, distillation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from weft.config.training import DistillConfig, FactorConfig
from weft.data.batch import Batch
from weft.errors import ConfigError, did_you_mean
from weft.losses.objective import Loss, Totals
from weft.losses.targets import Live, TeacherTargets
from weft.losses.terms import hidden_distillation_sum, lm_loss_sum
from weft.models import Backbone, HiddenSpec, TextState
from weft.models.tuned import TunedModel
from weft.prompts.bank import PromptBank
from weft.prompts.factors import draw_factors, mean_factors


def build(backbone: Backbone, bank: PromptBank, *, train: str = "all", dropout: bool = False) -> TunedModel:
    """A model that trains a bank: P* and the factors, or (`factors`) the factors alone."""
    bank.to(backbone.device)
    trained = {"factors": [bank.u, bank.v]}
    if train == "all":
        trained = {"shared": [bank.shared], **trained}
    bank.shared.requires_grad_(train == "all")
    return TunedModel(backbone, bank, trained, bank.tasks, dropout=dropout)


def new_bank(
    shared: Float[Tensor, "P D"], factors: FactorConfig, tasks: tuple[str, ...], *, seed: int
) -> PromptBank:
    """A bank for source training: P* as given, factors as configured."""
    generator = torch.Generator().manual_seed(seed)
    u, v = draw_factors(len(tasks), *shared.shape, rank=factors.rank, init=factors.init, generator=generator)
    return PromptBank(shared, u.to(shared.device), v.to(shared.device), tasks)


def target_bank(source: PromptBank, starts: Sequence[str], tasks: tuple[str, ...]) -> PromptBank:
    """A bank for target tasks, from the source's P* and the mean of its factors, or source tasks' own.

    Args:
        source: the bank of the source stage.
        starts: `["mean"]` for all, or the source task from which each target starts.
        tasks: the target tasks.

    Raises:
        ConfigError: if a start is no source task.
    """
    with torch.no_grad():
        if list(starts) == ["mean"]:
            shared, u, v = mean_factors(source.shared, source.u, source.v)
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


def distillation_loss(
    teacher: TunedModel | None, distill: DistillConfig, targets: TeacherTargets | None = None
) -> Loss:
    """L_Total = L_PLM + weight * (L_Logits + L_Hidden), as a loss for `fit`.

    The teacher runs in its own pass, without gradient and dropout, on the texts that the student reads.

    Args:
        teacher: prompts for all tasks of the student, in its order; none: L_PLM alone.
        distill: weight, temperature, layers.
        targets: what the teacher says, made ahead; none: it runs in every step, and nothing is rounded.

    Source:
        Wang et al. 2023, section 3.3; lambda is 0.9 there.
    """
    hidden = HiddenSpec(distill.layers, distill.prompt_positions) if distill.hidden else None

    def loss(model: TunedModel, batch: Batch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        state = model.backbone.read(batch.sources)
        student = model(batch, state, hidden if teacher else None)
        terms = {"lm": lm_loss_sum(student.logits, batch.labels) / totals.target_tokens}
        if teacher is None or distill.weight == 0:
            return terms["lm"], _numbers(terms)
        taught = targets(batch) if targets is not None else _live(teacher, batch, state, hidden)
        if distill.logits:
            kl = taught.logit_sum(student.logits, batch.labels, distill.temperature)
            terms["logits"] = distill.weight * kl / totals.target_tokens
        for ours, theirs in taught.beside(student.states):
            distance = hidden_distillation_sum(ours.hidden, theirs, ours.mask)
            share = distill.weight * distance / totals.rows / len(student.states)
            terms["hidden"] = terms.get("hidden", torch.zeros_like(share)) + share
        return torch.stack(list(terms.values())).sum(), _numbers(terms)

    return loss


@torch.no_grad()
def _live(teacher: TunedModel, batch: Batch, state: TextState, hidden: HiddenSpec | None) -> Live:
    return Live(teacher(batch, state, hidden))


def _numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in terms.items()}
