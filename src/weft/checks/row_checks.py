"""Checks of the rows that a plan reads: copies, ids, empty texts and answers.

Only rows that are used count: those left after caps on rows; where a few of each answer are drawn, those
that any seed draws. Nothing here needs a tokenizer.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from weft import runs
from weft.checks.findings import Findings
from weft.checks.leak_checks import check_leaks
from weft.checks.overlap import Fields, fields_of, repeats
from weft.config.base import Split
from weft.config.task import TaskSpec
from weft.data.selection import few_shot, subset
from weft.errors import ArtifactError, ConfigError, DataError, WeftError
from weft.runs import tensor_file
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, RunConfig
from weft.runs.workspace import Workspace
from weft.tasks import Example, Row, Task
from weft.tasks.holdout import origin

C = TypeVar("C", bound=RunConfig)
WARN, STOP = 0.01, 0.20  # shares of rows
SHOWN = 3  # places that a message names
IDS = ("id", "idx")


@dataclass
class Used:
    """The rows of one split of a task that a plan reads.

    Attributes:
        spec: the task's declaration.
        task: the task.
        split: the split.
        rows: all rows of the split.
        examples: all examples of these rows, in their order.
        row_of: the row, from 1, of every example.
        places: which examples are used.
    """

    spec: TaskSpec
    task: Task
    split: Split
    rows: list[Row]
    examples: list[Example]
    row_of: list[int]
    places: set[int] = field(default_factory=set)

    @cached_property
    def chosen(self) -> list[int]:
        """Places of the used examples, in order; asked for once all are known."""
        return sorted(self.places)

    @cached_property
    def texts(self) -> list[str]:
        """What the model reads of them."""
        return [self.examples[i].source for i in self.chosen]

    @cached_property
    def inputs(self) -> list[Fields]:
        """The values at the template's fields."""
        return [fields_of(self.spec.source, text) for text in self.texts]

    @property
    def name(self) -> str:
        """Task, split and file, for messages."""
        rule = self.spec.holdout
        file = self.spec.files.get(origin(rule, self.split))
        part = "" if rule == "none" else "its part of "  # rows are counted within the part
        return f"task {self.spec.name}, {self.split}" + (f" ({part}{file})" if file else "")

    def row(self, place: int) -> int:
        """The row, from 1, of the used example at a place of `chosen`."""
        return self.row_of[self.chosen[place]]

    def at(self, places: Sequence[int]) -> str:
        """Where some of the used examples stand: the first few rows."""
        rows = [self.row(place) for place in places[:SHOWN]]
        more = ", …" if len(places) > SHOWN else ""
        return f"{self.name}, row{'s' if len(places) > 1 else ''} {', '.join(map(str, rows))}{more}"


def share(count: int, total: int) -> str:
    """`3 of 200 (1.5 %)`."""
    return f"{count:,} of {total:,} ({100 * count / total:.1f} %)"


def read(configs: Sequence[AnyRun], workspace: Workspace, found: Findings) -> dict[tuple[str, Split], Used]:
    """The rows that runs use, by task and split."""
    used: dict[tuple[str, Split], Used | None] = {}
    for config in configs:
        for spec in config.tasks:
            task = found.attempt(partial(workspace.task, spec))
            if task is None:
                continue
            for split in workspace.splits(config):
                if (spec.name, split) not in used:
                    used[spec.name, split] = found.attempt(partial(load, spec, task, split))
                if one := used[spec.name, split]:
                    _use(config, one, found)
    return {key: one for key, one in used.items() if one and one.places}


def load(spec: TaskSpec, task: Task, split: Split) -> Used:
    """A split of a task, of which nothing is used yet.

    Raises:
        WeftError: if the rows cannot be read, or do not fit the task.
    """
    task.data_hash(split)  # before the rows, so that a file that changes between the two is noticed
    rows, examples = zip(*task.numbered(split), strict=True) if task.load(split) else ((), ())
    return Used(spec, task, split, task.rows(split), list(examples), list(rows))


def _use(config: AnyRun, used: Used, found: Findings) -> None:
    """Note which examples a run uses."""
    places = {id(example): i for i, example in enumerate(used.examples)}
    used.places |= {places[id(example)] for example in _picked(config, used, found)}


def _picked(config: AnyRun, used: Used, found: Findings) -> list[Example]:
    """The examples of a split that a run trains on or scores; D13 where they are fewer than was asked for."""
    limits, task = config.limits, used.task
    if isinstance(config, EvaluateRun):  # the majority answer reads training rows, and learns no text
        return subset(used.examples, limits.test_rows) if used.split == config.split else []
    if used.split == "dev":
        return subset(used.examples, limits.dev_rows)
    if not isinstance(config, AdaptRun):
        return subset(used.examples, limits.train_rows)
    drawn, closed = (config.shots, config.shots_total), bool(task.choices)
    return few_shot(used.examples, *drawn, seed=config.seed, task=task.name, closed=closed, warn=found.warn)


def check_rows(used: Used, found: Findings) -> None:
    """Copies, ids, empty texts and answers of one split."""
    _ids(used, found)
    _copies(used, found)
    _blanks(used, found)
    _answers(used, found)
    _numbers(used, found)


def _ids(used: Used, found: Findings) -> None:
    """D09: a column `id` or `idx` that the template does not show names a row once."""
    for column in IDS:
        places = sorted({used.row_of[i] - 1 for i in used.chosen})
        values = [used.rows[place].get(column) for place in places]
        plain = all(isinstance(value, str | int) for value in values)
        twice = list(repeats(values)) if plain else []
        if twice and f"{{{column}}}" not in used.spec.source + used.spec.target:
            rows = ", ".join(str(places[n] + 1) for n in twice[:SHOWN])
            found.unless(
                "duplicates",
                DataError(
                    f"{len(twice)} rows have an {column!r} that stands before: {values[twice[0]]!r}",
                    where=f"{used.name}, rows {rows}",
                    fix="remove the copies or rename the column",
                    code="D09",
                ),
            )


def _copies(used: Used, found: Findings) -> None:
    """D10: training rows that are copies, input and answer, of others."""
    if used.split != "train":
        return
    copies = repeats((used.examples[i].source, used.examples[i].target) for i in used.chosen)
    fault = DataError(
        f"{share(len(copies), len(used.chosen))} training rows are copies of others",
        where=used.at(copies),
        fix="remove the copies",
        code="D10",
    )
    by_share(len(copies), len(used.chosen), 0.0, "duplicates", fault, found)


def by_share(count: int, total: int, warn: float, allowance: Any, fault: WeftError, found: Findings) -> None:
    """An error over 20 %, unless it is allowed; a warning over `warn`."""
    if count > STOP * total:
        found.unless(allowance, fault)
    elif count > warn * total:
        found.warn(fault)


def _blanks(used: Used, found: Findings) -> None:
    """D02: texts whose fields are all white space, and single fields that are."""
    filled = [[bool(text.strip()) for text in fields] for fields in used.inputs]
    empty = [i for i, one in enumerate(filled) if not any(one)]
    partly = [i for i, one in enumerate(filled) if any(one) and not all(one)]
    fix = "complete the rows or remove them"
    if empty:
        cause = f"{len(empty)} texts are nothing but white space"
        found.error(DataError(cause, where=used.at(empty), fix=fix, code="D02"))
    if partly:
        cause = f"{len(partly)} rows have an empty field beside others"
        found.warn(DataError(cause, where=used.at(partly), fix=fix, code="D02"))


def _answers(used: Used, found: Findings) -> None:
    """D12: closed answers that never occur, or only one that does."""
    if not used.task.choices:
        return
    seen = Counter(used.examples[i].target for i in used.chosen)
    absent = [word for word in used.task.choices if word not in seen]
    where = used.name
    whole = {example.target for example in used.examples}
    if len(seen) == 1 and len(whole) == 1 and absent:
        undefined = [name for name in used.task.metrics if name != "accuracy"]
        found.error(
            DataError(
                f"all {len(used.chosen)} rows have the answer {next(iter(seen))!r}",
                where=where,
                fix="give rows of every answer"
                + (f"; {', '.join(undefined)} would mean nothing here" if undefined else ""),
                code="D12",
            )
        )
    elif absent:
        found.warn(
            DataError(
                f"{len(absent)} of {len(used.task.choices)} answers have no row: {some_of(absent)}",
                where=where,
                fix="give rows of every answer, or remove the label"
                + ("; a higher cap in limits has some" if len(whole) > len(seen) else ""),
                code="D12",
            )
        )


def _numbers(used: Used, found: Findings) -> None:
    """C18: correlations need answers that are numbers."""
    wanted = [name for name in used.task.metrics if name in ("pearson", "spearman")]
    wrong = [i for i, place in enumerate(used.chosen) if not _is_number(used.examples[place].target)]
    if wanted and wrong:
        answer = used.examples[used.chosen[wrong[0]]].target
        found.error(
            ConfigError(
                f"{wanted[0]} compares numbers, and the answer {answer!r} is none",
                where=f"{used.at(wrong)} (metrics)",
                fix="name a metric that the answers suit, such as accuracy",
                code="C18",
            )
        )


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def some_of(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words[:5])) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def counts(leaked: Mapping[str, set[int]]) -> dict[str, Any]:
    """How many rows leak: `rows` in all, and `by_task` those that stand in each task's training rows."""
    by_task = {name: len(places) for name, places in leaked.items()}
    return {"rows": len(set().union(*leaked.values())), "by_task": by_task}


def leaks_of(config: AdaptRun | EvaluateRun, workspace: Workspace, found: Findings) -> dict[str, Any]:
    """D11: rows of a run's tasks that stand in training rows of it, or of the runs that it was made from.

    Of an evaluation, the rows that it scores; of a training, all test rows. They are compared with what the
    folder of runs and the data still hold; findings come with the first comparison in a workspace.

    Returns:
        for each task `rows`, `by_task`, and `unread`, the tasks whose rows could not be read.
    """
    trained = [part for run in lineage(config, workspace.root) for part in _parts(run)]
    return {
        scored.tasks[0].name: _leaks_into(scored, trained, workspace, found)
        for scored in _scored(config, workspace)
    }


def lineage(config: AnyRun, root: Path) -> list[AnyRun]:
    """The trainings behind a run, itself among them, as far as the folder of runs has them."""
    found = {"": config}
    names = tensor_file.parents(config)
    while names:
        name = names.pop(0)
        with suppress(ArtifactError):
            if name not in found:
                found[name] = runs.find(root, name).config()
                names += tensor_file.parents(found[name])
    return [one for one in found.values() if not isinstance(one, EvaluateRun)]


def _parts(config: C) -> list[C]:
    """A run of several tasks as runs of one."""
    return [config.model_copy(update={"tasks": (spec,)}) for spec in config.tasks]


def _scored(config: AdaptRun | EvaluateRun, workspace: Workspace) -> list[EvaluateRun]:
    """Evaluations of one task each: those of an evaluation, or of all test rows of a training's tasks."""
    if isinstance(config, EvaluateRun):
        return _parts(config)
    parts = _parts(EvaluateRun(base=config.base, tasks=config.tasks))
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


def _leaked(scored: EvaluateRun, trained: AnyRun, workspace: Workspace, found: Findings) -> set[int] | None:
    """Places of scored rows that stand in a training's rows; none if one of them could not be read.

    Compared once in a workspace: many evaluations share their sources.
    """
    key = (_rows_key(scored), _rows_key(trained))
    if key not in workspace.leaks:
        reading = Findings()
        test = _rows_of(scored, scored.split, workspace, reading)
        train = _rows_of(trained, "train", workspace, reading) if test else None
        for fault in reading.errors:
            cause = f"leaks were not looked for: {fault.cause}"
            found.warn(DataError(cause, where=fault.where, fix=fault.fix, code=fault.code))
        leaked = check_leaks(test, [train], found) if test and train else {}
        workspace.leaks[key] = None if reading.errors else set().union(*leaked.values())
    return workspace.leaks[key]


def _rows_key(config: AnyRun) -> str:
    """What decides which rows a run of one task scores, or trains on."""
    draw: list[object] = [config.limits.train_rows]
    if isinstance(config, EvaluateRun):
        draw = [config.split, config.limits.test_rows]
    elif isinstance(config, AdaptRun):
        shots = (config.shots, config.shots_total)
        draw = [*shots, config.seed if any(shots) else None]
    return json.dumps([config.tasks[0].model_dump_json(), *draw])


def _rows_of(config: AnyRun, split: Split, workspace: Workspace, found: Findings) -> Used | None:
    """The rows of one split that a run of one task uses."""
    [spec] = config.tasks
    used = found.attempt(lambda: load(spec, workspace.task(spec), split))
    if used:
        _use(config, used, Findings())
    return used if used and used.places else None
