"""The commonest answer of the training rows: what every score is to be held against."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from weft.evaluation.answers import Answer
from weft.methods.method import Method, Saved, Setup
from weft.tasks import Task
from weft.tasks.spread import commonest


class Majority(Method):
    """The commonest answer of all training rows; no model."""

    name: Literal["majority"] = "majority"
    asks_rows: ClassVar[bool] = True
    only_reads: ClassVar[bool] = True
    reads_base: ClassVar[bool] = False

    @property
    def learns(self) -> bool:
        """Nothing that a seed could change: it counts all training rows when it answers."""
        return False

    def restore(self, setup: Setup, saved: Saved) -> "Constant":
        """The answer of each task."""
        return Constant(setup.tasks, tuple(commonest(rows) for rows in setup.rows))


@dataclass(frozen=True)
class Constant:
    """Always the same answer to a task."""

    tasks: tuple[Task, ...]
    words: tuple[str, ...]

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """See `Answerer`."""
        return [
            Answer(self.tasks[k].name, self.words[k], self.words[k] if self.tasks[k].choices else None)
            for k in task_ids
        ]
