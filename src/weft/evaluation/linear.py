"""Linear classifiers on features of texts: fitted by scikit-learn, kept and applied as plain arrays."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
FOLDS = 5
STRENGTHS = (1.0, 0.1, 10.0, 100.0)  # C, the inverse of regularisation; of equal ones the first


@dataclass(frozen=True)
class LinearHead:
    """Scores of answers from features: `softmax(x @ weights.T + bias)`.

    Attributes:
        weights: `[C, F]`.
        bias: `[C]`.
        answers: the answers that the rows had, in the order of the C.
    """

    weights: Array
    bias: Array
    answers: tuple[str, ...]

    def shares(self, features: Any, choices: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each choice `[N, C]`; 0 for one that no row had.

        Args:
            features: `[N, F]`, dense or sparse.
            choices: of the task, in its order.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # `chosen` refuses what is no number
            scores = np.asarray(features @ self.weights.T, dtype=np.float64) + self.bias
            odds = np.exp(scores - scores.max(1, keepdims=True))
        found = np.zeros((len(scores), len(choices)))
        found[:, [list(choices).index(one) for one in self.answers]] = odds / odds.sum(1, keepdims=True)
        return found


def fit_head(features: Any, targets: Sequence[str], strength: float) -> LinearHead:
    """Logistic regression with an L2 penalty; two answers become two rows, of which the first is zero."""
    from sklearn.linear_model import LogisticRegression

    answers = tuple(sorted(set(targets)))
    if len(answers) == 1:
        return LinearHead(np.zeros((1, features.shape[1]), np.float32), np.zeros(1, np.float32), answers)
    fitted = LogisticRegression(C=strength, max_iter=2000).fit(features, list(targets))
    weights, bias = fitted.coef_, fitted.intercept_
    if len(answers) == 2:
        weights, bias = np.vstack([np.zeros_like(weights), weights]), np.append(0.0, bias)
    return LinearHead(weights.astype(np.float32), bias.astype(np.float32), answers)


def cross_validated(features: Any, targets: Sequence[str], strength: float) -> float:
    """Accuracy on rows that are held out in turn, in percent; 0 where an answer has a single row.

    The folds are stratified and always the same: rows are drawn in an order of their own already.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, *Counter(targets).values())
    if folds < 2 or len(set(targets)) < 2:
        return 0.0
    gold, right = np.asarray(targets), 0
    for train, test in StratifiedKFold(folds).split(np.zeros(len(gold)), gold):
        head = fit_head(features[train], list(gold[train]), strength)
        guesses = np.asarray(head.answers)[head.shares(features[test], head.answers).argmax(1)]
        right += int((guesses == gold[test]).sum())
    return 100.0 * right / len(gold)


def best_strength(features: Any, targets: Sequence[str]) -> tuple[float, float]:
    """The strength with the best cross-validated accuracy, and that accuracy in percent."""
    scores = {strength: cross_validated(features, targets, strength) for strength in STRENGTHS}
    best = max(scores, key=lambda strength: scores[strength])
    return best, scores[best]
