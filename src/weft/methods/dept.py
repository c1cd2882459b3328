"""DePT (Shi and Lipani 2023, arXiv:2309.05173): a short prompt, and low-rank offsets of the text."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from weft.errors import ConfigError
from weft.methods.kept import check_shapes
from weft.methods.method import Need, Saved, Setup, Starts, TrainedMethod

if TYPE_CHECKING:
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel

AXES = {"prompts": "KPD", "a": "KSR", "b": "KRD"}


class DePT(TrainedMethod):
    """Decomposed prompt tuning; as long a text as the limits of its tasks say has offsets."""

    name: Literal["dept"] = "dept"
    start: str = Field("fresh", description="of the prompt: fresh, nearest (teacher), or a teacher's task")
    length: int | None = Field(
        None, gt=0, description="prompt tokens, m in the paper: the first of prompt.length; none: all"
    )
    rank: int = Field(45, gt=0, description="of the offsets, r in the paper")
    keeps: ClassVar[Literal["arrays"]] = "arrays"
    reads_texts: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "DePT"

    @property
    def groups(self) -> set[str]:
        """The prompt and the offsets; the paper gives the offsets a rate far below the prompt's."""
        return {"prompt", "offsets"}

    @property
    def needs(self) -> frozenset[Need]:
        """Teachers, unless it starts fresh."""
        return frozenset() if self.start == "fresh" else frozenset({"teachers"})

    @property
    def starts(self) -> frozenset[str]:
        """Fresh, or the nearest teacher."""
        return frozenset({"fresh", "nearest"})

    def check(self, setup: Setup) -> None:
        """Refuse more tokens than prompts have.

        Raises:
            ConfigError: with both numbers.
        """
        length = self.length or 0
        if length > setup.prompt.length:
            raise ConfigError(
                f"method.length ({length}) exceeds prompt.length ({setup.prompt.length})",
                where="method.length",
                fix="raise prompt.length, or lower method.length",
                code="C06",
            )

    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """A prompt and offsets for each task; the offsets start at 0."""
        from weft.methods.first_prompts import first_prompts
        from weft.models.tuned import TunedModel
        from weft.prompts.dept import OffsetPrompts, new_offsets

        self.check(setup)
        prompts, record = first_prompts(self.start, setup)
        width, count = setup.backbone.width, len(setup.tasks)
        a, b = new_offsets(
            count, setup.backbone.codec.whole(max(setup.source_tokens)), self.rank, width, seed=setup.seed
        )
        module = OffsetPrompts(prompts[:, : self.length], a, b, setup.names).to(setup.backbone.device)
        trained = {"prompt": [module.prompts], "offsets": [module.a, module.b]}
        return TunedModel(setup.backbone, module, trained, setup.names, dropout=setup.dropout), record

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model under the prompts and the offsets that a run kept."""
        from weft.evaluation.answering import TunedAnswerer
        from weft.models.tuned import restored
        from weft.prompts.dept import OffsetPrompts

        check_shapes(saved.tensors, AXES, K=len(setup.tasks), D=setup.backbone.width)
        module = OffsetPrompts(tasks=setup.names, **saved.tensors)
        return TunedAnswerer(restored(setup.backbone, module), setup.tasks, setup.source_tokens)
