"""95 % intervals: how far a score may lie from that on all rows of the kind. Loads without torch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.tasks.groups import members
from weft.tasks.metrics import measured
from weft.tasks.scoring import Metric, References, Summed

Places: TypeAlias = NDArray[np.int64]
Statistic: TypeAlias = Callable[[Places], float | None]
SHARES = ("accuracy", "exact_match", "squad_em")  # metrics by which each row is right or wrong
MEANS = ("squad_f1",)  # metrics that are means over rows
NORMAL = 1.959963984540054  # 97.5 % of a normal distribution lie below
DRAWS, LEAST, WORK = 1000, 200, 1_000_000  # of rows; fewer where there are many rows, which are WORK in all


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a score, in the score's own percent."""

    low: float
    high: float
    method: Literal["Wilson", "bootstrap"]


def interval(
    name: str,
    metric: Metric,
    predictions: Sequence[str],
    references: References,
    groups: Sequence[str] = (),
) -> Interval | None:
    """The interval of a metric over rows: Wilson's for shares of right rows, else a percentile bootstrap.

    Rows of one group are not independent of each other: where there are groups, whole ones are drawn, for
    every metric. A draw of rows has the weights of words that all rows give them (NIST, CIDEr).

    Args:
        name: of the metric.
        metric: the metric itself.
        predictions: answers.
        references: accepted answers of each row.
        groups: of each row; none, or empty ones: rows have none.

    Returns:
        none where no draw, or no second value, has a score: it says nothing of how far off it may be.
    """
    if name in SHARES and not any(groups):
        score = metric(predictions, references)
        return None if score is None else wilson(round(score / 100 * len(predictions)), len(predictions))
    return bootstrap(*drawable(name, metric, predictions, references, groups))


def drawable(
    name: str, metric: Metric, predictions: Sequence[str], references: References, groups: Sequence[str] = ()
) -> tuple[Statistic, int]:
    """A score as a function of the places of what is drawn, and how many places there are.

    They are those of rows, or of whole groups where rows have any; what is drawn twice counts twice.
    Arguments are those of `interval`.
    """
    if any(groups):
        return _over_groups(metric, predictions, references, members(groups))
    if name in SHARES or name in MEANS:
        pairs = zip(predictions, references, strict=True)
        points = np.array([metric([one], [accepted]) for one, accepted in pairs])
        return lambda drawn: float(points[drawn].mean()), len(points)
    if isinstance(metric, Summed):
        summed = metric.rows(predictions, references)
        return lambda drawn: metric.of(summed[drawn].sum(0)), len(summed)

    def of(drawn: Places) -> float | None:
        places = drawn.tolist()
        return metric([predictions[i] for i in places], [references[i] for i in places])

    return of, len(predictions)


def _over_groups(
    metric: Metric, predictions: Sequence[str], references: References, groups: Sequence[Sequence[int]]
) -> tuple[Statistic, int]:
    """Over groups, given by the places of their rows."""

    def of(drawn: Places) -> float | None:
        rows = [(i, str(turn)) for turn, group in enumerate(drawn.tolist()) for i in groups[group]]
        texts, accepted = [predictions[i] for i, _ in rows], [references[i] for i, _ in rows]
        return measured(metric, texts, accepted, [turn for _, turn in rows])

    return of, len(groups)


def wilson(right: int, rows: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927): sound for few rows, and for shares of 0 and 1."""
    share, spread = right / rows, NORMAL**2 / rows
    middle = (share + spread / 2) / (1 + spread)
    half = NORMAL * math.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return Interval(100 * max(0.0, middle - half), 100 * min(1.0, middle + half), "Wilson")


def draw_count(rows: int) -> int:
    """How often rows are drawn: the less, the more there are."""
    return min(DRAWS, max(LEAST, WORK // max(1, rows)))


def bootstrap(statistic: Statistic, rows: int) -> Interval | None:
    """Percentiles of a statistic over rows drawn with return, the same draws every time.

    Args:
        statistic: places of rows -> a score, or none where it is undefined.
        rows: how many there are.
    """
    chance = np.random.default_rng(0)
    drawn = [statistic(chance.integers(rows, size=rows)) for _ in range(draw_count(rows))]
    found = [one for one in drawn if one is not None]
    if len(set(found)) < 2:
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(float(low), float(high), "bootstrap")
