"""Which rows of a large file are learnt from. Loads without torch.

Every row is read by frozen models, and the head is fitted to all of them, so that the time grows with the
rows: two thousand take minutes, and a hundred thousand would take hours.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from weft.errors import ConfigError

A = TypeVar("A", bound=Hashable)
MOST = 2_000  # rows that `weft learn` learns from, unless it is asked for others
LEAST, FEWEST = 8, 2  # rows that an answer keeps, where it has so many: of few answers, and of very many


def drawn(answers: Sequence[Hashable], most: int, seed: int) -> list[int]:
    """Places of at most `most` rows, in their order: of each answer its share, and a few at least.

    More rows are drawn where there are so many answers that two of each are more.

    Args:
        answers: of the rows; one for all, where answers are open.
        most: rows that are wanted.
        seed: of the draw.

    Raises:
        ConfigError: if no row is wanted.
    """
    if most < 1:
        raise ConfigError(
            f"{most} rows are none to learn from", where="--rows, rows", fix="ask for 1 or more"
        )
    if len(answers) <= most:
        return list(range(len(answers)))
    places: dict[Hashable, list[int]] = defaultdict(list)
    for i, answer in enumerate(answers):
        places[answer].append(i)
    draw, counts = random.Random(seed), shares(Counter(answers), most)
    return sorted(i for answer, own in places.items() for i in draw.sample(own, counts[answer]))


def shares(counts: Mapping[A, int], most: int) -> dict[A, int]:
    """How many of each answer's rows are drawn.

    Args:
        counts: rows of each answer, more than `most` in all.
        most: rows that are wanted.
    """
    least = max(FEWEST, min(LEAST, most // len(counts)))
    kept = {answer: min(count, least) for answer, count in counts.items()}
    over = {answer: count - kept[answer] for answer, count in counts.items()}
    room, total = max(0, most - sum(kept.values())), sum(over.values())
    parts = {answer: divmod(count * room, max(1, total)) for answer, count in over.items()}
    rest = room - sum(whole for whole, _ in parts.values())
    more = sorted(parts, key=lambda answer: -parts[answer][1])[:rest]  # the largest remainders; stable
    return {answer: kept[answer] + parts[answer][0] + (answer in more) for answer in counts}
