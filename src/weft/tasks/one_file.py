"""One file with rows of several tasks: a column `task` says which task a row is of. Loads without torch."""

from collections.abc import Collection, Sequence
from pathlib import Path

from weft.config.base import Split
from weft.config.task import TaskSpec
from weft.errors import ConfigError, DataError, did_you_mean
from weft.tasks import template
from weft.tasks.files import read_rows
from weft.tasks.task import Row

COLUMN = "task"
RESERVED = f"a column {COLUMN!r} says which task a row is of; give it another name if it means something else"


def chooses(templates: Collection[str]) -> bool:
    """Whether a column `task` says which of these tasks a row is of: not where a text shows it."""
    return len(templates) > 1 and not any(COLUMN in template.names(one) for one in templates)


def scored_in(specs: Sequence[TaskSpec], file: Path | None, task: str | None, split: Split) -> list[TaskSpec]:
    """A run's tasks with the rows that are scored: their own, or those of one labelled file.

    Args:
        specs: the tasks of the run.
        file: CSV, TSV, JSONL or Parquet with the columns of the tasks; none: their own files.
        task: the one that is scored, on all rows of the file; none: the run's only task, or as the column
            `task` says.
        split: under whose name the rows are scored.

    Raises:
        ConfigError: if the run has no such task.
        DataError: if the file does not say which task a row is of.
    """
    some = list(specs) if task is None else [chosen(specs, task)]
    if file is None:
        return some
    said = _said(read_rows(file)) if chooses([spec.source for spec in specs]) else []
    if len(some) == 1:
        _check_agree(said, some[0].name, specs, file)
        return [_in(file, some[0], split)]
    _check_named(said, specs, file)
    return [_in(file, spec, split, {COLUMN: spec.name}) for spec in specs if spec.name in said]


def chosen(specs: Sequence[TaskSpec], task: str) -> TaskSpec:
    """The task of that name.

    Raises:
        ConfigError: if there is none.
    """
    known = {spec.name: spec for spec in specs}
    if task not in known:
        cause, fix = f"the run has no task {task!r}", did_you_mean(task, known)
        raise ConfigError(cause, where="--task", fix=fix, code="C12")
    return known[task]


def _in(file: Path, spec: TaskSpec, split: Split, only: dict[str, str] | None = None) -> TaskSpec:
    """A task whose rows are those of a file, or those of them where columns hold certain values."""
    place = {"files": {split: file.name}, "folder": str(file.parent.resolve()), "in_data_root": False}
    return spec.model_copy(update={**place, "hub": None, "holdout": "none", "only": only or {}})


def _said(rows: list[Row]) -> list[str]:
    """What each row says of its task; empty where it says nothing."""
    return ["" if template.missing(COLUMN, row) else str(row[COLUMN]) for row in rows]


def _check_agree(said: list[str], task: str, specs: Sequence[TaskSpec], file: Path) -> None:
    """Refuse rows that say they are of another task of the run."""
    others = {spec.name for spec in specs} - {task}
    for number, name in enumerate(said, start=1):
        if name in others:
            raise DataError(
                f"the row says that it is of task {name!r}, and it is to be scored for {task!r}",
                where=f"{file}, row {number}",
                fix=f"leave --task out, so that the column {COLUMN!r} chooses; or take these rows out",
                code="C12",
            )


def _check_named(said: list[str], specs: Sequence[TaskSpec], file: Path) -> None:
    """Refuse rows that do not say which task of the run they are of."""
    known = [spec.name for spec in specs]
    strange = [(number, name) for number, name in enumerate(said or [""], start=1) if name not in known]
    if not strange:
        return
    row, name = strange[0]
    it = f"its {COLUMN!r} is {name!r} ({did_you_mean(name, known)})" if name else "it does not say"
    raise DataError(
        f"the run has {len(known)} tasks, and of which one the row is, is not known: {it}",
        where=f"{file}, row {row}",
        fix=f"score all rows for one of them with --task NAME ({', '.join(known)}); {RESERVED}",
        code="C12",
    )
