"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691); SPoT (Vu et al. 2022, arXiv:2110.07904)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from weft.methods.kept import with_kept_prompts
from weft.methods.method import Need, Saved, Setup, Starts, TrainedMethod

if TYPE_CHECKING:
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel


class PromptTuning(TrainedMethod):
    """Vanilla prompt tuning; SPoT when it starts from a teacher."""

    name: Literal["prompt_tuning"] = "prompt_tuning"
    start: str = Field("fresh", description="fresh, nearest (teacher on these rows), or a teacher's task")
    keeps: ClassVar[Literal["soft"]] = "soft"

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "prompt tuning from scratch" if self.start == "fresh" else "SPoT"

    @property
    def groups(self) -> set[str]:
        """The prompts."""
        return {"prompt"}

    @property
    def needs(self) -> frozenset[Need]:
        """Teachers, unless it starts fresh."""
        return frozenset() if self.start == "fresh" else frozenset({"teachers"})

    @property
    def starts(self) -> frozenset[str]:
        """Fresh, or the nearest teacher."""
        return frozenset({"fresh", "nearest"})

    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """A prompt for each task, from scratch or from a teacher's."""
        from weft.methods.first_prompts import first_prompts
        from weft.models.tuned import with_prompts

        prompts, record = first_prompts(self.start, setup)
        return with_prompts(setup.backbone, prompts, setup.names, dropout=setup.dropout), record

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model under the prompts that a run kept."""
        return with_kept_prompts(setup, saved)
