"""Linear classifiers on features of texts: fitted by scikit-learn, kept and applied as plain arrays."""

import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from weft.evaluation.threads import on_one_thread

T = TypeVar("T")
Array = NDArray[np.float32]
FOLDS = 5
STILL = 1e-5  # of its mean: a column that varies less is constant, but for float32's rounding
STRENGTHS = (1.0, 0.1, 10.0, 100.0)  # C, the inverse of regularisation; of equal ones the first
CHOICE_ROWS = 2000  # about so many choose settings: MNLI at all readings would fill 31 GB
CHOICE_SEED = 0


Standard = tuple[Any, Any, Any]  # features with mean 0 and scale 1, their mean and their scale before


def deviations(x: Any, *, share: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each column `[D]`; infinite of one that varies no more than by rounding.

    Args:
        x: features `[N, D]`.
        share: a column that varies less than this share of the middle one counts as constant too.
    """
    mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    varies = scale > np.maximum(STILL * np.abs(mean), share * np.median(scale))
    return mean, np.where(varies, scale, np.inf)


def standard(x: Any, *, share: float = 0.0) -> Standard:
    """Features `[N, D]` with mean 0 and deviation 1 in every column that varies beyond rounding.

    Args:
        x: the features.
        share: a column that varies less than this share of the middle one counts as constant too.
    """
    mean, scale = deviations(x, share=share)
    scale = np.where(np.isfinite(scale), scale, 1)
    x = x - mean
    x /= scale  # in place: of many rows, numbers twice as wide are much memory
    return x.astype(np.float32), mean.astype(np.float32), scale.astype(np.float32)


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

    def times(self, factor: float) -> "LinearHead":
        """The head with all scores times a factor."""
        return LinearHead(np.float32(factor) * self.weights, np.float32(factor) * self.bias, self.answers)

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


@on_one_thread
def fit_head(features: Any, targets: Sequence[str], strength: float) -> LinearHead:
    """Logistic regression with an L2 penalty; two answers become two rows, of which the first is zero."""
    from sklearn.linear_model import LogisticRegression

    answers = tuple(sorted(set(targets)))
    if len(answers) == 1:
        return LinearHead(np.zeros((1, features.shape[1]), np.float32), np.zeros(1, np.float32), answers)
    with warnings.catch_warnings():  # many answers with two or three rows each are no numbers on a scale
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        fitted = LogisticRegression(C=strength, max_iter=2000).fit(features, list(targets))
    weights, bias = fitted.coef_, fitted.intercept_
    if len(answers) == 2:
        weights, bias = np.vstack([np.zeros_like(weights), weights]), np.append(0.0, bias)
    return LinearHead(weights.astype(np.float32), bias.astype(np.float32), answers)


def fitted_numbers(head: LinearHead) -> int:
    """How many numbers of a head `fit_head` has fitted: of two answers one row is free, of one none."""
    rows = len(head.answers)
    return int((rows if rows > 2 else rows - 1) * (head.weights.shape[1] + 1))


def choice_rows(targets: Sequence[str], most: int | None = None) -> list[int]:
    """Places of the rows on which settings are chosen: all, or of many about so many in their order.

    Every answer keeps its share, and a row for every fold (all its rows, where it has fewer). The draw is the
    same for every run and seed; not the first rows, because files are often sorted by answer.

    Args:
        targets: the answer of each row.
        most: how many; none: `CHOICE_ROWS`.
    """
    most = most or CHOICE_ROWS
    if len(targets) <= most:
        return list(range(len(targets)))
    places: dict[str, list[int]] = defaultdict(list)
    for i, answer in enumerate(targets):
        places[answer].append(i)
    draw, picked = random.Random(CHOICE_SEED), list[int]()
    for answer in sorted(places):
        share = max(FOLDS, round(len(places[answer]) * most / len(targets)))
        picked += draw.sample(places[answer], min(share, len(places[answer])))
    return sorted(picked)


def held_out(targets: Sequence[str]) -> "NDArray[np.intp] | None":
    """Places of the rows that can be held out in turn: those of answers with two rows or more.

    None where fewer than two answers have two rows: a score of one answer would speak for whatever says
    that answer always.
    """
    counts = Counter(targets)
    places = np.array([i for i, answer in enumerate(targets) if counts[answer] > 1], dtype=np.intp)
    return places if len({targets[i] for i in places}) > 1 else None


def cross_validated(features: Any, targets: Sequence[str], strength: float) -> float | None:
    """Accuracy on rows that are held out in turn, in percent; none where no rows can be.

    An answer with a single row stands in every training part, and is not scored. The folds are stratified
    and always the same: rows are drawn in an order of their own already.
    """
    from sklearn.model_selection import StratifiedKFold

    places = held_out(targets)
    if places is None:
        return None
    gold, right = np.asarray(targets), 0
    rare = np.setdiff1d(np.arange(len(gold)), places)
    folds = StratifiedKFold(min(FOLDS, *Counter(gold[places].tolist()).values()))
    for part, rest in folds.split(np.zeros(len(places)), gold[places]):
        train, test = np.sort(np.append(places[part], rare)), places[rest]
        head = fit_head(features[train], list(gold[train]), strength)
        guesses = np.asarray(head.answers)[head.shares(features[test], head.answers).argmax(1)]
        right += int((guesses == gold[test]).sum())
    return 100.0 * right / len(places)


def best_of(
    candidates: Iterable[T], score: Callable[[T], float | None], otherwise: T
) -> tuple[T, float | None]:
    """The candidate with the best score, the first of equal ones, and that score; else what to take."""
    scores = {one: found for one in candidates if (found := score(one)) is not None}
    if not scores:
        return otherwise, None
    best = max(scores, key=lambda one: scores[one])
    return best, scores[best]


def best_strength(features: Any, targets: Sequence[str]) -> tuple[float, float | None]:
    """The strength with the best cross-validated accuracy, and that accuracy in percent; else C = 1."""
    return best_of(STRENGTHS, lambda strength: cross_validated(features, targets, strength), STRENGTHS[0])
