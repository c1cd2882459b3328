"""The rows that a plan reads: those left after caps, and of draws those of any seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from weft.checks.findings import Findings
from weft.checks.overlap import Fields
from weft.config.base import Split
from weft.config.task import TaskSpec
from weft.data.selection import few_shot, subset
from weft.errors import DataError
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, splits
from weft.runs.workspace import Workspace
from weft.tasks import Example, Row, Task, template
from weft.tasks.holdout import origin

SHOWN = 3  # places that a message names


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
        """What their rows say at the template's fields; the whole text where it shows the answer (D20)."""
        told = {*template.names(self.spec.source)} & {*template.names(self.spec.target)}
        if told:
            return [(text,) for text in self.texts]
        return [self.task.fields(self.rows[self.row_of[i] - 1]) for i in self.chosen]

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
        return self.at_rows([self.row(place) for place in places])

    def at_rows(self, rows: Sequence[int]) -> str:
        """Where some rows of the file stand, by their numbers: the first few."""
        more = ", …" if len(rows) > SHOWN else ""
        return f"{self.name}, row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:SHOWN]))}{more}"


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
            for split in splits(config):
                if (spec.name, split) not in used:
                    used[spec.name, split] = found.attempt(partial(load, spec, task, split))
                if one := used[spec.name, split]:
                    use(config, one, found)
    return {key: one for key, one in used.items() if one and one.places}


def load(spec: TaskSpec, task: Task, split: Split) -> Used:
    """A split of a task, of which nothing is used yet.

    Raises:
        WeftError: if the rows cannot be read, or do not fit the task.
    """
    task.data_hash(split)  # before the rows, so that a file that changes between the two is noticed
    rows, examples = zip(*task.numbered(split), strict=True) if task.load(split) else ((), ())
    return Used(spec, task, split, task.rows(split), list(examples), list(rows))


def use(config: AnyRun, used: Used, found: Findings) -> None:
    """Note which examples a run uses."""
    places = {id(example): i for i, example in enumerate(used.examples)}
    used.places |= {places[id(example)] for example in _picked(config, used, found)}


def _picked(config: AnyRun, used: Used, found: Findings) -> list[Example]:
    """The examples of a split that a run trains on or scores; D13 where they are fewer than was asked for."""
    limits, task, name = config.limits, used.task, used.spec.name
    if isinstance(config, EvaluateRun):  # the majority answer reads training rows, and learns no text
        return subset(used.examples, limits.rows(name, "test_rows")) if used.split == config.split else []
    if used.split == "dev":
        return subset(used.examples, limits.rows(name, "dev_rows"))
    if not isinstance(config, AdaptRun):
        return subset(used.examples, limits.rows(name, "train_rows"))
    return drawn(config, task, used.examples, found.warn)


def drawn(
    config: AdaptRun, task: Task, examples: list[Example], warn: Callable[[DataError], None]
) -> list[Example]:
    """The rows of a target task that a run trains on: all up to its cap, or a few of these.

    `warn` is told of an answer that has too few.
    """
    counts, closed = (config.shots, config.shots_total), bool(task.choices)
    rows = subset(examples, config.limits.rows(task.name, "target_rows"))
    return few_shot(rows, *counts, seed=config.seed, task=task.name, closed=closed, warn=warn)
