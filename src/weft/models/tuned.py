"""A tuned model: a backbone, its prompts if it has any, and the parameters that are trained."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from weft.data.batch import Batch, Tokens
from weft.errors import ArtifactError, UnsupportedError
from weft.models import Backbone, Context, HiddenSpec, Outputs, TextState
from weft.prompts.bank import PromptBank, PromptModule, SoftPrompts

FITTING = "use the base model and the method's settings of the run (its config.yaml)"
STOP_NORM = 1000.0  # prompts with entries so many times the size of embeddings have diverged


class TunedModel(nn.Module):
    """What a method makes: prompts (or changed weights) on a backbone.

    Args:
        backbone: the language model.
        prompts: maps task ids to prompts; none for methods that train weights, or nothing.
        trained: group name -> parameters, one learning rate for each group.
        tasks: names, in the order of the task ids.
        dropout: leave the backbone's dropout on in training.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptModule | None,
        trained: dict[str, list[nn.Parameter]],
        tasks: tuple[str, ...],
        *,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.prompts = backbone, prompts
        self.trained, self.tasks, self.dropout = trained, tasks, dropout

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained, over all tasks."""
        return sum(parameter.numel() for group in self.trained.values() for parameter in group)

    @property
    def keeps_texts(self) -> bool:
        """Whether texts are read once and kept: they stand before any prompt, and nothing touches them."""
        free = self.prompts is not None and not self.prompts.reads_texts
        return free and self.backbone.keeps_texts

    def prepare(self, sources: Iterable[Tokens]) -> None:
        """Be told which texts will be read soon."""
        if self.keeps_texts:
            self.backbone.prepare(sources)

    def prompts_of(self, task_ids: Tensor) -> Tensor | None:
        """The prompt of each row, `[B, P, D]`, or none; of prompts that do not depend on the text."""
        return None if self.prompts is None else self.prompts(task_ids.to(self.backbone.device))

    def read(self, sources: Sequence[Tokens], task_ids: Tensor) -> tuple[TextState, Tensor | None]:
        """Texts as the model reads them under their tasks, and the prompt of each row."""
        return self._under(self.backbone.read(sources), task_ids)

    def _under(self, state: TextState, task_ids: Tensor) -> tuple[TextState, Tensor | None]:
        if self.prompts is None:
            return state, None
        task_ids = task_ids.to(self.backbone.device)
        if not self.prompts.reads_texts:
            mask = self.prompts.mask(task_ids)  # a state that is as it was keeps what is computed of it
            return state if mask is None else replace(state, prompt_mask=mask), self.prompts(task_ids)
        embeds, prompts = self.prompts.read(task_ids, self.backbone.embed(state.ids), state.mask)
        return replace(state, embeds=embeds), prompts

    def forward(
        self, batch: Batch, state: TextState | None = None, hidden: HiddenSpec | None = None
    ) -> Outputs:
        """Logits and hidden states for training; `state` saves reading the same texts twice."""
        state, prompts = self._under(state or self.backbone.read(batch.sources), batch.task_ids)
        with self.backbone.mode(dropout=self.dropout and torch.is_grad_enabled()):
            return self.backbone.forward(state, prompts, batch.labels, hidden)

    @torch.no_grad()
    def begin(self, sources: Sequence[Tokens], task_ids: Sequence[int]) -> Context:
        """Read texts under their tasks' prompts, ready to answer."""
        ids = torch.tensor(list(task_ids), device=self.backbone.device)
        with self.backbone.mode(dropout=False):
            return self.backbone.begin(*self.read(sources, ids))

    def state(self) -> dict[str, Tensor]:
        """The trained parameters by name, on the CPU: what a run keeps."""
        names = {id(parameter): name for name, parameter in self._named()}
        return {
            names[id(parameter)]: parameter.detach().cpu().clone()
            for group in self.trained.values()
            for parameter in group
        }

    def tensors(self) -> dict[str, Tensor]:
        """All that answering needs beside the base model: whole prompts, or changed weights."""
        if self.prompts is None or self.prompts.fixed:
            return self.state()
        return {name: value.detach().cpu().clone() for name, value in self.prompts.state_dict().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Set the trained parameters.

        Raises:
            ValueError: if a name or shape does not fit.
        """
        own = dict(self._named())
        expected = {name: tuple(value.shape) for name, value in self.state().items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if expected != given:
            raise ValueError(f"expected {expected}, got {given}")
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the trained parameters to those that a run kept.

        Raises:
            ArtifactError: if they are those of another model.
        """
        try:
            self.load_state(dict(tensors))
        except ValueError:
            raise ArtifactError(
                "these weights are not of this model and method", fix=FITTING, code="A07"
            ) from None

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters under the names they have in files."""
        prompts = [] if self.prompts is None else list(self.prompts.named_parameters())
        return prompts + [(f"lm.{name}", value) for name, value in self.backbone.lm.named_parameters()]


def with_prompts(
    backbone: Backbone, start: Float[Tensor, "K P D"], tasks: tuple[str, ...], *, dropout: bool = False
) -> TunedModel:
    """A model whose prompts, one for each task, are trained."""
    prompts = SoftPrompts(start, tasks).to(backbone.device)
    return TunedModel(backbone, prompts, {"prompt": [prompts.prompts]}, tasks, dropout=dropout)


def with_bank(
    backbone: Backbone, bank: PromptBank, *, train: str = "all", dropout: bool = False
) -> TunedModel:
    """A model that trains a bank: P* and the factors (`all`), or one of them (`shared`, `factors`)."""
    bank.to(backbone.device)
    parts = {"shared": [bank.shared], "factors": [bank.u, bank.v]}
    trained = {name: tensors for name, tensors in parts.items() if train in ("all", name)}
    for name, tensors in parts.items():
        for tensor in tensors:
            tensor.requires_grad_(name in trained)
    return TunedModel(backbone, bank, trained, bank.tasks, dropout=dropout)


def with_all_weights(backbone: Backbone, tasks: tuple[str, ...], *, dropout: bool = False) -> TunedModel:
    """A model that trains all weights, without a prompt. The backbone belongs to it from here on.

    Raises:
        UnsupportedError: if another method has changed this backbone already.
    """
    own(backbone)
    backbone.lm.requires_grad_(True)
    weights = [parameter for parameter in backbone.lm.parameters() if parameter.requires_grad]
    return TunedModel(backbone, None, {"model": weights}, tasks, dropout=dropout)


def check_weights(backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not all those of a model.

    Raises:
        ArtifactError: if a name or shape differs.
    """
    mine = {f"lm.{name}": value.shape for name, value in backbone.lm.named_parameters()}
    if mine != {name: value.shape for name, value in tensors.items()}:
        raise ArtifactError("these weights are not of this model", fix=FITTING, code="A07")


def own(backbone: Backbone) -> None:
    """Take a backbone whose weights a method is about to change or add to.

    Raises:
        UnsupportedError: if another method has changed it already.
    """
    if not backbone.frozen:
        raise UnsupportedError(
            "this backbone's weights were changed by another method", fix="load a fresh one"
        )
    backbone.frozen = False


def restored(backbone: Backbone, prompts: PromptModule) -> TunedModel:
    """A model under finished prompts, of which nothing is trained further.

    Raises:
        ArtifactError: if the prompts' vectors have not the size of the model's embeddings.
    """
    if prompts.width != backbone.width:
        raise ArtifactError(
            f"the prompts' vectors have {prompts.width} numbers, the model's embeddings {backbone.width}",
            fix="use the base model the prompts were trained on (base.model in the run's config.yaml)",
            code="A07",
        )
    return TunedModel(backbone, prompts.to(backbone.device), {}, prompts.tasks)
