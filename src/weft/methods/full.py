"""Full fine-tuning: every weight of the model, the far end of the comparison."""

from weft.errors import UnsupportedError
from weft.models import Backbone
from weft.models.tuned import TunedModel


def build(backbone: Backbone, tasks: tuple[str, ...], *, dropout: bool = False) -> TunedModel:
    """A model that trains all weights, without a prompt. The backbone belongs to it from here on.

    Raises:
        UnsupportedError: if another method has changed this backbone already.
    """
    if not backbone.frozen:
        raise UnsupportedError(
            "this backbone's weights were changed by another method", fix="load a fresh one"
        )
    backbone.frozen = False
    backbone.lm.requires_grad_(True)
    weights = [parameter for parameter in backbone.lm.parameters() if parameter.requires_grad]
    return TunedModel(backbone, None, {"model": weights}, tasks, dropout=dropout)
