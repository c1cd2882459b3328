"""BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): bias terms alone."""

from typing import TYPE_CHECKING, Literal

from weft.methods.method import Setup
from weft.methods.weights import WeightsMethod

if TYPE_CHECKING:
    from weft.models.tuned import TunedModel


class BitFit(WeightsMethod):
    """All bias terms; a model without any gets one for every linear layer and layer norm."""

    name: Literal["bitfit"] = "bitfit"

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "BitFit"

    @property
    def groups(self) -> set[str]:
        """All bias terms in one group."""
        return {"bias"}

    def model(self, setup: Setup) -> "TunedModel":
        """The base model, whose added biases are zero."""
        from weft.models.added import with_added
        from weft.models.biases import train_biases

        return with_added(
            setup.backbone, "bias", train_biases, setup.names, seed=setup.seed, dropout=setup.dropout
        )
