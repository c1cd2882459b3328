"""Finished runs, or a bank, called as transformers' pipelines are.

A task with closed answers is called as `text-classification`, any other as `text2text-generation` was until
transformers 5 dropped it. `Predictor` and the bank's `Engine` answer; here is only the form of what goes in
and comes out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from weft.bank import exchange
from weft.config.decoding import GREEDY, Decoding
from weft.config.files import changed
from weft.errors import ConfigError, DataError, did_you_mean
from weft.serving import predictor
from weft.serving.engine import Engine
from weft.serving.predictor import Prediction, Predictor
from weft.serving.requests import Request, Response
from weft.tasks import from_spec, one_file, template

Row = Any  # a text, or a dict of the fields of a template
Found = Prediction | Response
COUNTS = {"top_k": None, "batch_size": 64, "max_new_tokens": None}  # settings, each a number from 1 or none


@dataclass(frozen=True)
class _How:
    """The settings of a call; `ranked` where `top_k` was given."""

    ranked: bool
    top_k: int | None
    batch_size: int
    max_new_tokens: int | None
    decoding: Decoding

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "_How":
        """Settings by their names.

        Raises:
            ConfigError: naming the one that is wrong.
        """
        for name, value in settings.items():
            if name not in (known := (*COUNTS, *Decoding.model_fields)):
                raise ConfigError(f"there is no setting {name!r}", fix=did_you_mean(name, known), code="C01")
            if name in COUNTS and value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} is {value!r}", fix="give a whole number from 1", code="C06")
        counts = {**COUNTS, **{name: value for name, value in settings.items() if name in COUNTS}}
        rest = {name: value for name, value in settings.items() if name not in COUNTS}
        counts["batch_size"] = counts["batch_size"] or COUNTS["batch_size"]
        return cls("top_k" in settings, **counts, decoding=changed(GREEDY, rest))


class Pipeline:
    """Runs or a bank that are called with texts.

    `pipe("a text")` gives a list of one answer, `pipe(["one", "two"])` a list of two, `pipe(texts)` of a
    generator or a data set an iterator, which reads `batch_size` rows at once. A text is a string, if the
    task's template has one field, or a dict of the fields.

    A closed answer is `{"label": ..., "score": ...}`: the likeliest answer word and its probability; with
    `top_k` a list of so many of them, or of all (none), likeliest first. A written one is
    `{"generated_text": ...}`. Lists nest as those of transformers do: an iterator gives lists of one written
    answer, and a dict without `top_k` a closed answer that is in no list.

    Args:
        model: finished runs (`weft.load`), or an engine on a bank.
        task: the task of rows that name none in their field `task`; needed where there are several.
        settings: those of a call, for all calls.
    """

    def __init__(self, model: Predictor | Engine, task: str | None = None, **settings: Any) -> None:
        self.model, self.task, self.settings = model, task, settings
        _How.of(settings)

    def __call__(self, inputs: Any, *, task: str | None = None, **settings: Any) -> Any:
        """Answers of a text, of a list, or of whatever gives texts one by one.

        Args:
            inputs: as above; a table of pandas, Polars or Arrow is a list of dicts.
            task: the task of all rows, whatever they name themselves.
            settings: `top_k`; `batch_size`, rows read at once (of a bank the engine's own bounds hold, too);
                `max_new_tokens`, if not as many as the task says; and those of `weft.Decoding`.

        Raises:
            ConfigError: for a setting that is not known or does not fit, a task that is not there, or a row
                that names none of several.
            DataError: for a row that cannot be answered, with its number from 0.
        """
        rows, how = predictor.records(inputs), _How.of({**self.settings, **settings})
        if isinstance(rows, str | Mapping):
            [found] = self._found([rows], task, how)
            listed = isinstance(rows, str) and "top_k" not in settings and _closed(found)
            return [_formed(found, how)] if listed else _formed(found, how)
        if isinstance(rows, list | tuple):
            every = self._found(rows, task, how)
            return [_formed(one, how) if _closed(one) else _formed(one, how)[0] for one in every]
        if not isinstance(rows, Iterable):
            raise DataError(
                f"texts are strings or dicts, and this is a {type(rows).__name__}",
                fix='pipe("a text"), pipe({"field": "a text"}), or a list of them',
                code="D05",
            )
        return self._streamed(iter(rows), task, how)

    def _streamed(self, rows: Iterator[Row], task: str | None, how: _How) -> Iterator[Any]:
        """As many rows as are read at once, again and again."""
        first = 0
        while part := list(islice(rows, how.batch_size)):
            yield from (_formed(one, how) for one in self._found(part, task, how, first))
            first += len(part)

    def _found(self, rows: Sequence[Row], task: str | None, how: _How, first: int = 0) -> Sequence[Found]:
        """What the model says of rows, of which the first has this number."""
        names = [task or self._task_of(row) for row in rows]
        fields = {name: _fields(self._template(name)) for name in dict.fromkeys(names)}
        given = [_row(row, name, fields[name]) for row, name in zip(rows, names, strict=True)]
        found = self._answered(given, names, how)
        for number, one in enumerate(found, first):
            if one.error:
                raise DataError(one.error, where=f"row {number}", code="D02")
        return found

    def _answered(
        self, rows: Sequence[Mapping[str, object]], names: Sequence[str], how: _How
    ) -> Sequence[Found]:
        most, decoding = how.max_new_tokens, how.decoding
        if isinstance(self.model, Predictor):
            return self.model.predict(
                rows, task=names, batch_size=how.batch_size, decoding=decoding, max_tokens=most
            )
        pairs = zip(names, rows, strict=True)
        return self.model.generate([Request(*one, max_tokens=most, decoding=decoding) for one in pairs])

    def _task_of(self, row: Row) -> str:
        """The task of a row: its own, where its field `task` chooses; else the pipeline's, or the only one.

        Raises:
            ConfigError: if there are several.
        """
        if isinstance(row, Mapping) and self._chooses and not template.missing(one_file.COLUMN, row):
            return str(row[one_file.COLUMN])
        if self.task is None and len(self._some) > 1:
            raise ConfigError(
                f"there are several tasks ({', '.join(self._some)}, ...), and the row names none",
                fix="pipe(text, task=NAME), or a dict with a field 'task'",
                code="C12",
            )
        return self.task or self._some[0]

    @cached_property
    def _some(self) -> list[str]:
        """The first names of the tasks, two of them if there are more."""
        return (
            list(self.model.tasks)[:2]
            if isinstance(self.model, Predictor)
            else self.model.snapshot.names(limit=2)
        )

    @cached_property
    def _chooses(self) -> bool:
        """Whether a field `task` says which task a row is of: of runs, not where a text shows it."""
        if isinstance(self.model, Predictor):
            return one_file.chooses([task.template for task in self.model.tasks.values()])
        return len(self.model.snapshot) > 1

    def _template(self, name: str) -> str:
        """Of a task's texts; of one that is not there, none: the model says so."""
        if isinstance(self.model, Predictor):
            return self.model.tasks[name].template if name in self.model.tasks else ""
        return from_spec(self.model.snapshot.find(name).task).template


def _fields(text: str) -> list[str]:
    return list(dict.fromkeys(template.names(text)))


def _row(row: Row, task: str, fields: Sequence[str]) -> Mapping[str, object]:
    """A row with the fields of its task's template.

    Raises:
        DataError: for a string where the template has several fields, and for what is neither.
    """
    if isinstance(row, Mapping):
        return row
    if isinstance(row, str) and len(fields) < 2:
        return dict.fromkeys(fields, row)
    raise DataError(
        f"task {task!r} reads the fields {', '.join(fields)}, and this is a {type(row).__name__}",
        fix="give a dict of the fields" if fields else "",
        code="D05",
    )


def _closed(found: Found) -> bool:
    return found.probabilities is not None


def _formed(found: Found, how: _How) -> Any:
    """An answer in its form: a list, but for a closed one without `top_k`."""
    if found.probabilities is None:
        return [{"generated_text": found.answer}]
    shares = sorted(found.probabilities.items(), key=lambda one: one[1], reverse=True)
    ranked = [{"label": label, "score": score} for label, score in shares[: how.top_k]]
    return ranked if how.ranked else ranked[0]


def pipeline(
    *names: str | Path,
    task: str | None = None,
    root: str | Path = "runs",
    base: str | Path | None = None,
    encoders: Sequence[str | Path] = (),
    **settings: Any,
) -> Pipeline:
    """Finished runs, or a bank, as a pipeline.

    Args:
        names: run ids or folders of runs; or the folder of one bank.
        task: see `Pipeline`.
        root: the folder of runs that ids are looked up in.
        base: where the base model lies here, if not where it was trained; it must be the same.
        encoders: likewise of the encoders that read beside it.
        settings: see `Pipeline`.

    Raises:
        ConfigError: for a setting that is not known or does not fit.
        ArtifactError: as `weft.load`, or `Engine.open`.
    """
    _How.of(settings)  # before a model is loaded
    if len(names) == 1 and exchange.is_bank(Path(names[0])):
        return Pipeline(Engine.open(names[0], base=base, encoders=encoders), task, **settings)
    return Pipeline(predictor.load(*names, root=root, base=base, encoders=encoders), task, **settings)
