"""What methods share that train weights of the model, its own or added ones, and no prompt."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from weft.methods.method import Saved, Setup, Starts, TrainedMethod

if TYPE_CHECKING:
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel


class WeightsMethod(TrainedMethod):
    """A method whose model is the same for all tasks of a run, and whose run keeps what it trained."""

    keeps: ClassVar[Literal["weights"]] = "weights"
    touches_weights: ClassVar[bool] = True

    @abstractmethod
    def model(self, setup: Setup) -> "TunedModel":
        """The model before training, with the same names of what is trained each time it is built."""

    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """The model before training; every task starts from the base model."""
        return self.model(setup), {name: {"from": "base model"} for name in setup.names}

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model with the weights that a run kept."""
        from weft.evaluation.answering import TunedAnswerer

        model = self.model(setup)
        model.restore(saved.tensors)
        return TunedAnswerer(model, setup.tasks, setup.source_tokens)
