"""Answers for new rows: any number of finished runs, plain prompts mixed in one batch.

A text is cut where its task's training cut it; tasks with unlike limits have batches of their own. A row that
cannot be answered says why in its place, and the others are answered.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weft import runs
from weft.errors import ArtifactError, ConfigError, DataError, did_you_mean
from weft.evaluation.answering import TunedAnswerer
from weft.evaluation.answers import Answer, Answerer, TextError
from weft.models.tuned import TunedModel
from weft.prompts.bank import SoftPrompts
from weft.runs import parents
from weft.runs.places import Places
from weft.runs.workspace import Workspace
from weft.tasks import Task, one_file, template

Rows = Any  # a list of dicts, or a DataFrame
Asked = tuple[Answerer, int, str]  # who answers, for which of its tasks, and the text


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        row: number of the row it answers, from 0.
        task: the task it answers for.
        answer: the likeliest choice of a closed set, else what the model wrote; none for a row with a fault.
        written: what the model wrote, if it was asked to.
        probabilities: choice -> probability, for closed sets.
        error: why the row was not answered, with the remedy.
    """

    row: int
    task: str | None
    answer: str | None
    written: str | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None

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
        self, rows: Rows, *, generate: bool = False, batch_size: int = 64, task: str | None = None
    ) -> list[Prediction]:
        """Answers of rows, in their order; a row with a fault has its error in the place of an answer.

        Args:
            rows: dicts with the fields of the tasks' templates, or a DataFrame. If there are several tasks, a
                row with the field `task` is answered for that one, unless a text shows it, others for every
                task; with suffix prompts its text is read once all the same.
            generate: also write freely where answers are closed.
            batch_size: rows read at once.
            task: the one task that all rows are answered for, whatever their field `task` says.

        Raises:
            DataError: if these are no rows.
            ConfigError: if there is no such task.
        """
        if task is not None and task not in self.tasks:
            raise ConfigError(f"there is no task {task!r}", fix=did_you_mean(task, self.tasks), code="C12")
        wanted: list[tuple[int, str | None]] = []
        asked, faults = dict[int, Asked](), dict[int, DataError]()
        for i, row in enumerate(listed(rows)):
            for name, text in self._texts(row, task):
                if isinstance(text, DataError):
                    faults[len(wanted)] = text
                else:
                    asked[len(wanted)] = (*self._places[str(name)], text)
                wanted.append((i, name))
        found: dict[int, Answer] = {}
        for one in self.answerers:
            own = {place: (k, text) for place, (whose, k, text) in asked.items() if whose is one}
            found |= _answers(one, own, faults, generate=generate, batch_size=batch_size)
        return [_prediction(i, name, found.get(j), faults.get(j)) for j, (i, name) in enumerate(wanted)]

    def _texts(self, row: Mapping[str, object], task: str | None) -> list[tuple[str | None, str | DataError]]:
        """The tasks that a row is answered for, each with the row's text, or what is wrong with it."""
        asked = self._asked(row) if task is None else task
        if asked and asked not in self.tasks:
            fix = f"{did_you_mean(asked, self.tasks)}; {one_file.RESERVED}"
            return [(None, DataError(f"there is no task {asked!r}", fix=fix))]
        return [(name, _text(row, self.tasks[name])) for name in ([asked] if asked else self.tasks)]

    def _asked(self, row: Mapping[str, object]) -> str:
        """The task that a row names; empty where it names none, or the field is not there for that."""
        chooses = one_file.chooses([task.template for task in self.tasks.values()])
        named = str(row["task"]) if chooses and not template.missing("task", row) else ""
        return named if named.strip() else ""


def _answers(
    one: Answerer, own: dict[int, tuple[int, str]], faults: dict[int, DataError], **how: Any
) -> dict[int, Answer]:
    """What one answerer says of its texts, by their places; those that it cannot read join the faults."""
    while own:
        places, ids = list(own), [k for k, _ in own.values()]
        try:
            return dict(zip(places, one.answer([text for _, text in own.values()], ids, **how), strict=True))
        except TextError as error:
            place = places[error.number]
            faults[place] = error
            del own[place]
    return {}


def listed(rows: Rows) -> list[Mapping[str, object]]:
    """Rows as a list of mappings.

    Raises:
        DataError: saying what rows are.
    """
    found = rows.to_dict("records") if hasattr(rows, "columns") and hasattr(rows, "to_dict") else rows
    plain = isinstance(found, str | bytes | Mapping) or not hasattr(found, "__iter__")
    wrong = [found] if plain else [one for one in found if not isinstance(one, Mapping)]
    if wrong:
        raise DataError(
            f"rows are dicts with the fields of the template, and this is a {type(wrong[0]).__name__}",
            fix='give a list of them: predict([{"text": "..."}]), or a DataFrame',
            code="D05",
        )
    return list(found)


def _text(row: Mapping[str, object], task: Task) -> str | DataError:
    """A row's text for a task, or what is wrong with it."""
    try:
        text = task.source(dict(row))
    except DataError as error:
        return error
    if not any(map(shows, template.fields(task.template, text))):
        return DataError("the row has no text: its fields are blank", fix="complete the row", code="D02")
    return text


def shows(text: str) -> bool:
    """Whether a text has a character that can be seen: neither a space nor a control or format sign."""
    return any(unicodedata.category(sign)[0] not in "ZC" for sign in text)


def _prediction(row: int, task: str | None, answer: Answer | None, fault: DataError | None) -> Prediction:
    if answer is None:
        assert fault is not None
        said = f"{fault.cause} ({fault.fix})" if fault.fix else fault.cause
        return Prediction(row, task, None, error=said)
    return Prediction(row, task, answer.text, answer.written, answer.probabilities)


def load(
    *names: str | Path,
    root: str | Path = "runs",
    base: str | Path | None = None,
    workspace: Workspace | None = None,
) -> Predictor:
    """Finished runs as one predictor. Prompts on one model share batches; every other run answers by itself.

    Args:
        names: run ids, or run folders.
        root: the folder of runs that ids are looked up in.
        base: where the base model of the runs lies here, if not where they were trained; it must be the same.
        workspace: share models that are loaded already; none: a new one, which puts no text on the disk.

    Raises:
        ConfigError: if both a base model and a workspace are given.
        ArtifactError: if a run is missing, unfinished or damaged, two runs answer for one task, or the base
            model is another one.
    """
    if workspace is not None and base is not None:
        raise ConfigError("a workspace says itself where base models lie", fix="Workspace(places=...)")
    places = Places(str(base) if base else None)
    workspace = workspace or Workspace(Path(root), keep_texts=False, places=places)
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
