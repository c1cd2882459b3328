"""Activated LoRA (Greenewald et al. 2025, arXiv:2504.12397): a frozen model reads, an adapted one answers."""

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.methods.method import Setup
from weft.methods.weights import WeightsMethod

if TYPE_CHECKING:
    from weft.models.tuned import TunedModel


class ActivatedLoRA(WeightsMethod):
    """Low-rank additions from an invocation behind the text on; all before is read once, and kept."""

    name: Literal["alora"] = "alora"
    invocation: str = Field("Answer:", description="text behind which the additions act, itself with it")
    rank: int = Field(32, gt=0, description="of each addition")
    alpha: float = Field(32.0, gt=0, description="an addition is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        (), description="ends of the names of the layers that get one; none: queries, keys and values"
    )

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "activated LoRA"

    @property
    def groups(self) -> set[str]:
        """All additions in one group."""
        return {"lora"}

    def check(self, setup: Setup) -> None:
        """Refuse a model that reads its prompt first, an empty invocation, and unknown layers.

        Raises:
            ConfigError: naming the setting.
            UnsupportedError: with the remedy.
        """
        from weft.models.activated import invocation_tokens, layers_that_act, text_first
        from weft.models.low_rank import check_targets

        invocation_tokens(text_first(setup.backbone), self.invocation)
        lm = setup.backbone.lm
        check_targets(lm, layers_that_act(lm, tuple(map(re.escape, self.targets))))

    def model(self, setup: Setup) -> "TunedModel":
        """The base model with additions that add nothing yet, and the invocation as a fixed prompt.

        Raises:
            UnsupportedError: for an encoder-decoder, or a prompt before the text.
        """
        from weft.models.activated import with_activated

        return with_activated(
            setup.backbone,
            setup.names,
            invocation=self.invocation,
            rank=self.rank,
            alpha=self.alpha,
            targets=tuple(map(re.escape, self.targets)),
            seed=setup.seed,
            dropout=setup.dropout,
        )
