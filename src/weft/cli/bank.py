"""Commands of a bank: many tasks of one base model in one folder, from which they are served."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from weft.cli.app import RUNS, Base, Data, Runs, Sets, app, open_workspace, overrides_of, plan_of
from weft.errors import ConfigError

if TYPE_CHECKING:
    from weft.bank import Entry
    from weft.bank.draft import Row
    from weft.bank.forms import Dtype

commands = App(
    name="bank", help="Keep many tasks of one base model in one folder: add, ls, show, rm, and more."
)
app.command(commands)
Generation = Annotated[
    int | None, Parameter(help="change this generation only; if the bank is of another, nothing is changed")
]
Replace = Annotated[bool, Parameter(negative="", help="tasks that are there are replaced")]


@commands.command
def add(
    bank: Path,
    *names: str,
    runs: Runs = RUNS,
    name: Annotated[list[str] | None, Parameter(help="OLD=NEW: another name for a run's task")] = None,
    replace: Replace = False,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        Parameter(help="of a new bank: bfloat16 halves it, and answers are near to the runs'"),
    ] = None,
    generation: Generation = None,
) -> None:
    """Put the tasks of finished runs into a bank, which is made if it is not there.

    An evaluation stands for the run that it scored, and gives its scores.
    """
    _put(bank, names, runs, _others(name or ()), replace=replace, dtype=dtype, generation=generation)


def _put(
    bank: Path,
    names: Sequence[str],
    runs: Path,
    others: Mapping[str, str],
    *,
    replace: bool,
    dtype: "Dtype | None" = None,
    generation: int | None = None,
) -> None:
    """Add runs' tasks, some under other names; what is to be replaced and is there already stays."""
    from weft import bank as banks
    from weft.bank import draft, from_runs, manifest, writer

    known = banks.open(bank).snapshot() if (bank / manifest.NAME).exists() else None
    if known is not None and dtype not in (None, known.manifest.dtype):
        cause = f"the bank is of {known.manifest.dtype}"
        raise ConfigError(cause, where="--dtype", fix="leave it out, or make another bank")
    kept = known.manifest.dtype if known else dtype or "float32"
    groups, base = (known.groups, known.base) if known else ((), None)
    found = from_runs.of_runs(names, runs, kept, groups, base)
    rows = _renamed(found.rows, others)
    if known is None:
        known = banks.create(bank, found.base, dtype=kept).snapshot()
    if replace and not (rows := draft.missing(rows, known)):
        print(f"generation {known.generation} has them already")
        return
    new = writer.change(bank, rows, shared=found.shared, replace=replace, generation=generation)
    print(f"generation {new}: {', '.join(row.name for row in rows)}")


@commands.command
def fill(
    bank: Path,
    experiment: Path,
    *,
    runs: Runs = RUNS,
    data: Data = None,
    base: Base = None,
    set_: Sets = None,
    row: Annotated[str | None, Parameter(help="its label; else the best row that a bank keeps")] = None,
    prefix: Annotated[str, Parameter(help="stands before the tasks' names")] = "",
) -> None:
    """Put the targets of a finished experiment into a bank, as one row of its table answers them.

    They are those of the first seed, with their scores. What is there already, and of the same run, stays.
    """
    from weft.experiments import banked, tables

    with open_workspace(runs, data, quiet=True) as workspace:
        plan = plan_of(experiment, overrides_of(set_, base), workspace)
        names = banked.evaluations(tables.collect(plan, runs), plan, row)
    others = {task: f"{prefix}{task}" for task in plan.experiment.targets}
    _put(bank, names, runs, others, replace=True)


def _others(pairs: Sequence[str]) -> dict[str, str]:
    """The names that tasks get, by those that they have in their runs.

    Raises:
        ConfigError: for what is no pair.
    """
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"{pair!r} does not rename a task", where="--name", fix="OLD=NEW", code="C12")
    return dict(pair.partition("=")[::2] for pair in pairs)


def _renamed(rows: Sequence["Row"], others: Mapping[str, str]) -> list["Row"]:
    """Rows under the names that they get.

    Raises:
        ConfigError: if a task gets another name that is not among them.
    """
    from dataclasses import replace

    tasks = [row.name for row in rows]
    if unknown := [name for name in others if name not in tasks]:
        cause = f"{unknown[0]!r} is no task that is added"
        raise ConfigError(cause, where="--name", fix=f"OLD=NEW, of {', '.join(tasks)}", code="C12")
    return [replace(row, name=others.get(row.name, row.name)) for row in rows]


@commands.command
def ls(
    bank: Path,
    *,
    prefix: Annotated[str, Parameter(help="names that begin so")] = "",
    after: Annotated[str, Parameter(help="the last name of the page before")] = "",
    limit: Annotated[int, Parameter(help="names of a page")] = 100,
    group: Annotated[str | None, Parameter(help="tasks that share what this group has")] = None,
    search: Annotated[str, Parameter(help="names in which this stands")] = "",
) -> None:
    """List the names of a bank's tasks, a page at a time."""
    from weft import bank as banks

    with banks.open(bank).snapshot() as snapshot:
        found = (
            snapshot.search(search, limit)
            if search
            else snapshot.names(prefix=prefix, after=after, limit=limit, group=group)
        )
        print(*found, sep="\n", end="\n" * bool(found))
        print(f"{len(found):,} of {len(snapshot):,} tasks, generation {snapshot.generation}")


@commands.command
def show(bank: Path, *names: str) -> None:
    """Show what a bank says of tasks, as JSON, a line each; without names, of the bank itself."""
    from weft import bank as banks

    with banks.open(bank).snapshot() as snapshot:
        if not names:
            about = {
                "generation": snapshot.generation,
                "tasks": len(snapshot),
                "base": snapshot.base.model_dump(),
            }
            print(json.dumps({**about, "dtype": snapshot.manifest.dtype, "groups": snapshot.groups}))
        for name in names:
            print(json.dumps(_shown(snapshot.find(name)), ensure_ascii=False))


def _shown(entry: "Entry") -> dict[str, object]:
    """An entry for JSON."""
    left_out = ("line", "task", "method")
    said = {key: value for key, value in vars(entry).items() if key not in left_out}
    method = entry.method.model_dump(mode="json") if entry.method else None
    return {**said, "task": entry.task.model_dump(mode="json", exclude_defaults=True), "method": method}


@commands.command
def rm(bank: Path, *names: str, generation: Generation = None) -> None:
    """Take tasks out of a bank; their room is free after `weft bank compact`."""
    from weft.bank import writer

    if not names:
        raise ConfigError("no task is named", fix="weft bank ls shows the names", code="C12")
    print(f"generation {writer.change(bank, remove=names, generation=generation)}")


@commands.command
def verify(bank: Path) -> None:
    """Hold every file and every row of a bank against its hash; name what is damaged."""
    from weft.bank import verification
    from weft.errors import ArtifactError

    found = verification.damage(bank)
    print(*found, sep="\n", end="\n" * bool(found))
    if found:
        fix = "add the named tasks again (weft bank add --replace), or restore the folder from a copy"
        raise ArtifactError(f"{len(found)} things are damaged", where=str(bank), fix=fix, code="A01")
    print("whole")


@commands.command
def compact(bank: Path, *, generation: Generation = None) -> None:
    """Write a bank anew without what was removed; it is served all the while, and other changes wait."""
    from weft.bank import compaction

    print(f"generation {compaction.compact(bank, generation=generation)}")


@commands.command(name="export")
def export_(bank: Path, out: Path, *names: str) -> None:
    """Write tasks (none named: all) to the folder OUT, for `weft bank import`."""
    from weft import bank as banks
    from weft.bank import exchange

    with banks.open(bank).snapshot() as snapshot:
        print(f"{exchange.export(snapshot, out, names):,} tasks")


@commands.command(name="import")
def import_(
    bank: Path,
    folder: Path,
    *,
    replace: Replace = False,
    generation: Generation = None,
) -> None:
    """Put the tasks of an export into a bank of the same base model, which is made if it is not there."""
    from weft.bank import exchange

    print(f"generation {exchange.take(bank, folder, replace=replace, generation=generation)}")
