"""Rows that belong together, such as the answers to one question: they are drawn and scored as wholes."""

import random
from collections.abc import Sequence


def members(groups: Sequence[str]) -> list[list[int]]:
    """Places of the rows of each group, in the order of their first rows.

    Args:
        groups: of each row; rows that name none (`""`) are alone.
    """
    found: dict[str | int, list[int]] = {}
    for place, group in enumerate(groups):
        found.setdefault(group or place, []).append(place)
    return list(found.values())


def draw(groups: Sequence[str], most: int, seed: int) -> set[int]:
    """Places of rows that make whole groups: in random order, each group that still fits.

    Args:
        groups: of each row.
        most: how many rows there may be; there are fewer where no group is small enough to fill up.
        seed: of the order.
    """
    some = members(groups)
    random.Random(seed).shuffle(some)
    chosen: set[int] = set()
    for places in some:
        if len(chosen) + len(places) <= most:
            chosen |= {*places}
    return chosen
