"""Readers: linear classifiers, each on one frozen view of the texts, weighted by what held-out rows say.

A mixture of readers adds their log-probabilities, each with its weight. What makes a reader's probabilities
add up to one is the same for all answers of a text, so it falls away: the mixture is one linear head on all
views.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from weft.evaluation.linear import STILL, LinearHead, fit_head, held_out, standard

FOLDS = 8
LEAST = 1e-12  # of a probability, so that its logarithm is a number
Array = NDArray[np.float64]
View = TypeVar("View", bound=Hashable)


def weights(losses: Sequence[float], sharpness: float) -> Array:
    """`exp(-sharpness * loss)`, made to add up to 1."""
    odds = np.exp(-sharpness * (np.asarray(losses) - min(losses)))
    found: Array = odds / odds.sum()
    return found


def heaviest(shares: Mapping[View, float], most: int) -> dict[View, float]:
    """The views with the largest weights, which add up to 1 again; of equal ones the first."""
    kept = sorted(shares, key=lambda view: -shares[view])[:most]
    total = sum(shares[view] for view in kept)
    return {view: share / total for view, share in shares.items() if view in kept}


def mixture(heads: Mapping[View, LinearHead], shares: Mapping[View, float]) -> LinearHead:
    """One head on the views of `shares`, side by side in its order: the weighted sum of log-probabilities."""
    parts = [(heads[view], share) for view, share in shares.items()]
    return LinearHead(
        np.concatenate([np.float32(share) * head.weights for head, share in parts], axis=1),
        np.sum([share * head.bias for head, share in parts], axis=0).astype(np.float32),
        parts[0][0].answers,
    )


def fit_reader(view: Any, targets: Sequence[str], strength: float) -> LinearHead:
    """Logistic regression on a standardised view, as a head on the view as it is.

    Some models have columns near 1e-30: standardised they would be noise, with weights here near 1e30.

    Args:
        view: `[N, D]`.
        targets: the answer of each row.
        strength: C, the inverse of regularisation.
    """
    x, mean, scale = standard(view, share=STILL)
    turned, back = rotated(x)
    head = fit_head(turned, targets, strength)
    weights = (head.weights.astype(np.float64) @ back) / scale
    bias = head.bias - weights @ mean.astype(np.float64)
    return LinearHead(weights.astype(np.float32), bias.astype(np.float32), head.answers)


def rotated(x: Any) -> tuple[Any, Any]:
    """Rows `[N, R]` in the space that they span, R at most N, and the way back: `rows @ back` is `x`.

    A regression with an L2 penalty has the same solution there, for what no row reaches stays zero; and of
    few rows, hundreds of columns become a few dozen.
    """
    if len(x) >= x.shape[1]:
        return x, np.eye(x.shape[1])
    left, sizes, back = np.linalg.svd(x, full_matrices=False)
    return left * sizes, back


def held_out_loss(view: Any, targets: Sequence[str], strength: float) -> float:
    """Mean of `-log p(answer)` over rows that are held out in turn (nats); 0 where none can be.

    An answer's only row is in every training part. Columns are standardised on all rows: that knows no
    answers.
    """
    if held_out(targets) is None:
        return 0.0
    x, gold, folds = rotated(standard(view, share=STILL)[0])[0], np.asarray(targets), fold_numbers(targets)
    losses: list[Array] = []
    for fold in range(folds.max() + 1):
        test, train = folds == fold, folds != fold
        head = fit_head(x[train], list(gold[train]), strength)
        right = [head.answers.index(answer) for answer in gold[test]]
        shares = head.shares(x[test], head.answers)[np.arange(len(right)), right]
        losses.append(-np.log(np.maximum(shares, LEAST)))
    return float(np.concatenate(losses).mean())


def fold_numbers(targets: Sequence[str], folds: int = FOLDS) -> NDArray[np.int64]:
    """Each row's fold: the rows of an answer go round in turn; -1 for a row that is alone with its answer."""
    seen: Counter[str] = Counter()
    counts = Counter(targets)
    numbers = []
    for answer in targets:
        numbers.append(seen[answer] % folds if counts[answer] > 1 else -1)
        seen[answer] += 1
    return np.asarray(numbers)
