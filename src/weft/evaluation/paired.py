"""Paired bootstrap: how far two answerers lie apart, over rows drawn alike for both. Loads without torch.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 16; for scores of language
tasks Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation".
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weft.evaluation.intervals import DRAWS, LEAST, MEANS, SHARES, WORK
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
    name: str, metric: Metric, answers: Sequence[Answers], references: References, chance: str
) -> NDArray[np.float64]:
    """Scores `[A, B]` of A answerers in B draws of the rows with return, the same draws for all of them.

    Args:
        name: of the metric.
        metric: the metric itself; where it is undefined, the score is 0, as in tables.
        answers: each answerer's answers.
        references: accepted answers of each row.
        chance: names the draws: those of one name are the same every time.
    """
    count, rows = len(answers), len(references)
    if name in SHARES or name in MEANS:
        single = [
            [metric([one], [gold]) or 0.0 for one, gold in zip(a, references, strict=True)] for a in answers
        ]
        points = np.array(single).reshape(count, rows)
        return np.stack([points[:, drawn].mean(1) for drawn in _draws(rows, DRAWS, chance)], axis=1)
    some = min(DRAWS, max(LEAST, WORK // rows))
    found = [_scores(metric, answers, references, drawn.tolist()) for drawn in _draws(rows, some, chance)]
    return np.array(found).T


def _draws(rows: int, count: int, chance: str) -> list[NDArray[np.int64]]:
    """Places of rows, drawn with return."""
    generator = np.random.default_rng(zlib.crc32(chance.encode()))
    return [generator.integers(rows, size=rows) for _ in range(count)]


def _scores(
    metric: Metric, answers: Sequence[Answers], references: References, drawn: list[int]
) -> list[float]:
    """Every answerer's score on the drawn rows."""
    golds = [references[i] for i in drawn]
    return [metric([one[i] for i in drawn], golds) or 0.0 for one in answers]


def difference(mean: float, draws: NDArray[np.float64]) -> Difference:
    """What draws `[B]` of a difference say of it: percentiles, and twice the share beyond 0."""
    low, high = np.percentile(draws, [2.5, 97.5])
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return Difference(mean, float(low), float(high), min(1.0, 2 * float(beyond + 1) / (len(draws) + 1)))
