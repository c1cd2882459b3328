"""Scored rows that stand in training rows: of one plan, and of a run in those that it was made from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from weft import runs
from weft.checks.findings import Findings
from weft.checks.overlap import leaks, shared
from weft.checks.used_rows import SHOWN, Used, load, share, use
from weft.config.base import Split
from weft.errors import ArtifactError, DataError
from weft.methods.no_prompt import NoPrompt
from weft.runs import bundled, tensor_file
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, RunConfig, splits
from weft.runs.workspace import Workspace

C = TypeVar("C", bound=RunConfig)


def check_leaks(
    used: Used, seen: Iterable[Used], found: Findings, *, scored: bool = True
) -> dict[str, set[int]]:
    """D11: rows whose whole input is in rows seen before: for each task that has any, their places.

    Scored rows in training rows are an error unless allowed; with dev rows, which only choose a state, on
    either side, a warning.
    """
    leaked: dict[str, set[int]] = {}
    for train in seen:
        pairs = leaks(train.inputs, used.inputs)
        if not pairs:
            continue
        leaked[train.spec.name] = {pair.scored for pair in pairs}
        exact = sum(pair.exact for pair in pairs)
        shown = "; ".join(
            f"row {used.row(one.scored)} = {_called(train.split)} row {train.row(one.seen)}"
            for one in pairs[:SHOWN]
        )
        fault = DataError(
            f"{share(len(pairs), len(used.inputs))} {used.split} rows stand in the {_called(train.split)} "
            f"rows of {train.spec.name}, {exact} of them letter for letter",
            where=f"{used.name} and {train.name}: {shown}{'; …' if len(pairs) > SHOWN else ''}",
            fix="remove them from one of the files",
            code="D11",
        )
        if scored:
            found.unless("leaks", fault)
        else:
            found.warn(fault)
    return leaked


def _called(split: Split) -> str:
    """A split's rows in words."""
    return "training" if split == "train" else split


def shared_sentences(scored: Used, seen: Iterable[Used]) -> int:
    """How many scored rows have a sentence, but not their whole input, in common with training rows."""
    return shared([fields for train in seen for fields in train.inputs], scored.inputs)


def counts(leaked: Mapping[str, set[int]]) -> dict[str, Any]:
    """How many rows leak: `rows` in all, and `by_task` those that stand in each task's training rows."""
    by_task = {name: len(places) for name, places in leaked.items()}
    return {"rows": len(set().union(*leaked.values())), "by_task": by_task}


def leaks_of(config: AdaptRun | EvaluateRun, workspace: Workspace, found: Findings) -> dict[str, Any]:
    """D11: rows of a run's tasks that stand in training rows of it, or of the runs that it was made from.

    Of an evaluation, the rows that it scores; of a training, all test rows. They are compared with what the
    folder of runs and the data still hold; findings come with the first comparison in a workspace. Rows among
    the dev rows that chose the run's state are found too, and not counted.

    Returns:
        for each task `rows`, `by_task`, and `unread`, the tasks whose rows could not be read, those of
        prompts that come with weft among them, known by name alone.
    """
    behind, shipped = lineage(config, workspace)
    trained = [part for run in behind for part in _parts(run)]
    result = {}
    for scored in _scored(config, workspace):
        name = scored.tasks[0].name
        if name in shipped:
            cause = (
                f"the prompts that come with weft were trained on a task {name!r}: its score is no transfer"
            )
            found.warn(
                DataError(cause, where=f"task {name}", fix="give source tasks of your own", code="C11")
            )
        leaked = _leaks_into(scored, trained, workspace, found)
        for one in trained:
            if one.tasks[0].name == name and "dev" in splits(one) and scored.split != "dev":
                _leaked(scored, one, workspace, found, "dev")
        result[name] = {**leaked, "unread": sorted({*leaked["unread"], *shipped})}
    return result


def lineage(config: AnyRun, workspace: Workspace) -> tuple[list[AnyRun], set[str]]:
    """The trainings behind a run, itself among them, as far as the folder of runs has them.

    Returns:
        these, and the tasks of those that come with weft.
    """
    found, shipped, seen = [config], set[str](), set[str]()
    names = tensor_file.parents(config)
    while names:
        name = names.pop(0)
        with suppress(ArtifactError):
            if name not in seen:
                run = runs.find(workspace.root, name)
                own = workspace.config_of(run)
                names += tensor_file.parents(own)
                if bundled.ships(run):
                    shipped |= {task.name for task in own.tasks}
                else:
                    found.append(own)
        seen.add(name)
    return [one for one in found if not isinstance(one, EvaluateRun)], shipped


def _parts(config: C) -> list[C]:
    """A run of several tasks as runs of one."""
    return [config.model_copy(update={"tasks": (spec,)}) for spec in config.tasks]


def _scored(config: AdaptRun | EvaluateRun, workspace: Workspace) -> list[EvaluateRun]:
    """Evaluations of one task each: those of an evaluation, or of all test rows of a training's tasks."""
    if isinstance(config, EvaluateRun):
        return _parts(config)
    parts = _parts(EvaluateRun(base=config.base, tasks=config.tasks, method=NoPrompt()))
    return [part for part in parts if "test" in workspace.task(part.tasks[0]).splits]


def _leaks_into(
    scored: EvaluateRun, trained: Sequence[AnyRun], workspace: Workspace, found: Findings
) -> dict[str, Any]:
    """Rows of one task that stand in the rows of trainings, each of one task."""
    leaked: dict[str, set[int]] = {}
    unread = set()
    for one in trained:
        name, places = one.tasks[0].name, _leaked(scored, one, workspace, found)
        if places is None:
            unread.add(name)
        elif places:
            leaked[name] = leaked.get(name, set()) | places
    return {**counts(leaked), "unread": sorted(unread)}


def _leaked(
    scored: EvaluateRun, trained: AnyRun, workspace: Workspace, found: Findings, split: Split = "train"
) -> set[int] | None:
    """Places of scored rows that stand in a training's rows; none if one of them could not be read.

    Compared once in a workspace: many evaluations share their sources.
    """
    dev = trained.limits.rows(trained.tasks[0].name, "dev_rows")
    key = (_rows_key(scored), f"{split} {dev} {_rows_key(trained)}")
    if key not in workspace.leaks:
        reading = Findings()
        test = _rows_of(scored, scored.split, workspace, reading)
        train = _rows_of(trained, split, workspace, reading) if test else None
        for fault in reading.errors:
            cause = f"leaks were not looked for: {fault.cause}"
            found.warn(DataError(cause, where=fault.where, fix=fault.fix, code=fault.code))
        leaked = check_leaks(test, [train], found, scored=split == "train") if test and train else {}
        workspace.leaks[key] = None if reading.errors else set().union(*leaked.values())
    return workspace.leaks[key]


def _rows_key(config: AnyRun) -> str:
    """What decides which rows a run of one task scores, or trains on."""
    cap = partial(config.limits.rows, config.tasks[0].name)
    draw: list[object] = [cap("train_rows")]
    if isinstance(config, EvaluateRun):
        draw = [config.split, cap("test_rows")]
    elif isinstance(config, AdaptRun):
        shots = (config.shots, config.shots_total)
        draw = [cap("target_rows"), *shots, config.seed if any(shots) else None]
    return json.dumps([config.tasks[0].model_dump_json(), *draw])


def _rows_of(config: AnyRun, split: Split, workspace: Workspace, found: Findings) -> Used | None:
    """The rows of one split that a run of one task uses."""
    [spec] = config.tasks
    used = found.attempt(lambda: load(spec, workspace.task(spec), split))
    if used:
        use(config, used, Findings())
    return used if used and used.places else None
