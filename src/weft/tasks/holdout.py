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
from weft.tasks import groups, template
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
    rule: Holdout,
    split: Split,
    rows: list[Row],
    where: str = "",
    draw: HoldoutDraw = "weft",
    *,
    group: str = "",
    train_rows: int | None = None,
) -> list[Row]:
    """A split's rows among those of its file, in their order; the same ones for every run and seed.

    Args:
        rule: how splits are made.
        split: the split.
        rows: of the split's file.
        where: the file, for messages.
        draw: whose choice of rows.
        group: template that rows which belong together fill alike. Weft's choice cuts no group, and may be a
            few rows short for it; ATTEMPT's is as it was published.
        train_rows: most rows of train.

    Raises:
        DataError: if the file has too few rows.
    """
    if rule == "halve_dev" and split != "train":
        held = _held(rows, len(rows) // 2, where, draw, group)
    elif rule == "from_train" and split != "test":
        held = _held(rows, ROWS, where, draw, group)
    else:
        held = set()
    wanted = bool(held) and split == "dev"
    places = [i for i in range(len(rows)) if (i in held) == wanted]
    if split == "train" and train_rows is not None:
        places = _first(places, train_rows, len(rows), draw)
    return [rows[i] for i in places]


def _held(rows: list[Row], count: int, where: str, draw: HoldoutDraw, group: str) -> set[int]:
    """Places of `count` rows, at random; of weft's choice, those of whole groups."""
    if draw == "attempt":
        chosen = set(_order(len(rows), draw)[:count])
    elif group:
        chosen = groups.draw([template.fill(group, row) for row in rows], count, SEED)
    else:
        chosen = set(random.Random(SEED).sample(range(len(rows)), min(count, len(rows))))
    if not 0 < len(chosen) < len(rows):
        raise DataError(
            f"{count} rows are to be held out, and the file has {len(rows)}"
            + (f" in groups ({group})" if group else ""),
            where=where,
            fix="name a file for every split, without 'holdout'",
            code="D13",
        )
    return chosen


def _first(places: list[int], most: int, count: int, draw: HoldoutDraw) -> list[int]:
    """At most so many of some places, those that come first in the random order of all."""
    free = set(places)
    return sorted([i for i in _order(count, draw) if i in free][:most])


def _order(count: int, draw: HoldoutDraw) -> list[int]:
    """Places of rows in random order."""
    if draw == "attempt":
        return _shuffled(count, ATTEMPT_SEED)
    return random.Random(SEED).sample(range(count), count)


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
