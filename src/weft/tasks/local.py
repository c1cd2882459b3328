"""A task from a YAML file: the user's own rows and a template."""

import re
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from weft.config import Split, TaskSpec
from weft.config_files import load_config
from weft.errors import ConfigError, DataError, did_you_mean
from weft.metrics import metric
from weft.storage import sha256_file
from weft.tasks.files import check_file, read_rows
from weft.tasks.task import Example, Row, Task

FIELD = re.compile(r"\{([^{}]*)\}")


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
        data_root: where files lie that are declared `in_data_root`.

    Raises:
        ConfigError: for an unknown metric, or a data root that is needed and not given.
    """
    try:
        metrics = {name: metric(name, positive=spec.positive) for name in spec.metrics}
    except ValueError as error:
        raise ConfigError(str(error), where=f"task {spec.name} (metrics)", code="C18") from None
    rows = cache(partial(_rows, spec, data_root))
    return Task(
        name=spec.name,
        rows=rows,
        examples=partial(_examples, spec),
        source=partial(_source, spec),
        metrics=metrics,
        choices=tuple((spec.labels or {}).values()),
        max_target_tokens=spec.max_target_tokens,
        splits=tuple(spec.files),
        data_hash=cache(partial(_data_hash, spec, data_root)),
    )


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


def _data_hash(spec: TaskSpec, data_root: Path | None, split: Split) -> str:
    """SHA-256 of a split's file."""
    path = _file(spec, split, data_root)
    check_file(path)
    return sha256_file(path)


def _rows(spec: TaskSpec, data_root: Path | None, split: Split) -> list[Row]:
    path = _file(spec, split, data_root)
    rows = read_rows(path)
    _check_columns(spec, rows, path)
    _check_labels(spec, rows, path)
    return rows


def _check_columns(spec: TaskSpec, rows: list[Row], path: Path) -> None:
    """Every field of the template is a column, and has a value in every row."""
    needed = (
        FIELD.findall(spec.source)
        + FIELD.findall(spec.target)
        + ([spec.references] if spec.references else [])
    )
    found = {str(column) for row in rows for column in row}
    for column in needed:
        if column not in found:
            raise DataError(
                f"there is no column {column!r}; the file has {', '.join(sorted(found))}",
                where=f"{path} (template of task {spec.name})",
                fix=did_you_mean(column, found),
                code="D01",
            )
        empty = [number for number, row in enumerate(rows, start=1) if row.get(column) is None]
        if empty:
            raise DataError(
                f"{len(empty)} rows have no {column!r}: row {', '.join(map(str, empty[:5]))}",
                where=str(path),
                fix="complete the rows or remove them",
                code="D02",
            )


def _check_labels(spec: TaskSpec, rows: list[Row], path: Path) -> None:
    """Every value of the target has its word, and no target is empty."""
    values = [_fill(spec.target, row) for row in rows]
    empty = [number for number, value in enumerate(values, start=1) if not value.strip()]
    if empty:
        raise DataError(
            f"{len(empty)} rows have an empty target: row {', '.join(map(str, empty[:5]))}",
            where=str(path),
            fix="complete the rows or remove them",
            code="D03",
        )
    unknown = Counter(value for value in values if spec.labels is not None and value not in spec.labels)
    if unknown:
        seen = ", ".join(f"{value!r} ({count} rows)" for value, count in unknown.most_common(5))
        raise DataError(
            f"labels without a word: {seen}",
            where=f"{path}, first in row {next(n for n, v in enumerate(values, 1) if v in unknown)}",
            fix=f"add them under 'labels' of task {spec.name!r}, which has {', '.join(spec.labels or {})}",
            code="D06",
        )


def _source(spec: TaskSpec, row: Row) -> str:
    missing = [column for column in FIELD.findall(spec.source) if row.get(column) is None]
    if missing:
        raise DataError(
            f"the row has no {missing[0]!r}; it has {', '.join(map(str, row)) or 'nothing'}",
            where=f"task {spec.name}",
            fix=did_you_mean(missing[0], map(str, row)),
            code="D01",
        )
    return _fill(spec.source, row)


def _examples(spec: TaskSpec, row: Row) -> list[Example]:
    target = _fill(spec.target, row)
    if spec.labels is not None:
        return [Example(_source(spec, row), spec.labels[target])]
    references = row[spec.references] if spec.references else ()
    if not isinstance(references, list | tuple):
        references = (references,)
    return [Example(_source(spec, row), target, tuple(str(one) for one in references))]


def _fill(template: str, row: Row) -> str:
    value: Callable[[re.Match[str]], str] = lambda match: str(row[match[1]])  # noqa: E731
    return FIELD.sub(value, template)
