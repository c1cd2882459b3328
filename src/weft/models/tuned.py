"""A tuned model: a backbone, its prompts if it has any, and the parameters that are trained."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weft.data.batch import Batch, Tokens
from weft.models import Backbone, Context, HiddenSpec, Outputs, TextState
from weft.prompts.bank import PromptModule

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

    def prompts_of(self, task_ids: Tensor) -> Tensor | None:
        """The prompt of each row, `[B, P, D]`, or none."""
        return None if self.prompts is None else self.prompts(task_ids.to(self.backbone.device))

    def forward(
        self, batch: Batch, state: TextState | None = None, hidden: HiddenSpec | None = None
    ) -> Outputs:
        """Logits and hidden states for training; `state` saves reading the same texts twice."""
        state = state or self.backbone.read(batch.sources)
        with self.backbone.mode(dropout=self.dropout and torch.is_grad_enabled()):
            return self.backbone.forward(state, self.prompts_of(batch.task_ids), batch.labels, hidden)

    @torch.no_grad()
    def begin(self, sources: Sequence[Tokens], task_ids: Sequence[int]) -> Context:
        """Read texts under their tasks' prompts, ready to answer."""
        ids = torch.tensor(list(task_ids), device=self.backbone.device)
        with self.backbone.mode(dropout=False):
            return self.backbone.begin(self.backbone.read(sources), self.prompts_of(ids))

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
        if self.prompts is None:
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

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters under the names they have in files."""
        prompts = [] if self.prompts is None else list(self.prompts.named_parameters())
        return prompts + [(f"lm.{name}", value) for name, value in self.backbone.lm.named_parameters()]
