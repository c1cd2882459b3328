"""ULPT (Wu et al. 2025, arXiv:2502.04501): prompts as short codes under a frozen random projection."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from weft.errors import ArtifactError
from weft.methods.kept import check_shapes
from weft.methods.method import Saved, Setup, Starts, TrainedMethod

if TYPE_CHECKING:
    from torch import Tensor

    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import TunedModel
    from weft.prompts.ulpt import ProjectedPrompts

AXES = {"codes": "KPR", "scale": "KD", "shift": "KD", "draw": "1", "witness": "D"}


class ULPT(TrainedMethod):
    """Ultra-low-dimensional prompt tuning, from scratch."""

    name: Literal["ulpt"] = "ulpt"
    rank: int = Field(64, gt=0, description="numbers of a prompt token's code, r in the paper")
    keeps: ClassVar[Literal["arrays"]] = "arrays"
    composes: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "ULPT"

    @property
    def groups(self) -> set[str]:
        """Codes, scale and shift together, as in the paper."""
        return {"prompt"}

    def build(self, setup: Setup) -> "tuple[TunedModel, Starts]":
        """Codes, scale and shift for each task; prompts start with the size of embeddings."""
        from weft.models.tuned import TunedModel
        from weft.prompts.ulpt import new_codes

        backbone = setup.backbone
        module = new_codes(
            setup.names, setup.prompt.length, self.rank, backbone.width, size=backbone.scale, seed=setup.seed
        ).to(backbone.device)
        trained = {"prompt": [module.codes, module.scale, module.shift]}
        record: Starts = {name: {"from": "fresh"} for name in setup.names}
        return TunedModel(backbone, module, trained, setup.names, dropout=setup.dropout), record

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model under the prompts that a run's codes give."""
        from weft.evaluation.answering import TunedAnswerer
        from weft.models.tuned import restored

        module = _restored(setup.names, saved, D=setup.backbone.width)
        return TunedAnswerer(restored(setup.backbone, module), setup.tasks, setup.source_tokens)

    def composed(self, names: tuple[str, ...], saved: Saved) -> "Tensor":
        """Codes through the projection, which is drawn anew."""
        import torch

        with torch.no_grad():
            found: Tensor = _restored(names, saved)(torch.arange(len(names)))
        return found


def _restored(names: tuple[str, ...], saved: Saved, **known: int) -> "ProjectedPrompts":
    """The module that a run kept."""
    from weft.prompts.ulpt import ProjectedPrompts

    check_shapes(saved.tensors, AXES, K=len(names), **{"1": 1}, **known)
    check_draw(float(saved.tensors["draw"]))
    return ProjectedPrompts(tasks=names, **saved.tensors)


def check_draw(number: float) -> None:
    """Refuse what is no number of a draw.

    Raises:
        ArtifactError: with the number.
    """
    if number < 0 or not number.is_integer():
        raise ArtifactError(f"'draw' is {number:g}, and should be a whole number from 0", code="A07")
