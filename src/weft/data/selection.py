"""Which rows a run uses: capped parts, and a few of each answer."""

import random
from collections import defaultdict

from weft.errors import DataError
from weft.tasks import Example

SUBSET_SEED = 0


def subset(examples: list[Example], rows: int | None) -> list[Example]:
    """At most `rows` examples, the same ones for every run and seed, in their old order."""
    if rows is None or rows >= len(examples):
        return examples
    picks = sorted(random.Random(SUBSET_SEED).sample(range(len(examples)), rows))
    return [examples[i] for i in picks]


def few_shot(
    examples: list[Example], shots: int, *, seed: int, task: str = "", closed: bool = True
) -> list[Example]:
    """`shots` examples of every answer, drawn by the seed, in a shuffled order; of open answers, in all.

    Raises:
        DataError: if an answer has fewer rows than that.
    """
    by_answer: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_answer[example.target if closed else "the task"].append(example)
    short = {answer: len(rows) for answer, rows in by_answer.items() if len(rows) < shots}
    if short:
        answer, rows = min(short.items(), key=lambda item: item[1])
        raise DataError(
            f"{shots} rows per answer are asked for, and {answer!r} has {rows}",
            where=f"task {task}, train",
            fix=f"set shots to {rows} or less",
            code="D13",
        )
    draw = random.Random(seed)
    picked = [example for answer in sorted(by_answer) for example in draw.sample(by_answer[answer], shots)]
    draw.shuffle(picked)
    return picked
