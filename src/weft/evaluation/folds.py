"""Cross-validation: every row is answered by a method that was fitted to the rows of other folds.

Loads without torch.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from weft.errors import DataError
from weft.evaluation.answers import Answer
from weft.tasks import Example

Fitted = Callable[[list[Example]], list[Answer]]  # answers rows, by what was fitted to others


def fold_of(examples: Sequence[Example], folds: int, seed: int) -> list[int]:
    """The fold of each row, from 0: each answer's rows are dealt out in turn, after a shuffle by the seed.

    Rows with one text, but for case and spaces, stand in one fold: else a row would be answered by its copy.

    Args:
        examples: the rows.
        folds: how many.
        seed: of the shuffle.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(examples):
        same[_plain(one.source)].append(i)
    groups = list(same.values())
    random.Random(seed).shuffle(groups)
    groups.sort(key=lambda rows: examples[rows[0]].target)  # stable: the answers one after the other
    number = {i: turn % folds for turn, rows in enumerate(groups) for i in rows}
    return [number[i] for i in range(len(examples))]


def _plain(text: str) -> str:
    """A text but for case and spaces."""
    return " ".join(text.casefold().split())


def out_of_fold(
    examples: Sequence[Example], folds: int, seed: int, fit: Callable[[list[Example]], Fitted]
) -> list[Answer]:
    """An answer for each row, in their order.

    Args:
        examples: the rows.
        folds: how many, two or more.
        seed: which rows stand together.
        fit: fits a method to the rows of all folds but one.

    Raises:
        DataError: if there are fewer different texts than folds, or one answer alone in a training part.
    """
    numbers = fold_of(examples, folds, seed)
    answers: dict[int, Answer] = {}
    for fold in range(folds):
        train = [one for one, number in zip(examples, numbers, strict=True) if number != fold]
        test = [i for i, number in enumerate(numbers) if number == fold]
        if not test or len({one.target for one in train}) < 2:
            different = len({_plain(one.source) for one in examples})
            raise DataError(
                f"{len(examples)} rows with {different} different texts are too few for {folds} folds: each "
                "wants two answers to learn from, and copies of a text stand in one fold",
                fix="give more rows of every answer, or ask for fewer folds",
                code="D13",
            )
        answers |= dict(zip(test, fit(train)([examples[i] for i in test]), strict=True))
    return [answers[i] for i in range(len(examples))]
