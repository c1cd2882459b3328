"""What metrics have in common: their form, the check of their rows, and metrics that follow from sums."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

References: TypeAlias = Sequence[tuple[str, ...]]
Metric: TypeAlias = Callable[[Sequence[str], References], float | None]


def check(predictions: Sequence[str], references: References) -> None:
    """Refuse rows that cannot be scored.

    Raises:
        ValueError: if the numbers of predictions and references differ, or a row has no reference.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} rows of references")
    for row, answers in enumerate(references):
        if not answers:
            raise ValueError(f"row {row} has no reference")


@dataclass(frozen=True)
class Summed:
    """A metric of a set of rows that follows from sums over them, such as BLEU from counts of n-grams.

    Attributes:
        rows: predictions and references -> what is summed, `[rows, numbers]`.
        of: the sums `[numbers]` -> the score; none where it is undefined.
    """

    rows: Callable[[Sequence[str], References], NDArray[np.float64]]
    of: Callable[[NDArray[np.float64]], float | None]

    def __call__(self, predictions: Sequence[str], references: References) -> float | None:
        """The score of all rows; none without rows."""
        check(predictions, references)
        return self.of(self.rows(predictions, references).sum(0)) if predictions else None
