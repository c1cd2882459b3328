"""Scores of answers against the accepted ones. Loads without torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from weft.errors import DataError
from weft.evaluation.answers import Answer
from weft.tasks import Example, Task
from weft.tasks.spread import measures


@dataclass(frozen=True)
class Scores:
    """Metrics of one task on some rows, in percent; none where a metric is undefined.

    Attributes:
        rows: how many rows were scored.
        metrics: of the answers: the chosen ones where answers are closed.
        written: of the freely written answers, where they were asked for.
        unparsable: share of written answers outside the closed set, in percent.
    """

    rows: int
    metrics: dict[str, float | None]
    written: dict[str, float | None] | None = None
    unparsable: float | None = None


def score(task: Task, examples: Sequence[Example], answers: Sequence[Answer]) -> Scores:
    """Metrics of answers against the accepted ones.

    Raises:
        DataError: if there are no rows.
    """
    if not examples:
        raise DataError("there are no rows to score", where=f"task {task.name}", code="D13")
    given = [one.text for one in answers]
    metrics = measures(task, examples, given)
    if any(one.written is None for one in answers):
        return Scores(len(examples), metrics)
    texts = [one.written or "" for one in answers]
    # of open answers, written ones are those given
    written = metrics if texts == given else measures(task, examples, texts)
    strange = sum(text not in task.choices for text in texts) if task.choices else 0
    return Scores(len(examples), metrics, written, 100 * strange / len(texts))
