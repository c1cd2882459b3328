"""Answers for new rows: any number of finished runs, plain prompts mixed in one batch.

A text is cut where its task's training cut it; tasks with unlike limits have batches of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weft import runs
from weft.errors import ArtifactError, DataError, did_you_mean
from weft.evaluation.answering import TunedAnswerer
from weft.evaluation.answers import Answer, Answerer, TextError
from weft.models.tuned import TunedModel
from weft.prompts.bank import SoftPrompts
from weft.runs import parents
from weft.runs.workspace import Workspace
from weft.tasks import Task


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
    """Finished runs, ready to answer rows.

    Args:
        answerers: each answers for its tasks; no two for the same one.
    """

    def __init__(self, answerers: Sequence[Answerer]) -> None:
        self.answerers = tuple(answerers)
        self.tasks = {task.name: task for one in self.answerers for task in one.tasks}
        self._places = {task.name: (one, k) for one in self.answerers for k, task in enumerate(one.tasks)}

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
        texts = [self._text(i, rows[i], self.tasks[name]) for i, name in wanted]
        found: dict[int, Answer] = {}
        for one in self.answerers:
            places = [j for j, (_, name) in enumerate(wanted) if self._places[name][0] is one]
            ids = [self._places[wanted[j][1]][1] for j in places]
            try:
                answers = one.answer(
                    [texts[j] for j in places], ids, batch_size=batch_size, generate=generate
                )
            except TextError as error:
                raise _at_row(wanted[places[error.number]][0], error) from None
            found.update(zip(places, answers, strict=True))
        return [
            Prediction(i, name, found[j].text, found[j].written, found[j].probabilities)
            for j, (i, name) in enumerate(wanted)
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

    def _text(self, number: int, row: Mapping[str, object], task: Task) -> str:
        try:
            return task.source(dict(row))
        except DataError as error:
            raise _at_row(number, error) from None


def _at_row(number: int, error: DataError) -> DataError:
    """A fault of a row, with the row's number."""
    where = f"row {number + 1}" + (f", {error.where}" if error.where else "")
    return DataError(error.cause, where=where, fix=error.fix, code=error.code)


def load(*names: str | Path, root: str | Path = "runs", workspace: Workspace | None = None) -> Predictor:
    """Finished runs as one predictor. Prompts on one model share batches; every other run answers by itself.

    Args:
        names: run ids, or run folders.
        root: the folder of runs that ids are looked up in.
        workspace: share models that are loaded already; none: a new one, which puts no text on the disk.

    Raises:
        ArtifactError: if a run is missing, unfinished or damaged, or two runs answer for one task.
    """
    workspace = workspace or Workspace(Path(root), keep_texts=False)
    found = [runs.find(workspace.root, str(name)) for name in names]
    if not found:
        raise ArtifactError("no run is named", fix="name one or more runs")
    _check_twice(found)
    return Predictor(merged([parents.load(run, workspace) for run in found]))


def _check_twice(found: Sequence[runs.Run]) -> None:
    names = [task.name for run in found for task in run.config().tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArtifactError(f"two runs answer for task {twice[0]!r}", fix="name one run per task")


def merged(answerers: Sequence[Answerer]) -> list[Answerer]:
    """Those whose plain prompts stand on one model, and have one length, as one; the others as they are.

    So have their texts: a long one beside a task with long answers could leave the positions of a model.
    """
    merged: dict[tuple[int, int, int], list[TunedAnswerer]] = {}
    others: list[Answerer] = []
    for one in answerers:
        prompts = one.model.prompts if isinstance(one, TunedAnswerer) else None
        if isinstance(one, TunedAnswerer) and prompts is not None and not prompts.reads_texts:
            key = (id(one.model.backbone), prompts.length, one.source_tokens)
            merged.setdefault(key, []).append(one)
        else:
            others.append(one)
    return [*map(_merge, merged.values()), *others]


@torch.no_grad()
def _merge(several: Sequence[TunedAnswerer]) -> TunedAnswerer:
    """One model with the composed prompts of all."""
    if len(several) == 1:
        return several[0]
    backbone = several[0].model.backbone
    tasks = tuple(task for one in several for task in one.tasks)
    ids = [torch.arange(len(one.tasks), device=backbone.device) for one in several]
    parts = [one.model.prompts_of(own) for one, own in zip(several, ids, strict=True)]
    prompts = torch.cat([part for part in parts if part is not None])
    module = SoftPrompts(prompts, tuple(task.name for task in tasks)).to(backbone.device)
    return TunedAnswerer(TunedModel(backbone, module, {}, module.tasks), tasks, several[0].source_tokens)
