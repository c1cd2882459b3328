"""Multitask prompt tuning of target tasks (Wang et al. 2023, arXiv:2303.02861).

What makes the shared prompt, the source stage, is told in `weft.stages`; its loss is `losses.distillation`.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from weft.methods.method import Need, Saved, Setup, Starts, TrainedMethod

if TYPE_CHECKING:
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel


MEANS = ("mean", "plain_mean")


class MPT(TrainedMethod):
    """Multitask prompt tuning of a target task."""

    name: Literal["mpt"] = "mpt"
    start: str = Field(
        "mean",
        description="mean of the sources' factors, in a fixed gauge; plain_mean: as they are; nearest, or a "
        "source task",
    )
    train: Literal["all", "factors", "shared"] = Field(
        "all", description="P* and factors, or one of them alone"
    )
    keeps: ClassVar[Literal["bank"]] = "bank"

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "MPT"

    @property
    def groups(self) -> set[str]:
        """P* and the factors, or one of them alone."""
        return {"shared", "factors"} if self.train == "all" else {self.train}

    @property
    def needs(self) -> frozenset[Need]:
        """The bank of the source stage."""
        return frozenset({"source"})

    @property
    def starts(self) -> frozenset[str]:
        """The mean of the sources' factors, fixed in gauge or plain, or those of the nearest source."""
        return frozenset({*MEANS, "nearest"})

    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """P* of the source stage, and factors for each task; several tasks share P*."""
        from weft.models.tuned import with_bank
        from weft.prompts.bank import target_bank
        from weft.prompts.starts import picks

        source = setup.source
        if self.start in MEANS:
            record: Starts = {name: {"from": self.start} for name in setup.names}
            bank = target_bank(source, [self.start], setup.names)
        else:
            record = picks(self.start, source.composed(), setup.names, setup.nearest)
            bank = target_bank(source, [str(record[name]["from"]) for name in setup.names], setup.names)
        return with_bank(setup.backbone, bank, train=self.train, dropout=setup.dropout), record

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model under the prompts that a run's bank composes."""
        from weft.evaluation.answering import TunedAnswerer
        from weft.models.tuned import restored
        from weft.prompts.bank import PromptBank

        kept = saved.tensors
        bank = PromptBank(kept["shared"], kept["u"], kept["v"], setup.names)
        return TunedAnswerer(restored(setup.backbone, bank), setup.tasks, setup.source_tokens)
