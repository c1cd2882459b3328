"""Low-rank adaptation, LoRA (Hu et al. 2021, arXiv:2106.09685), with PEFT's layers."""

import re
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.errors import ConfigError
from weft.methods.method import Setup, Starts
from weft.methods.weights import WeightsMethod

if TYPE_CHECKING:
    from weft.models.tuned import TunedModel


class LoRA(WeightsMethod):
    """Low-rank additions to some linear layers; several tasks of a run share them."""

    name: Literal["lora"] = "lora"
    rank: int = Field(8, gt=0, description="of each addition")
    alpha: float = Field(16.0, gt=0, description="an addition is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        (), description="ends of the names of the layers that get one; none: those of queries and values"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of what additions read; needs base.dropout: true")

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "LoRA"

    @property
    def groups(self) -> set[str]:
        """All additions in one group."""
        return {"lora"}

    def check(self, setup: Setup) -> None:
        """Refuse dropout of the additions alone, and layers that the model does not have.

        Raises:
            ConfigError: naming the setting.
            UnsupportedError: without PEFT, or for a family of unknown layers.
        """
        from weft.models.low_rank import check_targets

        if self.dropout and not setup.dropout:
            raise ConfigError(
                "the additions' dropout is on only where the model's is",
                where="method.dropout",
                fix="set base.dropout: true, or leave method.dropout out",
            )
        check_targets(setup.backbone.lm, self._targets(setup))

    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """The model before training."""
        self.check(setup)
        return super().build(setup)

    def model(self, setup: Setup) -> "TunedModel":
        """The base model with additions that add nothing yet."""
        from weft.models.added import with_added
        from weft.models.low_rank import add_lora

        targets = self._targets(setup)
        add = partial(add_lora, rank=self.rank, alpha=self.alpha, dropout=self.dropout, targets=targets)
        return with_added(setup.backbone, "lora", add, setup.names, seed=setup.seed, dropout=setup.dropout)

    def _targets(self, setup: Setup) -> tuple[str, ...]:
        """Patterns for the ends of the layers' names."""
        from weft.models.added import layers_of

        if self.targets:
            return tuple(map(re.escape, self.targets))
        family = layers_of(setup.backbone.lm)
        return tuple(dict.fromkeys((family.query, family.value)))
