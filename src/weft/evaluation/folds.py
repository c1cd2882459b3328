"""Cross-validation: every row is answered by a method that was fitted to the rows of other folds.

Loads without torch.
"""

import random
from collections.abc import Callable, Sequence

from weft.errors import DataError
from weft.evaluation.answers import Answer
from weft.tasks import Example
from weft.tasks.groups import members

Fitted = Callable[[list[Example]], list[Answer]]  # answers rows, by what was fitted to others


def fold_of(examples: Sequence[Example], folds: int, seed: int) -> list[int]:
    """The fold of each row, from 0: each answer's rows are dealt out in turn, after a shuffle by the seed.

    Rows with one text, but for case and spaces, or of one group stand in one fold: else a row would be
    answered by its copy, or by what belongs to it.

    Args:
        examples: the rows.
        folds: how many.
        seed: of the shuffle.
    """
    groups = _together(examples)
    random.Random(seed).shuffle(groups)
    groups.sort(key=lambda rows: examples[rows[0]].target)  # stable: the answers one after the other
    number = {i: turn % folds for turn, rows in enumerate(groups) for i in rows}
    return [number[i] for i in range(len(examples))]


def _together(examples: Sequence[Example]) -> list[list[int]]:
    """Places of the rows that share a text or a group, with each other or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    kept = [
        (i, key)
        for i, one in enumerate(examples)
        for key in (("text", _plain(one.source)), ("group", one.group))
        if key != ("group", "")
    ]
    number = {key: len(examples) + n for n, key in enumerate(dict.fromkeys(key for _, key in kept))}
    ends = [i for i, _ in kept], [number[key] for _, key in kept]
    nodes = len(examples) + len(number)
    _, part = connected_components(coo_array(([1] * len(kept), ends), shape=(nodes, nodes)), directed=False)
    return members([str(one) for one in part[: len(examples)]])


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
        DataError: if there are fewer different texts or groups than folds, or one answer alone in a
            training part.
    """
    numbers = fold_of(examples, folds, seed)
    answers: dict[int, Answer] = {}
    for fold in range(folds):
        train = [one for one, number in zip(examples, numbers, strict=True) if number != fold]
        test = [i for i, number in enumerate(numbers) if number == fold]
        if not test or len({one.target for one in train}) < 2:
            different = len(_together(examples))
            raise DataError(
                f"{len(examples)} rows of {different} different texts or groups are too few for {folds} "
                "folds: each wants two answers to learn from, and what belongs together stands in one",
                fix="give more rows of every answer, or ask for fewer folds",
                code="D13",
            )
        answers |= dict(zip(test, fit(train)([examples[i] for i in test]), strict=True))
    return [answers[i] for i in range(len(examples))]
