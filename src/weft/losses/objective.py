"""What a training step minimises: a value and its terms, in parts that add up to the step."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from weft.data.batch import Batch
from weft.losses.terms import lm_loss_sum
from weft.models.tuned import TunedModel


@dataclass(frozen=True)
class Totals:
    """Counts of a whole step, by which sums over micro-batches are divided."""

    rows: int
    target_tokens: int


class Loss(Protocol):
    """Value to minimise for a part of a step, and its terms for the log; all parts add up to the step."""

    def __call__(
        self, model: TunedModel, batch: Batch, totals: Totals
    ) -> tuple[Tensor, dict[str, float]]: ...


def lm_loss(model: TunedModel, batch: Batch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
    """L_PLM: mean cross-entropy of the target tokens of the whole step."""
    value = lm_loss_sum(model(batch).logits, batch.labels) / totals.target_tokens
    return value, {"lm": float(value.detach())}
