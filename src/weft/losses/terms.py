"""Distillation losses and the language-model loss, as sums over the rows of a batch.

They return sums, not means, because a step may be cut into micro-batches: the caller divides by the
counts of the whole step, so that accumulation equals the big batch.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weft.data.batch import IGNORE


def lm_loss_sum(logits: Float[Tensor, "B T V"], labels: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Cross-entropy of the target tokens, summed over them (nats).

    Args:
        logits: the logit at position t predicts label t.
        labels: -100 where there is no target.

    Source:
        Wang et al. 2023 (arXiv:2303.02861), L_PLM.
    """
    keep = labels != IGNORE
    return F.cross_entropy(_wide(logits[keep]), labels[keep], reduction="sum")


def lm_loss_rows(logits: Float[Tensor, "B T V"], labels: Int[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """The same for each row apart."""
    keep = labels != IGNORE
    each = _wide(logits.new_zeros(labels.shape))
    each[keep] = F.cross_entropy(_wide(logits[keep]), labels[keep], reduction="none")
    return each.sum(1)


def logit_distillation_sum(
    student: Float[Tensor, "B T V"],
    teacher: Float[Tensor, "B T V"],
    labels: Int[Tensor, "B T"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """KL(teacher || student) of the next-token distributions at target positions, summed over them.

    Args:
        student: logits under the student's prompt.
        teacher: logits under the teacher's prompt; no gradient flows into them.
        labels: -100 where there is no target; such positions never count.
        temperature: T of both softmaxes; the result is multiplied by T squared, which keeps the size of
            its gradient (Hinton et al. 2015).

    Source:
        Wang et al. 2023, L_Logits.
    """
    keep = labels != IGNORE
    log_student = F.log_softmax(_wide(student[keep]) / temperature, -1)
    log_teacher = F.log_softmax(_wide(teacher[keep].detach()) / temperature, -1)
    return F.kl_div(log_student, log_teacher, reduction="sum", log_target=True) * temperature**2


def hidden_distillation_sum(
    student: Float[Tensor, "B N D"], teacher: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, ""]:
    """Squared distance of hidden states: mean over each row's counted positions and D, summed over rows.

    Args:
        student: a layer's states under the student's prompt.
        teacher: the same layer under the teacher's prompt; no gradient flows into it.
        mask: positions that count. Padding must be False.

    Raises:
        ValueError: if a row has no position that counts: its mean would be 0 / 0.

    Source:
        Wang et al. 2023, L_Hidden. The paper does not fix the reduction; ours gives every row the same
        weight, whatever its length (docs/decisions/0004-hidden-loss.md).
    """
    counts = mask.sum(1)
    if not bool((counts > 0).all()):
        raise ValueError("a row has no position to compare")
    distance = _wide(student) - _wide(teacher.detach())
    kept = torch.where(mask[..., None], distance, 0.0)  # before the square, so that padding has no gradient
    return (kept.pow(2).mean(-1).sum(1) / counts).sum()


def _wide(x: Tensor) -> Tensor:
    """At least float32: sums over a vocabulary need it."""
    return x if x.dtype == torch.float64 else x.float()
