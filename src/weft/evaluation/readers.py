"""Readers: linear classifiers, each on one frozen view of the texts, weighted by what held-out rows say of them."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.evaluation.linear import LinearHead, fit_head, standard

FOLDS = 8
LEAST = 1e-12  # of a probability, so that its logarithm is a number


@dataclass(frozen=True)
class Reader:
    """A classifier on one view.

    Attributes:
        mean: of the view's columns `[D]`.
        scale: their deviation `[D]`.
        head: on standardised columns.
        loss: cross-validated, mean over rows (nats).
        weight: in the mixture; the weights of a task's readers add up to 1.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    head: LinearHead
    loss: float
    weight: float

    def log_shares(self, view: Any, choices: Sequence[str]) -> NDArray[np.float64]:
        """Log-probability of each choice `[N, C]`."""
        return _logs(self.head.shares((view - self.mean) / self.scale, choices))


def _logs(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.log(np.maximum(shares, LEAST))
    return found


def weights(losses: Sequence[float], sharpness: float) -> NDArray[np.float64]:
    """`exp(-sharpness * loss)`, made to add up to 1."""
    odds = np.exp(-sharpness * (np.asarray(losses) - min(losses)))
    found: NDArray[np.float64] = odds / odds.sum()
    return found


def mixed(logs: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Probabilities `[N, C]` of the weighted sum of log-probabilities."""
    total = sum(weight * one for weight, one in zip(weights, logs, strict=True))
    odds = np.exp(total - np.max(total, axis=1, keepdims=True))
    found: NDArray[np.float64] = odds / odds.sum(1, keepdims=True)
    return found


def fit_readers(
    views: Mapping[Hashable, Any], targets: Sequence[str], *, strength: float, sharpness: float
) -> dict[Hashable, Reader]:
    """A reader of each view, weighted by `exp(-sharpness * cross-validated log loss)`.

    Args:
        views: name -> `[N, D]`.
        targets: the answer of each row.
        strength: C of the regressions, the inverse of regularisation.
        sharpness: per nat; 0 weighs all alike, a large one takes the best alone.
    """
    losses = {name: held_out_loss(view, targets, strength) for name, view in views.items()}
    shares = dict(zip(losses, weights(list(losses.values()), sharpness), strict=True))
    return {
        name: _reader(view, targets, strength, losses[name], shares[name]) for name, view in views.items()
    }


def _reader(view: Any, targets: Sequence[str], strength: float, loss: float, weight: float) -> Reader:
    x, mean, scale = standard(view)
    return Reader(mean, scale, fit_head(x, targets, strength), loss, float(weight))


def held_out_loss(view: Any, targets: Sequence[str], strength: float) -> float:
    """Mean of `-log p(answer)` over rows that are held out in turn (nats).

    A row whose answer no other row has is in no fold. Columns are standardised on all rows: they know no answers.
    """
    x, gold, folds = standard(view)[0], np.asarray(targets), fold_numbers(targets)
    if len(set(targets)) < 2 or not (folds >= 0).any():
        return 0.0
    losses = []
    for fold in range(folds.max() + 1):
        test, train = folds == fold, folds != fold
        head = fit_head(x[train], list(gold[train]), strength)
        right = [head.answers.index(answer) for answer in gold[test]]
        losses.append(-_logs(head.shares(x[test], head.answers))[np.arange(len(right)), right])
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
