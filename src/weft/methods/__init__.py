"""Methods: functions that make a tuned model."""

from collections.abc import Mapping

from torch import Tensor

from weft.errors import ArtifactError
from weft.methods import full, mpt, prompt_tuning
from weft.methods.nearest import nearest
from weft.models import Backbone
from weft.models.tuned import TunedModel
from weft.prompts.bank import PromptBank, SoftPrompts

__all__ = ["full", "mpt", "nearest", "prompt_module", "prompt_tuning", "restore"]

BANK, SOFT = {"shared", "u", "v"}, {"prompts"}


def prompt_module(tensors: Mapping[str, Tensor], tasks: tuple[str, ...]) -> PromptBank | SoftPrompts:
    """Prompts from a run's tensors: a bank (`shared`, `u`, `v`) or plain prompts (`prompts`).

    Raises:
        ArtifactError: if the tensors are neither.
    """
    if set(tensors) == BANK:
        return PromptBank(tensors["shared"], tensors["u"], tensors["v"], tasks)
    if set(tensors) == SOFT:
        return SoftPrompts(tensors["prompts"], tasks)
    raise ArtifactError(f"these are no prompts: {', '.join(sorted(tensors)) or 'no tensors'}", code="A04")


def restore(backbone: Backbone, tensors: Mapping[str, Tensor], tasks: tuple[str, ...]) -> TunedModel:
    """The tuned model of a finished run, for answering; nothing of it is trained further.

    Raises:
        ArtifactError: if the tensors are no prompts and no weights, or do not fit the backbone.
    """
    weights = {name.removeprefix("lm."): value for name, value in tensors.items() if name.startswith("lm.")}
    if weights:
        own = {name: value.shape for name, value in backbone.lm.named_parameters()}
        if own != {name: value.shape for name, value in weights.items()}:
            raise ArtifactError("these weights are not of this model", where=backbone.name, code="A07")
        model = full.build(backbone, tasks)
        model.load_state(dict(tensors))
        return model
    prompts = prompt_module(tensors, tasks)
    width = (
        next(iter(prompts.parameters())).shape[-1]
        if isinstance(prompts, SoftPrompts)
        else prompts.shared.shape[-1]
    )
    if width != backbone.width:
        raise ArtifactError(
            f"the prompts' vectors have {width} numbers, the model's embeddings have {backbone.width}",
            where=backbone.name,
            fix="use the base model the prompts were trained on (base.model in the run's config.yaml)",
            code="A07",
        )
    return TunedModel(backbone, prompts.to(backbone.device), {}, tasks)
