"""Full fine-tuning: every weight of the model, the far end of the comparison.

Rates are far below those of prompts: on pocket with all rows, 1e-4 and 3e-4 were chosen on dev rows, and at
1e-3 it fell to 21 % on AG News (docs/pocket-quality.jsonl). With 16 rows an answer and 12 steps on smollm2,
3e-4 was the best of 3e-5, 1e-4 and 3e-4 (docs/decisions/0005).
"""

from typing import TYPE_CHECKING, Literal

from weft.methods.method import Saved, Setup
from weft.methods.weights import WeightsMethod

if TYPE_CHECKING:
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel


class FullFineTuning(WeightsMethod):
    """Full fine-tuning: every weight of the model."""

    name: Literal["full"] = "full"

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "full fine-tuning"

    @property
    def groups(self) -> set[str]:
        """All weights in one group."""
        return {"model"}

    def model(self, setup: Setup) -> "TunedModel":
        """All weights of the base model."""
        from weft.models.tuned import with_all_weights

        return with_all_weights(setup.backbone, setup.names, dropout=setup.dropout)

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model with the weights that a run kept, once they are known to be all of its own."""
        from weft.models.tuned import check_weights

        check_weights(setup.backbone, saved.tensors)
        return super().restore(setup, saved)
