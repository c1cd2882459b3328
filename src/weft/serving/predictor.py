"""Answers for new rows: any number of finished runs, plain prompts mixed in one batch, of whatever length.

A text is cut where its task's training cut it. A row that cannot be answered says why in its place, and the
others are answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft import runs
from weft.config.decoding import GREEDY, Decoding
from weft.errors import ArtifactError, ConfigError, DataError, did_you_mean
from weft.evaluation.answering import TunedAnswerer
from weft.evaluation.answers import Answer, Answerer, TextError, decoded
from weft.evaluation.received import Received, Receives, check_read, check_shown
from weft.models.tuned import TunedModel
from weft.prompts.mixed import MixedPrompts
from weft.runs import parents
from weft.runs.places import Places
from weft.runs.workspace import Workspace
from weft.tasks import Task, one_file, template

Rows = Any  # a list of dicts, or a DataFrame


@dataclass(frozen=True)
class Asked:
    """A row's text, who answers it, for which of its tasks, and what the model receives of it."""

    answerer: Answerer
    number: int
    text: str
    received: Received


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
        label: the value of the task's files that the answer stands for, for closed sets; of several values
            with one word, the first.
        cut: whether the model did not read the text to its end, which is longer than the run's texts may be.
        special_tokens: the model's special tokens that stand in the text, which it does not read as words.
        unknown: whether the model knows less than half of the text, or of one of its fields.
    """

    row: int
    task: str | None
    answer: str | None
    written: str | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None
    label: str | None = None
    cut: bool = False
    special_tokens: tuple[str, ...] = ()
    unknown: bool = False

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
        self,
        rows: Rows,
        *,
        generate: bool = False,
        batch_size: int = 64,
        task: str | Sequence[str] | None = None,
        decoding: Decoding = GREEDY,
        max_tokens: int | None = None,
    ) -> list[Prediction]:
        """Answers of rows, in their order; a row with a fault has its error in the place of an answer.

        Args:
            rows: dicts with the fields of the tasks' templates, or a DataFrame. If there are several tasks, a
                row with the field `task` is answered for that one, unless a text shows it, others for every
                task; with suffix prompts its text is read once all the same.
            generate: also write freely where answers are closed.
            batch_size: rows read at once.
            task: the one task that all rows are answered for, whatever their field `task` says; or one a row.
            decoding: how answers are written: `weft.Decoding(num_beams=4)`, or drawn,
                `weft.Decoding(temperature=0.8, top_p=0.9, seed=1)`; a row's draw depends on no other row.
            max_tokens: longest written answer; none: as each task says.

        Raises:
            DataError: if these are no rows.
            ConfigError: if there is no such task, or the model has no room for such answers.
        """
        given = listed(rows)
        tasks = [task] * len(given) if isinstance(task, str | None) else list(task)
        for name in dict.fromkeys(tasks):
            if name is not None and name not in self.tasks:
                raise ConfigError(
                    f"there is no task {name!r}", fix=did_you_mean(name, self.tasks), code="C12"
                )
        wanted: list[tuple[int, str | None]] = []
        asked, faults = dict[int, Asked](), dict[int, DataError]()
        for i, (row, one_task) in enumerate(zip(given, tasks, strict=True)):
            for name, text in self._texts(row, one_task):
                if isinstance(text, DataError):
                    faults[len(wanted)] = text
                else:
                    asked[len(wanted)] = text
                wanted.append((i, name))
        found: dict[int, Answer] = {}
        for one in self.answerers:
            own = {place: text for place, text in asked.items() if text.answerer is one}
            writer = decoded(one, decoding, max_tokens)
            found |= _answers(writer, own, faults, generate=generate, batch_size=batch_size)
        return [
            self._prediction(i, found[j], asked[j].received) if j in found else _fault(i, name, faults[j])
            for j, (i, name) in enumerate(wanted)
        ]

    def _texts(
        self, row: Mapping[str, object], task: str | None
    ) -> list[tuple[str | None, Asked | DataError]]:
        """The tasks that a row is answered for, each with the row's text, or what is wrong with it."""
        asked = self._asked(row) if task is None else task
        if asked and asked not in self.tasks:
            fix = f"{did_you_mean(asked, self.tasks)}; {one_file.RESERVED}"
            return [(None, DataError(f"there is no task {asked!r}", fix=fix))]
        names = [asked] if asked else list(self.tasks)
        return [(name, _asked(dict(row), self.tasks[name], *self._places[name])) for name in names]

    def _asked(self, row: Mapping[str, object]) -> str:
        """The task that a row names; empty where it names none, or the field is not there for that."""
        chooses = one_file.chooses([task.template for task in self.tasks.values()])
        named = str(row["task"]) if chooses and not template.missing("task", row) else ""
        return named if named.strip() else ""

    def _prediction(self, row: int, answer: Answer, got: Received) -> Prediction:
        said = (answer.text, answer.written, answer.probabilities)
        return Prediction(
            row,
            answer.task,
            *said,
            label=self.tasks[answer.task].labels.get(answer.text),
            cut=got.cut,
            special_tokens=got.special,
            unknown=got.unknown,
        )


def _answers(
    one: Answerer, own: dict[int, Asked], faults: dict[int, DataError], **how: Any
) -> dict[int, Answer]:
    """What one answerer says of its texts, by their places; those that it cannot read join the faults."""
    while own:
        places, ids = list(own), [asked.number for asked in own.values()]
        try:
            return dict(
                zip(places, one.answer([asked.text for asked in own.values()], ids, **how), strict=True)
            )
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
    given = records(rows)
    plain = isinstance(given, str | bytes | Mapping) or not hasattr(given, "__iter__")
    found = [given] if plain else list(given)
    wrong = found if plain else [one for one in found if not isinstance(one, Mapping)]
    if wrong:
        raise DataError(
            f"rows are dicts with the fields of the template, and this is a {type(wrong[0]).__name__}",
            fix='give a list of them: predict([{"text": "..."}]), or a DataFrame',
            code="D05",
        )
    return found


def records(rows: Rows) -> Any:
    """The rows of a table of pandas, Polars or Arrow; anything else as it is."""
    if hasattr(rows, "to_dicts") or hasattr(rows, "to_pylist"):
        return rows.to_dicts() if hasattr(rows, "to_dicts") else rows.to_pylist()
    if not (hasattr(rows, "columns") and hasattr(rows, "to_dict")):
        return rows
    if not rows.columns.is_unique:
        twice = rows.columns[rows.columns.duplicated()][0]
        fix = "give every column a name of its own"
        raise DataError(f"column named twice: {twice}", where="the DataFrame", fix=fix, code="D07")
    return rows.to_dict("records")


def _asked(row: dict[str, object], task: Task, answerer: Answerer, number: int) -> Asked | DataError:
    """A row's text for a task, or what is wrong with it."""
    try:
        text, fields = task.source(row), task.fields(row)
        check_shown(fields, "row")
        got = answerer.received(text, fields, number) if isinstance(answerer, Receives) else Received()
        check_read(got, "row")
    except DataError as error:
        return error
    return Asked(answerer, number, text, got)


def _fault(row: int, task: str | None, fault: DataError) -> Prediction:
    return Prediction(row, task, None, error=fault.line)


def load(
    *names: str | Path,
    root: str | Path = "runs",
    base: str | Path | None = None,
    encoders: Sequence[str | Path] = (),
    workspace: Workspace | None = None,
) -> Predictor:
    """Finished runs as one predictor. Prompts on one model share batches; every other run answers by itself.

    Args:
        names: run ids, or run folders.
        root: the folder of runs that ids are looked up in.
        base: where the base model of the runs lies here, if not where they were trained; it must be the same.
        encoders: likewise of the encoders that read beside it.
        workspace: share models that are loaded already; none: a new one, which puts no text on the disk.

    Raises:
        ConfigError: if both a workspace and places of models are given.
        ArtifactError: if a run is missing, unfinished or damaged, two runs answer for one task, or a model is
            another one.
    """
    if workspace is not None and (base is not None or encoders):
        raise ConfigError("a workspace says itself where models lie", fix="Workspace(places=...)")
    places = Places(str(base) if base else None, encoders=tuple(map(str, encoders)))
    workspace = workspace or Workspace(Path(root), keep_texts=False, places=places)
    found = [runs.find(workspace.root, str(name)) for name in names]
    if not found:
        raise ArtifactError("no run is named", fix="name one or more runs")
    _check_twice(found)
    workspace.encoders.check(found)
    return Predictor(merged([parents.load(run, workspace) for run in found]))


def _check_twice(found: Sequence[runs.Run]) -> None:
    names = [task.name for run in found for task in run.config().tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArtifactError(f"two runs answer for task {twice[0]!r}", fix="name one run per task")


def merged(answerers: Sequence[Answerer]) -> list[Answerer]:
    """Those whose plain prompts stand on one model as one, as far as they may; the others as they are."""
    merged: list[list[TunedAnswerer]] = []
    others: list[Answerer] = []
    for one in answerers:
        prompts = one.model.prompts if isinstance(one, TunedAnswerer) else None
        if not isinstance(one, TunedAnswerer) or prompts is None or prompts.reads_texts:
            others.append(one)
        elif home := next((several for several in merged if _share([*several, one])), None):
            home.append(one)
        else:
            merged.append([one])
    return [*map(_merge, merged), *others]


def _share(several: Sequence[TunedAnswerer]) -> bool:
    """Whether plain prompts may share batches of one model, which may hold the longest of everything."""
    backbone = several[0].model.backbone
    lengths = [one.model.prompts.length for one in several if one.model.prompts is not None]
    texts = [backbone.codec.whole(limit) for one in several for limit in one.source_tokens]
    answers = [task.max_target_tokens for one in several for task in one.tasks]
    room = backbone.positions is None or max(lengths) + max(texts) + max(answers) <= backbone.positions
    alike = len(set(lengths)) == 1 or backbone.mixes_prompts
    return room and alike and all(one.model.backbone is backbone for one in several)


def _merge(several: Sequence[TunedAnswerer]) -> TunedAnswerer:
    """One model with the prompts of all, which are composed for the rows of a batch."""
    if len(several) == 1:
        return several[0]
    tasks = tuple(task for one in several for task in one.tasks)
    prompts = MixedPrompts([one.model.prompts for one in several if one.model.prompts is not None])
    limits = tuple(limit for one in several for limit in one.source_tokens)
    return TunedAnswerer(TunedModel(several[0].model.backbone, prompts, {}, prompts.tasks), tasks, limits)
