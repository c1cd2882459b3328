"""Scores of answers against the accepted ones. Loads without torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from weft.errors import DataError
from weft.evaluation.answers import Answer
from weft.tasks import Example, Task


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
    accepted = [example.accepted for example in examples]
    given = [one.text for one in answers]
    metrics = {name: metric(given, accepted) for name, metric in task.metrics.items()}
    if any(one.written is None for one in answers):
        return Scores(len(examples), metrics)
    texts = [one.written or "" for one in answers]
    written = metrics  # of open answers, which are those given
    if texts != given:
        written = {name: metric(texts, accepted) for name, metric in task.metrics.items()}
    strange = sum(text not in task.choices for text in texts) if task.choices else 0
    return Scores(len(examples), metrics, written, 100 * strange / len(texts))
