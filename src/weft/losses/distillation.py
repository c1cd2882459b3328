"""Prompt distillation: a shared prompt learns from its teachers' logits and hidden states."""

import torch
from torch import Tensor

from weft.config.training import DistillConfig
from weft.data.batch import Batch
from weft.losses.objective import Loss, Totals
from weft.losses.targets import Live, TeacherTargets
from weft.losses.terms import hidden_distillation_sum, lm_loss_sum
from weft.models import HiddenSpec, TextState
from weft.models.tuned import TunedModel


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
        if teacher is None or not distill.teaches:
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
