"""A task from a YAML file: rows of a file or a data set, a format and a template."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Protocol, get_args

from weft.config.base import Split
from weft.config.files import load_config
from weft.config.task import Holdout, TaskSpec
from weft.errors import ConfigError, DataError, did_you_mean
from weft.tasks import holdout, template
from weft.tasks.files import content_hash, read_rows
from weft.tasks.formats import fields_of, put_together, question_of
from weft.tasks.hub import HubRows
from weft.tasks.metrics import check_first, metric
from weft.tasks.task import Example, Row, Task
from weft.tasks.values import normal, same_value

SPLITS: tuple[Split, ...] = get_args(Split)
Numbered = list[tuple[int, Row]]  # template fields, with the number of the row they come from


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
    checked = cache(partial(_checked, spec, place))
    return Task(
        name=spec.name,
        rows=cache(partial(_rows, spec, place, rule, checked)),
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
    spec: TaskSpec, place: Place, rule: Holdout, checked: Callable[[Split], list[Row]], split: Split
) -> list[Row]:
    """A split's rows as they are in its file, or in the part of a file that is held out for it."""
    source = holdout.origin(rule, split)
    rows, where = checked(source), place.where(source)
    return holdout.part(
        rule, split, rows, where, spec.holdout_draw, group=spec.group, train_rows=spec.train_rows
    )


def _checked(spec: TaskSpec, place: Place, split: Split) -> list[Row]:
    """All rows of a file, of which every one fits the task; put together as the format counts them."""
    rows, where = place.rows(split), place.where(split)
    if not any(_belongs(spec, row) for row in rows):
        wanted = ", ".join(f"{column} = {value!r}" for column, value in spec.only.items())
        raise DataError(
            f"no row of the file is one of {spec.name!r}: {wanted}",
            where=f"{where} (only)",
            fix="see to the columns and values under 'only', or leave it out",
            code="D13",
        )
    fields = [
        (number, row) for number, row in _numbered(spec, rows, where) if not _dropped(spec, row, empty=True)
    ]
    _check_columns(spec, fields, where)
    kept = [(number, row) for number, row in fields if not _dropped(spec, row)]
    if not kept:
        raise DataError("no row of the file has an answer", where=where, code="D13")
    _check_labels(spec, kept, where)
    return put_together(spec.format, rows)


def _numbered(spec: TaskSpec, rows: list[Row], where: str) -> Numbered:
    """Template fields of all rows of the task, with the rows' numbers from 1."""
    found: Numbered = []
    for number, row in enumerate(rows, start=1):
        if not _belongs(spec, row):
            continue
        try:
            found += [(number, fields) for fields in fields_of(spec.format, row)]
        except DataError as error:
            place = f"{where}, row {number}" + (f" ({error.where})" if error.where else "")
            raise DataError(error.cause, where=place, fix=error.fix, code=error.code) from None
    return found


def _check_columns(spec: TaskSpec, rows: Numbered, where: str) -> None:
    """Every field of the template is a column, and has a value in every row."""
    needed = dict.fromkeys(template.names(spec.source + spec.target + spec.group))
    found = {str(column) for _, row in rows for column in row}
    for column in [*needed, *([spec.references] if spec.references else [])] if rows else ():
        if not any(template.has(column, row) for _, row in rows):
            raise DataError(
                f"there is no column {column!r}; the file has {', '.join(sorted(found))}",
                where=f"{where} (template of task {spec.name})",
                fix=did_you_mean(column, found),
                code="D01",
            )
        empty = [number for number, row in rows if template.missing(column, row)]
        if empty:
            raise DataError(
                f"{len(empty)} rows have no {column!r}: row {', '.join(map(str, empty[:5]))}",
                where=where,
                fix="complete the rows or remove them",
                code="D02",
            )
    for number, row in rows:
        _check_values(needed, row, f"{where}, row {number}")


def _check_values(columns: Iterable[str], row: Row, where: str) -> None:
    """Every value that a template shows can be written as text."""
    for column in columns:
        try:
            template.written(column, row)
        except DataError as error:
            raise DataError(error.cause, where=where, fix=error.fix, code=error.code) from None


def _check_labels(spec: TaskSpec, rows: Numbered, where: str) -> None:
    """Every value of the target has its word, and no target is empty."""
    values = [(number, template.fill(spec.target, row)) for number, row in rows]
    empty = [number for number, value in values if not value.strip()]
    if empty:
        raise DataError(
            f"{len(empty)} rows have an empty target: row {', '.join(map(str, empty[:5]))}",
            where=where,
            fix="complete the rows or remove them",
            code="D03",
        )
    known = spec.labels
    strange = [(number, value) for number, value in values if known and same_value(value, known) is None]
    if strange:
        counts = Counter(value for _, value in strange).most_common(5)
        raise DataError(
            f"labels without a word: {', '.join(f'{value!r} ({count} rows)' for value, count in counts)}",
            where=f"{where}, first in row {strange[0][0]}",
            fix=_label_fix(spec, strange[0][1]),
            code="D06",
        )


def _label_fix(spec: TaskSpec, value: str) -> str:
    """What to do about a value without a word."""
    near = [one for one in spec.labels or {} if normal(one).casefold() == normal(value).casefold()]
    if near:
        return f"{value!r} and {near[0]!r} differ in capitals: write one of them, or give both the same word"
    return f"add them under 'labels' of task {spec.name!r}, which has {', '.join(spec.labels or {})}"


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
    if not _belongs(spec, row):
        return []
    return [_example(spec, fields) for fields in fields_of(spec.format, row) if not _dropped(spec, fields)]


def _belongs(spec: TaskSpec, row: Row) -> bool:
    """Whether a row of the task's files is one of the task."""
    return all(column in row and str(row[column]) == value for column, value in spec.only.items())


def _dropped(spec: TaskSpec, fields: Row, *, empty: bool = False) -> bool:
    """Whether a row's answer is one of those that are left out; an empty one is where `""` stands among them.

    Args:
        spec: the task.
        fields: of its templates.
        empty: ask for empty answers alone.
    """
    if any(template.missing(name, fields) for name in template.names(spec.target)):
        return "" in spec.drop and all(template.has(name, fields) for name in template.names(spec.target))
    return not empty and same_value(template.fill(spec.target, fields), spec.drop) is not None


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
    if not _belongs(spec, row):
        return f"another {' or '.join(spec.only)}"
    fields = fields_of(spec.format, row)
    if not fields or any(template.missing(name, fields[0]) for name in template.names(spec.target)):
        return "no answer"
    return f"answer {template.fill(spec.target, fields[0])!r} is left out"
