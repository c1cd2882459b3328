"""Full fine-tuning: every weight of the model, the far end of the comparison."""

from typing import TYPE_CHECKING, ClassVar, Literal

from weft.methods.method import Saved, Setup, Starts, TrainedMethod

if TYPE_CHECKING:
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel


class FullFineTuning(TrainedMethod):
    """Full fine-tuning: every weight of the model."""

    name: Literal["full"] = "full"
    keeps: ClassVar[Literal["weights"]] = "weights"
    touches_weights: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "full fine-tuning"

    @property
    def groups(self) -> set[str]:
        """All weights in one group."""
        return {"model"}

    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """All weights of the base model."""
        from weft.models.tuned import with_all_weights

        model = with_all_weights(setup.backbone, setup.names, dropout=setup.dropout)
        return model, {name: {"from": "base model"} for name in setup.names}

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model with the weights that a run kept."""
        from weft.evaluation.answering import TunedAnswerer
        from weft.models.tuned import check_weights, with_all_weights

        check_weights(setup.backbone, saved.tensors)
        model = with_all_weights(setup.backbone, setup.names)
        model.load_state(dict(saved.tensors))
        return TunedAnswerer(model, setup.tasks, setup.source_tokens)
