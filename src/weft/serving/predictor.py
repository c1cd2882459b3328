"""Answers for new rows: prompts of any number of finished runs on one model, any mix in one batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weft import runs
from weft.errors import ArtifactError, DataError, UnsupportedError, did_you_mean
from weft.evaluation import answering
from weft.models.tuned import TunedModel
from weft.prompts.bank import SoftPrompts
from weft.runs import parents
from weft.runs.workspace import Workspace
from weft.tasks import Row, Task


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        row: number of the row it answers, from 0.
        task: the task it answers for.
        answer: the likeliest choice of a closed set, else what the model wrote.
        written: what the model wrote, if it was asked to.
        probabilities: choice -> probability, for closed sets.
    """

    row: int
    task: str
    answer: str
    written: str | None
    probabilities: dict[str, float] | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


class Predictor:
    """Tuned prompts, ready to answer rows.

    Args:
        model: one prompt for each task.
        tasks: the tasks, in the order of the prompts.
        source_tokens: longest text, as in training.
    """

    def __init__(self, model: TunedModel, tasks: Sequence[Task], source_tokens: int) -> None:
        self.model, self.source_tokens = model, source_tokens
        self.tasks = {task.name: task for task in tasks}

    def predict(
        self, rows: Sequence[Mapping[str, object]], *, generate: bool = False, batch_size: int = 64
    ) -> list[Prediction]:
        """Answers of rows, in their order.

        Args:
            rows: fields of the tasks' templates. A row with the field `task` is answered for that task,
                one without for every task; with suffix prompts its text is read once all the same.
            generate: also write freely where answers are closed.
            batch_size: rows read at once.

        Raises:
            DataError: for an unknown task or a missing field, with the row's number.
        """
        wanted = [(i, name) for i, row in enumerate(rows) for name in self._tasks_of(i, row)]
        names = list(self.tasks)
        sources = [self._tokens(i, rows[i], self.tasks[name]) for i, name in wanted]
        answers = answering.answer(
            self.model,
            list(self.tasks.values()),
            sources,
            [names.index(name) for _, name in wanted],
            batch_size=batch_size,
            generate=generate,
        )
        return [
            Prediction(i, name, one.text, one.written, one.probabilities)
            for (i, name), one in zip(wanted, answers, strict=True)
        ]

    def _tasks_of(self, number: int, row: Mapping[str, object]) -> list[str]:
        name = row.get("task")
        if name is None:
            return list(self.tasks)
        if name not in self.tasks:
            raise DataError(
                f"there is no task {name!r}",
                where=f"row {number + 1}",
                fix=did_you_mean(str(name), self.tasks),
            )
        return [str(name)]

    def _tokens(self, number: int, row: Row | Mapping[str, object], task: Task) -> tuple[int, ...]:
        try:
            return self.model.backbone.text_tokens(task.source(dict(row)), self.source_tokens)[0]
        except DataError as error:
            raise DataError(
                error.cause, where=f"row {number + 1}, {error.where}", fix=error.fix, code=error.code
            ) from None


def load(*names: str | Path, root: str | Path = "runs", workspace: Workspace | None = None) -> Predictor:
    """Finished runs as one predictor. They must share base model, prompt place and length.

    Args:
        names: run ids, or run folders.
        root: the folder of runs that ids are looked up in.
        workspace: share models that are loaded already; none: a new one, which puts no text on the disk.

    Raises:
        ArtifactError: if a run is missing, unfinished or damaged, or the runs do not fit together.
        UnsupportedError: for several runs of which one changes weights.
    """
    workspace = workspace or Workspace(Path(root), keep_texts=False)
    found = [runs.find(workspace.root, str(name)) for name in names]
    if not found:
        raise ArtifactError("no run is named", fix="name one or more runs")
    loaded = [parents.load(run, workspace) for run in found]
    limit = min(run.config().limits.source_tokens for run in found)
    if len(loaded) == 1:
        return Predictor(loaded[0][0], loaded[0][1], limit)
    return Predictor(
        _merge([model for model, _ in loaded], found), [task for _, tasks in loaded for task in tasks], limit
    )


def _merge(models: list[TunedModel], found: list[runs.Run]) -> TunedModel:
    """One model with the composed prompts of all."""
    backbone = models[0].backbone
    names = [name for model in models for name in model.tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArtifactError(f"two runs answer for task {twice[0]!r}", fix="name one run per task")
    parts = []
    for model, run in zip(models, found, strict=True):
        if model.prompts is None:
            raise UnsupportedError(f"{run.id} changes the model's weights, so it cannot share a batch")
        if model.backbone is not backbone:
            raise ArtifactError(
                f"{run.id} uses another base model or prompt position", where=str(run.path), code="A08"
            )
        with torch.no_grad():
            parts.append(model.prompts(torch.arange(len(model.tasks), device=backbone.device)))
    if len({part.shape[1] for part in parts}) > 1:
        lengths = ", ".join(f"{run.id}: {part.shape[1]}" for run, part in zip(found, parts, strict=True))
        raise ArtifactError(
            f"the prompts have unlike lengths ({lengths})", fix="load them one by one", code="A07"
        )
    return TunedModel(
        backbone, SoftPrompts(torch.cat(parts), tuple(names)).to(backbone.device), {}, tuple(names)
    )
