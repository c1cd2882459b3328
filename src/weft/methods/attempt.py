"""ATTEMPT (Asai et al. 2022, arXiv:2205.11961): finished prompts, mixed for every text by attention."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from weft.errors import ConfigError
from weft.methods.kept import check_shapes
from weft.methods.method import Need, Saved, Setup, Starts, TrainedMethod

if TYPE_CHECKING:
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel

AXES = {"target": "KPD", "sources": "NPD", "down": "RD", "up": "DR", "gain": "D", "bias": "D"}


class ATTEMPT(TrainedMethod):
    """Attention over the teachers' prompts, beside a prompt of the task's own; a group shares it."""

    name: Literal["attempt"] = "attempt"
    start: str = Field(
        "nearest", description="of the task's own prompt: fresh, nearest (teacher), or a teacher's task"
    )
    bottleneck: int = Field(100, gt=0, description="size between the attention's two matrices")
    temperature: float | None = Field(
        None, gt=0, description="of the softmax over prompts; none: e D, about 2,087 at D = 768"
    )
    keeps: ClassVar[Literal["arrays"]] = "arrays"
    reads_texts: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "ATTEMPT"

    @property
    def groups(self) -> set[str]:
        """The tasks' own prompts, and the attention."""
        return {"prompt", "attention"}

    @property
    def needs(self) -> frozenset[Need]:
        """The teachers, whose prompts are mixed."""
        return frozenset({"teachers"})

    @property
    def starts(self) -> frozenset[str]:
        """Fresh, or the nearest teacher."""
        return frozenset({"fresh", "nearest"})

    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """A prompt for each task, one attention for all, and the teachers' prompts as they are."""
        import torch

        from weft.methods.first_prompts import first_prompts
        from weft.models.tuned import TunedModel
        from weft.prompts.attempt import AttentionPrompts, new_attention

        if not setup.teachers:
            raise ConfigError(
                "ATTEMPT mixes the prompts of teachers, and there are none",
                where="teachers",
                fix="run 'weft teachers' first, and name its runs",
                code="C12",
            )
        target, record = first_prompts(self.start, setup)
        sources = torch.stack([prompt.to(target.device) for prompt in setup.teachers.values()])
        attention = new_attention(setup.backbone.width, self.bottleneck, seed=setup.seed)
        module = AttentionPrompts(target, sources, setup.names, **attention, temperature=self.temperature)
        module.to(setup.backbone.device)
        trained = {"prompt": [module.target], "attention": module.attention}
        return TunedModel(setup.backbone, module, trained, setup.names, dropout=setup.dropout), record

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model under the prompts and the attention that a run kept."""
        from weft.evaluation.answering import TunedAnswerer
        from weft.models.tuned import restored
        from weft.prompts.attempt import AttentionPrompts

        check_shapes(saved.tensors, AXES, K=len(setup.tasks), D=setup.backbone.width)
        module = AttentionPrompts(tasks=setup.names, temperature=self.temperature, **saved.tensors)
        return TunedAnswerer(restored(setup.backbone, module), setup.tasks, setup.source_tokens)
