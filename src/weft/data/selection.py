"""Which rows a run uses: capped parts, and a few of each answer."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from weft.errors import DataError
from weft.tasks import Example, groups

SUBSET_SEED = 0


def subset(examples: list[Example], rows: int | None) -> list[Example]:
    """At most `rows` examples, the same ones for every run and seed, in their old order; no group is cut."""
    if rows is None or rows >= len(examples):
        return examples
    own = [one.group for one in examples]
    if any(own):
        picks = groups.draw(own, rows, SUBSET_SEED)
    else:
        picks = set(random.Random(SUBSET_SEED).sample(range(len(examples)), rows))
    return [examples[i] for i in sorted(picks)]


def few_shot(
    examples: list[Example],
    shots: int | None,
    total: int | None = None,
    *,
    seed: int,
    task: str = "",
    closed: bool = True,
    warn: Callable[[DataError], None] = lambda fault: None,
) -> list[Example]:
    """A few examples, drawn by the seed, in a shuffled order; all examples if no number is given.

    Args:
        examples: to draw from.
        shots: so many of every answer.
        total: so many in all: the same number of every answer, and one more of some that the seed draws. The
            paper's k is such a total.
        seed: of the draws.
        task: the task's name, for the warning.
        closed: whether answers are closed; open ones all differ, and both numbers are of the task.
        warn: told of an answer that has fewer rows than its share, of which all are taken.
    """
    if shots is None and total is None:
        return examples
    by_answer: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_answer[example.target if closed else ""].append(example)
    draw = random.Random(seed)
    shares = _shares(sorted(by_answer), shots, total, draw)
    taken = {answer: min(share, len(by_answer[answer])) for answer, share in shares.items()}
    if taken != shares:
        warn(_too_few(shares, taken, task))
    picked: list[Example] = []
    for answer, count in taken.items():
        picked += draw.sample(by_answer[answer], count)
    draw.shuffle(picked)
    return picked


def _shares(
    answers: Sequence[str], shots: int | None, total: int | None, draw: random.Random
) -> dict[str, int]:
    """How many rows of each answer are wanted."""
    if total is None:
        return dict.fromkeys(answers, shots or 0)
    share, rest = divmod(total, max(1, len(answers)))
    more = set(draw.sample(answers, rest))
    return {answer: share + (answer in more) for answer in answers}


def _too_few(shares: dict[str, int], taken: dict[str, int], task: str) -> DataError:
    """D13, of the answer that lacks most rows, with the count of every answer."""
    answer = max(shares, key=lambda one: shares[one] - taken[one])
    asked = f"{shares[answer]} rows of {answer!r}" if answer else f"{shares[answer]} rows"
    counts = ", ".join(f"{count} of {one!r}" for one, count in taken.items() if one)
    return DataError(
        f"{asked} are asked for, and there are {taken[answer]}: all are taken"
        + (f"; that makes {counts}" if counts else ""),
        where=f"task {task}, train",
        fix="nothing needs to change, the table says so; or ask for fewer shots",
        code="D13",
    )
