"""One score of the table: a row of it on a target, with what must be known of it. Loads without torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from weft.evaluation.paired import Difference

DASH, SEEN, ZERO, CONSTANT, OPEN = "—", "†", "‡", "°", "·"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Entry:
    """The scores of one row of the table on one target.

    Attributes:
        row: the row's label.
        target: the target task.
        metric: the target's main metric, in percent.
        seeds: seeds whose score is there; only the first for what does not train, whose one run serves all.
        scores: the score of each of them; 0 where the metric is undefined, as in published tables.
        mean: of the scores; none while a run is missing.
        half: half the width of the 95 % interval of the mean over seeds; none for a single score.
        others: mean of each further metric that is asked for, and half the width of its interval.
        written: mean score of freely written answers, if they were asked for.
        rows: test rows.
        parameters: trained parameters per task.
        seconds: mean time of training, a group's shared out over its targets.
        runs: the evaluations' ids, finished or not.
        missing: how many of them are not finished.
        undefined: how many scores are 0 because the metric is undefined.
        undefined_written: the same of freely written answers.
        trained: training rows, the least of the seeds'.
        dtype: number format of the base model's weights.
        leaked: scored rows whose whole input is in training rows; none if that was not counted.
        shared: scored rows that share a sentence, and no more, with training rows.
        seen: whether the base model was trained on the target's data before, so that it is in no average.
        open: whether the target's answers are open: the score is that of what was written.
        unable: whether the target's answers are open, and the method answers closed ones alone.
        constant: how many seeds' answers are one and the same for all rows; 0 of what is meant to answer so.
        gaps: how far the row lies from the reference row in each draw of the scored rows `[B]`, in points.
        against: the same of the rows as they are, with an interval.
    """

    row: str
    target: str
    metric: str
    seeds: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    mean: float | None = None
    half: float | None = None
    others: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    written: float | None = None
    rows: int | None = None
    parameters: float | None = None
    seconds: float | None = None
    runs: tuple[str, ...] = ()
    missing: int = 0
    undefined: int = 0
    undefined_written: int = 0
    trained: int | None = None
    dtype: str | None = None
    leaked: int | None = None
    shared: int | None = None
    seen: bool = False
    open: bool = False
    unable: bool = False
    constant: int = 0
    gaps: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    against: Difference | None = None

    @property
    def silent(self) -> bool:
        """Whether all runs are there, and none of them wrote answers."""
        return self.mean is not None and self.written is None

    @property
    def head(self) -> str:
        """The target's name over its column, with a mark where it was seen."""
        return f"{self.target} {SEEN}" if self.seen else self.target

    def text(self, joint: str = " ± ") -> str:
        """The score with its interval, with a mark where a seed's is undefined, or of one constant answer."""
        if self.unable:
            return OPEN
        marks = ZERO * (self.undefined > 0) + CONSTANT * (self.constant > 0)
        return score_text(self.mean, self.half, joint, marks)

    @property
    def written_text(self) -> str:
        """The score of freely written answers, with the same mark; a dot where the method writes none."""
        if self.unable or self.silent:
            return OPEN
        return score_text(self.written, None, marks=ZERO * (self.undefined_written > 0))


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; none without any."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def interval(scores: Sequence[float]) -> float | None:
    """Half the width of the 95 % t interval of a mean; none for fewer than two scores."""
    from scipy.stats import t  # takes a second to import

    n = len(scores)
    if n < 2:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(scores, ddof=1) / np.sqrt(n))


def score_text(mean: float | None, half: float | None, joint: str = " ± ", marks: str = "") -> str:
    """`71.5 ± 2.3`, with a mark `39.7 ± 85.4 ‡`, or an em dash."""
    if mean is None:
        return DASH
    text = f"{mean:.1f}" if half is None else f"{mean:.1f}{joint}{half:.1f}"
    return f"{text} {marks}" if marks else text
