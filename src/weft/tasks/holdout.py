"""Splits that have no file of their own, made of those that have one, as the paper makes them.

Public test sets often have no labels. Then dev and test are the two halves of the dev file (sets with few
training rows), or test is the dev file and dev is taken out of the train file (large sets). Which rows that
are is weft's own choice, or that of ATTEMPT's public code, which the paper's line of work shares.
"""

import random

import numpy as np

from weft.config.base import HoldoutDraw, Split
from weft.config.task import Holdout
from weft.errors import DataError
from weft.tasks.task import Row

SEED = 0  # raise NUMERICS in weft.runs when it changes: other rows are then held out
ATTEMPT_SEED = 42
ROWS = 1000
FROM_TRAIN: dict[Split, Split] = {"train": "train", "dev": "train", "test": "dev"}


def origin(rule: Holdout, split: Split) -> Split:
    """The split whose file holds a split's rows."""
    if rule == "from_train":
        return FROM_TRAIN[split]
    return "dev" if rule == "halve_dev" and split == "test" else split


def part(
    rule: Holdout, split: Split, rows: list[Row], where: str = "", draw: HoldoutDraw = "weft"
) -> list[Row]:
    """A split's rows among those of its file, in their order; the same ones for every run and seed.

    Args:
        rule: how splits are made.
        split: the split.
        rows: of the split's file.
        where: the file, for messages.
        draw: whose choice of rows.

    Raises:
        DataError: if the file has too few rows.
    """
    if rule == "halve_dev" and split != "train":
        return _chosen(rows, len(rows) // 2, split == "dev", where, draw)
    if rule == "from_train" and split != "test":
        return _chosen(rows, ROWS, split == "dev", where, draw)
    return rows


def _chosen(rows: list[Row], count: int, inside: bool, where: str, draw: HoldoutDraw) -> list[Row]:
    """The rows of a random choice of `count`, or all others."""
    if not 0 < count < len(rows):
        raise DataError(
            f"{count} rows are to be held out, and the file has {len(rows)}",
            where=where,
            fix="name a file for every split, without 'holdout'",
            code="D13",
        )
    if draw == "attempt":
        chosen = set(_shuffled(len(rows), ATTEMPT_SEED)[:count])
    else:
        chosen = set(random.Random(SEED).sample(range(len(rows)), count))
    return [row for i, row in enumerate(rows) if (i in chosen) == inside]


def _shuffled(count: int, seed: int) -> list[int]:
    """`torch.randperm(count)` of a generator with the seed, without torch.

    Torch draws 32-bit numbers of the Mersenne twister, as NumPy's older generator does from the same seed.
    """
    numbers = np.random.RandomState(seed).randint(0, 2**32, count, dtype=np.uint32).tolist()
    order = list(range(count))
    for i, number in enumerate(numbers):
        j = i + number % (count - i)
        order[i], order[j] = order[j], order[i]
    return order
