"""How a split's answers are spread, and what always giving the commonest one scores. Loads without torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from weft.config.base import Split
from weft.tasks.metrics import measured
from weft.tasks.task import Example, Task


@dataclass(frozen=True)
class Spread:
    """The answers of one split.

    Attributes:
        counts: answer -> rows, the commonest first; of closed answers, all of them.
        majority: the commonest answer.
        scores: metric -> what always giving that answer scores, in percent; none where it is undefined.
    """

    counts: dict[str, int]
    majority: str
    scores: dict[str, float | None]


def spread(task: Task, split: Split) -> Spread:
    """The spread of a split's answers; of several accepted ones, the first counts.

    Raises:
        DataError: if the split does not exist or has no rows that fit.
    """
    rows = task.load(split)
    counts = Counter(dict.fromkeys(task.choices, 0))
    counts.update(one.target for one in rows)
    word = commonest(rows)
    return Spread(dict(counts.most_common()), word, measures(task, rows, [word] * len(rows)))


def measures(task: Task, rows: Sequence[Example], texts: Sequence[str]) -> dict[str, float | None]:
    """What a task's metrics give answers of rows, by name."""
    accepted, groups = [one.accepted for one in rows], [one.group for one in rows]
    return {name: measured(metric, texts, accepted, groups) for name, metric in task.metrics.items()}


def commonest(rows: Sequence[Example]) -> str:
    """The rows' commonest answer; of equal ones, the first in order."""
    counts = Counter(example.target for example in rows)
    return min(counts, key=lambda target: (-counts[target], target))
