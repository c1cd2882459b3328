"""IA3 (Liu et al. 2022, arXiv:2205.05638), with PEFT's layers."""

from typing import TYPE_CHECKING, Literal

from weft.methods.method import Setup
from weft.methods.weights import WeightsMethod

if TYPE_CHECKING:
    from weft.models.tuned import TunedModel


class IA3(WeightsMethod):
    """Learned scales of keys, values and the feed-forward part's hidden values; tasks of a run share them."""

    name: Literal["ia3"] = "ia3"

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "IA3"

    @property
    def groups(self) -> set[str]:
        """All scales in one group."""
        return {"ia3"}

    def check(self, setup: Setup) -> None:
        """Refuse a family of unknown layers, and a missing PEFT.

        Raises:
            UnsupportedError: with the remedy.
        """
        from weft.models.low_rank import check_targets, ia3_targets

        check_targets(setup.backbone.lm, ia3_targets(setup.backbone.lm))

    def model(self, setup: Setup) -> "TunedModel":
        """The base model with scales of one."""
        from weft.models.added import with_added
        from weft.models.low_rank import add_ia3

        return with_added(setup.backbone, "ia3", add_ia3, setup.names, seed=setup.seed, dropout=setup.dropout)
