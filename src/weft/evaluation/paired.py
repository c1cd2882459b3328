"""Paired bootstrap: how far two answerers lie apart, over rows drawn alike for both. Loads without torch.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 16; for scores of language
tasks Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation".
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weft.evaluation.intervals import DRAWS, MEANS, SHARES, draw_count, drawable
from weft.tasks.scoring import Metric, References

Answers = Sequence[str]


@dataclass(frozen=True)
class Difference:
    """A difference of two scores in points, its 95 % interval, and how likely one so far from 0 is by chance.

    Attributes:
        mean: the difference on the rows as they are.
        low: 2.5 % of the draws lie below.
        high: 2.5 % of the draws lie above.
        p: two-sided; no less than two draws in all of them.
    """

    mean: float
    low: float
    high: float
    p: float


def drawn_scores(
    name: str,
    metric: Metric,
    answers: Sequence[Answers],
    references: References,
    chance: str,
    groups: Sequence[str] = (),
) -> NDArray[np.float64]:
    """Scores `[A, B]` of A answerers in B draws of the rows with return, the same draws for all of them.

    Args:
        name: of the metric.
        metric: the metric itself; where it is undefined, the score is 0, as in tables.
        answers: each answerer's answers.
        references: accepted answers of each row.
        chance: names the draws: those of one name are the same every time.
        groups: of each row, of which whole ones are drawn; none, or empty ones: rows are drawn.
    """
    scores = [drawable(name, metric, one, references, groups) for one in answers]
    places = scores[0][1]
    count = DRAWS if name in (*SHARES, *MEANS) else draw_count(places)
    generator = np.random.default_rng(zlib.crc32(chance.encode()))
    draws = [generator.integers(places, size=places) for _ in range(count)]
    return np.array([[score(drawn) or 0.0 for drawn in draws] for score, _ in scores])


def difference(mean: float, draws: NDArray[np.float64]) -> Difference:
    """What draws `[B]` of a difference say of it: percentiles, and twice the share beyond 0."""
    low, high = np.percentile(draws, [2.5, 97.5])
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return Difference(mean, float(low), float(high), min(1.0, 2 * float(beyond + 1) / (len(draws) + 1)))
