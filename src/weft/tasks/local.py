"""A task from a YAML file: rows of a file or a data set, a format and a template."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Protocol, get_args

from weft.config.base import Split
from weft.config.files import load_config
from weft.config.task import Holdout, TaskSpec
from weft.errors import ConfigError, DataError
from weft.tasks import holdout, template
from weft.tasks.files import content_hash, read_rows
from weft.tasks.fitting import belongs, checked, dropped
from weft.tasks.formats import fields_of, question_of
from weft.tasks.hub import HubRows
from weft.tasks.metrics import check_first, metric
from weft.tasks.task import Example, Row, Task
from weft.tasks.values import same_value

SPLITS: tuple[Split, ...] = get_args(Split)


class Place(Protocol):
    """Where a task's rows lie: files, or a data set of the hub."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that are there."""

    def where(self, split: Split) -> str:
        """A split's place, for messages."""

    def rows(self, split: Split) -> list[Row]:
        """All rows of a split."""

    def hash(self, split: Split) -> str:
        """SHA-256 of a split's content."""


def load_spec(path: Path) -> TaskSpec:
    """The declaration of a task, checked; relative files lie beside it.

    Raises:
        ConfigError: with every fault of the file.
    """
    return load_config(path, TaskSpec)


def from_spec(spec: TaskSpec, data_root: Path | None = None) -> Task:
    """A task from its declaration.

    Args:
        spec: the declaration.
        data_root: where files lie that are declared `in_data_root`. Without it, such a task is read from
            the hub, if it says where.

    Raises:
        ConfigError: for an unknown metric, a first one that cannot decide, or a data root that is needed and
            not given.
    """
    spec = spec.written()
    choices = spec.choices
    try:
        check_first(spec.metrics[0])
        metrics = {name: metric(name, positive=spec.positive, labels=choices) for name in spec.metrics}
    except ValueError as error:
        raise ConfigError(str(error), where=f"task {spec.name} (metrics)", code="C18") from None
    place, rule = _place(spec, data_root)
    whole = cache(lambda split: checked(spec, place.rows(split), place.where(split)))
    return Task(
        name=spec.name,
        rows=cache(partial(_rows, spec, place, rule, whole)),
        examples=partial(_examples, spec),
        source=partial(_source, spec),
        template=spec.source,
        question=partial(question_of, spec.format),
        metrics=metrics,
        choices=choices,
        labels={word: value for value, word in reversed((spec.labels or {}).items())},
        max_target_tokens=spec.max_target_tokens,
        splits=place.splits if rule == "none" else SPLITS,
        data_hash=cache(lambda split: place.hash(holdout.origin(rule, split))),
        reason=partial(_reason, spec),
    )


def _place(spec: TaskSpec, data_root: Path | None) -> tuple[Place, Holdout]:
    """Where the rows are, and how missing splits are made of them."""
    missing = data_root is None if spec.in_data_root else not spec.files
    if spec.hub is not None and missing:
        beside = Path(spec.folder) / spec.hub.path
        path = str(beside) if spec.folder and beside.is_dir() else spec.hub.path
        return HubRows(spec.name, spec.hub.model_copy(update={"path": path})), spec.hub.holdout
    return Files(spec, data_root), spec.holdout


@dataclass(frozen=True)
class Files:
    """The files of a task."""

    spec: TaskSpec
    data_root: Path | None

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that have a file."""
        return tuple(self.spec.files)

    def where(self, split: Split) -> str:
        """A split's file."""
        return str(_file(self.spec, split, self.data_root))

    def rows(self, split: Split) -> list[Row]:
        """All rows of a split's file."""
        return read_rows(_file(self.spec, split, self.data_root))

    def hash(self, split: Split) -> str:
        """SHA-256 of a split's file."""
        return content_hash(_file(self.spec, split, self.data_root))


def _file(spec: TaskSpec, split: Split, data_root: Path | None) -> Path:
    root = data_root if spec.in_data_root else Path(spec.folder)
    if root is None:
        raise ConfigError(
            f"task {spec.name!r} reads its files from the data folder, and none is given",
            where=f"task {spec.name} (in_data_root)",
            fix="give the folder with --data FOLDER or the variable WEFT_DATA",
            code="D23",
        )
    if split not in spec.files:
        raise DataError(
            f"task {spec.name!r} has no {split} rows",
            where=f"task {spec.name} (files)",
            fix=f"name a file for {split!r}; it has {', '.join(spec.files) or 'none'}",
            code="D13",
        )
    return root / spec.files[split]


def _rows(
    spec: TaskSpec, place: Place, rule: Holdout, whole: Callable[[Split], list[Row]], split: Split
) -> list[Row]:
    """A split's rows as they are in its file, or in the part of a file that is held out for it."""
    source = holdout.origin(rule, split)
    rows, where = whole(source), place.where(source)
    return holdout.part(
        rule, split, rows, where, spec.holdout_draw, group=spec.group, train_rows=spec.train_rows
    )


def _source(spec: TaskSpec, row: Row) -> str:
    """The text of a row, with or without an answer."""
    return _text(spec, question_of(spec.format, row))


def _text(spec: TaskSpec, fields: Row) -> str:
    try:
        return template.fill(spec.source, fields)
    except DataError as error:
        raise DataError(error.cause, where=f"task {spec.name}", fix=error.fix, code=error.code) from None


def _examples(spec: TaskSpec, row: Row) -> list[Example]:
    """The text pairs of a row: none for a row without an answer, several for one with several."""
    if not belongs(spec, row):
        return []
    return [_example(spec, fields) for fields in fields_of(spec.format, row) if not dropped(spec, fields)]


def _example(spec: TaskSpec, fields: Row) -> Example:
    target = template.fill(spec.target, fields)
    group = template.fill(spec.group, fields)
    if spec.labels is not None:
        label = same_value(target, spec.labels)
        assert label is not None  # rows are checked before
        return Example(_text(spec, fields), spec.labels[label], group=group)
    references = template.held(spec.references, fields) if spec.references else ()
    if not isinstance(references, list | tuple):
        references = (references,)
    return Example(_text(spec, fields), target, tuple(str(one) for one in references), group)


def _reason(spec: TaskSpec, row: Row) -> str:
    """Why a row gives no example."""
    if not belongs(spec, row):
        return f"another {' or '.join(spec.only)}"
    fields = fields_of(spec.format, row)
    if not fields or any(template.missing(name, fields[0]) for name in template.names(spec.target)):
        return "no answer"
    return f"answer {template.fill(spec.target, fields[0])!r} is left out"
