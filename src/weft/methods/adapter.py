"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751)."""

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.methods.method import Setup
from weft.methods.weights import WeightsMethod

if TYPE_CHECKING:
    from weft.models.tuned import TunedModel


class Adapters(WeightsMethod):
    """Small networks behind self-attention and feed-forward part of every layer, for all tasks of a run."""

    name: Literal["adapter"] = "adapter"
    bottleneck: int = Field(24, gt=0, description="numbers between an adapter's two products")
    norms: bool = Field(True, description="train the model's layer norms as well, as the paper does")

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "adapters"

    @property
    def groups(self) -> set[str]:
        """Adapters and layer norms in one group."""
        return {"adapter"}

    def check(self, setup: Setup) -> None:
        """Refuse a family of unknown layers.

        Raises:
            UnsupportedError: with the remedy.
        """
        from weft.models.added import layers_of

        layers_of(setup.backbone.lm)

    def model(self, setup: Setup) -> "TunedModel":
        """The base model with adapters that change nothing yet."""
        from weft.models.adapters import add_adapters
        from weft.models.added import with_added

        add = partial(add_adapters, bottleneck=self.bottleneck, norms_too=self.norms)
        return with_added(setup.backbone, "adapter", add, setup.names, seed=setup.seed, dropout=setup.dropout)
