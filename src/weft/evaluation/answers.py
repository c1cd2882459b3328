"""What an answer is, and what answers: all that evaluation, prediction and serving know of a method.

Loads without torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from weft.config.decoding import Decoding
from weft.errors import ConfigError, DataError, NumericError
from weft.tasks import Task


@dataclass(frozen=True)
class Answer:
    """One row's answer.

    Attributes:
        task: the task's name.
        written: what the model wrote, parsed; none if it was not asked to write.
        chosen: the likeliest choice, for closed answer sets.
        probabilities: choice -> probability among the choices.
    """

    task: str
    written: str | None = None
    chosen: str | None = None
    probabilities: dict[str, float] | None = None

    @property
    def text(self) -> str:
        """The answer: the chosen one of a closed set, else the written one."""
        return self.chosen if self.chosen is not None else self.written or ""


class Answerer(Protocol):
    """A method at work: texts in, answers out."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks it answers for, in the order of the task ids."""

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """Answers of texts for their tasks, in the order of the texts.

        Args:
            texts: what the tasks' templates make of rows.
            task_ids: the task of each text.
            batch_size: rows read at once, which changes no answer.
            generate: also write freely where the answers are closed, if it can write.

        Raises:
            TextError: for a text that cannot be read.
        """


@runtime_checkable
class Writes(Protocol):
    """What an `Answerer` may have besides, a data class: the way in which it writes answers."""

    decoding: Decoding

    @property
    def room(self) -> int | None:
        """Tokens that the model has for an answer beside the longest text; none: as many as are wished."""


def decoded(answerer: Answerer, decoding: Decoding, most: int | None = None) -> Answerer:
    """An answerer that writes in another way; one that only chooses stays as it is.

    Args:
        answerer: the answerer.
        decoding: how answers are written.
        most: most tokens of a written answer; none: as each task says.

    Raises:
        ConfigError: if the model has no room for so many tokens.
    """
    if not isinstance(answerer, Writes):
        return answerer
    changes: dict[str, Any] = {"decoding": decoding}
    if most is not None:
        room = most if answerer.room is None else answerer.room
        if not 1 <= most <= room:
            cause = f"an answer of {most} tokens is asked for, and the model has room for {room}"
            raise ConfigError(cause, fix="ask for fewer tokens, and for one at least", code="C07")
        changes["tasks"] = tuple(replace(task, max_target_tokens=most) for task in answerer.tasks)
    return replace(answerer, **changes)  # type: ignore[type-var]


class TextError(DataError):
    """A text that cannot be answered, with its place among those asked for.

    Args:
        number: the text's place, from 0.
        fault: what is wrong with it.
    """

    def __init__(self, number: int, fault: DataError) -> None:
        super().__init__(fault.cause, where=fault.where, fix=fault.fix, code=fault.code)
        self.number = number


def chosen(task: Task, shares: Sequence[float], written: str | None = None) -> Answer:
    """The likeliest of a task's choices, given the probability of each; of equal ones, the first.

    Raises:
        NumericError: if a probability is no number.
    """
    if not all(map(math.isfinite, shares)):
        raise NumericError(
            "the probabilities of the answers are no numbers",
            where=f"task {task.name}",
            fix="train the run again with a lower optim.lr; with bfloat16 weights, try base.dtype: float32",
            code="N01",
        )
    probabilities = dict(zip(task.choices, shares, strict=True))
    best = max(task.choices, key=lambda word: probabilities[word])
    return Answer(task.name, written, best, probabilities)


def chosen_by_task(
    tasks: Sequence[Task], task_ids: Sequence[int], shares: Callable[[int, list[int]], Any]
) -> list[Answer]:
    """The likeliest choice of each row, in the order of the rows, where a task's rows are judged at once.

    Args:
        tasks: in the order of the task ids.
        task_ids: the task of each row.
        shares: a task's number and the places of its rows -> probability of each of its choices `[N, C]`.
    """
    answers: dict[int, Answer] = {}
    for k in sorted(set(task_ids)):
        rows = [i for i, one in enumerate(task_ids) if one == k]
        found = shares(k, rows).tolist()
        answers |= {i: chosen(tasks[k], one) for i, one in zip(rows, found, strict=True)}
    return [answers[i] for i in range(len(task_ids))]
