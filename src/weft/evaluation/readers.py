"""Readers: linear classifiers on frozen views of the texts.

A reader of each view alone says, by rows that it was not fitted on, how much the view is worth to a task.
One reader of the best views side by side, each as long as it is worth, is what a task keeps.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from weft.evaluation.linear import STILL, LinearHead, Standard, held_out, standard
from weft.evaluation.logistic import fit_parts, orthogonal
from weft.evaluation.threads import on_one_thread
from weft.storage import sha256_bytes

FOLDS, LOOKS = 8, 256
CONFIDENCE = (-1.0, 3.0)  # logarithms of the least and largest factor on log-probabilities
MOST_WORDS, UNTRIED = (
    40.0,
    5.0,
)  # the largest factor on cosines with answers' words, and that where none is tried
CLEAR = 0.02  # nats of held-out loss by which another strength must be better
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


def columns(view: Any, scale: Any = None) -> Standard:
    """A view with mean 0, divided by the scale of its columns, and both.

    Some models have columns near 1e-30: by their own deviation they would be noise, with weights near 1e30.

    Args:
        view: `[N, D]`.
        scale: of each column `[D]`, infinite where it says nothing; none: its own deviation here.
    """
    if scale is None:
        return standard(view, share=STILL)
    mean = view.mean(0, dtype=np.float64)
    return ((view - mean) / scale).astype(np.float32), mean.astype(np.float32), scale


@on_one_thread
def fit_reader(view: Any, targets: Sequence[str], strength: float, scale: Any = None) -> LinearHead:
    """Logistic regression on a standardised view, as a head on the view as it is.

    Args:
        view: `[N, D]`.
        targets: the answer of each row.
        strength: C, the inverse of regularisation.
        scale: of its columns; see `columns`.
    """
    answers, gold = numbered(targets)
    x, mean, scale = columns(view, scale)
    if len(answers) == 1:
        return LinearHead(np.zeros((1, x.shape[1]), np.float32), np.zeros(1, np.float32), answers)
    turned, back = orthogonal(x)
    [turned_weights], [bias] = fit_parts(turned, gold, len(answers), strength, np.ones((1, len(x))))
    weights = (turned_weights @ back) / scale
    bias = bias - weights @ mean.astype(np.float64)
    return LinearHead(weights.astype(np.float32), bias.astype(np.float32), answers)


def side_by_side(
    views: Sequence[Any], scales: Sequence[Any], shares: Sequence[float], width: int
) -> tuple[Any, Array]:
    """Views as the columns of one reader, and the scale of each column.

    Divided by their scales, rows are `sqrt(share * width)` long in a view of columns that vary by one: an L2
    penalty then lets a view say the more, the larger its share. It is the prior of a regression whose weights
    in a view have a variance that goes with the view's share.

    Args:
        views: `[N, D]` each.
        scales: of the columns of each, where they are known; see `columns`.
        shares: of each; they add up to one.
        width: of the base model.
    """
    known = [columns(view)[2] if scale is None else scale for view, scale in zip(views, scales, strict=True)]
    with np.errstate(divide="ignore"):  # a view without a share says nothing
        lengths = [
            np.sqrt(len(scale) / (width * np.float64(share)))
            for scale, share in zip(known, shares, strict=True)
        ]
    return np.concatenate(views, axis=1), np.concatenate(
        [scale * length for scale, length in zip(known, lengths, strict=True)]
    )


def numbered(targets: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The answers in order, and the number of each row's `[N]`."""
    answers = tuple(sorted(set(targets)))
    number = {answer: i for i, answer in enumerate(answers)}
    return answers, np.asarray([number[target] for target in targets], np.int64)


@dataclass(frozen=True)
class HeldOut:
    """What readers say of rows that they were not fitted on.

    Attributes:
        logs: log-probability of each answer `[M, C]`, in the order of the rows.
        right: the place of each row's own answer `[M]`.
        rows: their places among all rows `[M]`.
    """

    logs: Array
    right: NDArray[np.int64]
    rows: NDArray[np.intp]

    @property
    def loss(self) -> float:
        """Mean of `-log p(answer)` (nats); 0 where no row could be held out, so that readers weigh alike."""
        return float(-self.logs[np.arange(len(self.right)), self.right].mean()) if len(self.right) else 0.0

    def changed(self, factor: float, words: Array | float = 0.0) -> "HeldOut":
        """Log-probabilities times a factor, with something added `[M, C]`, made to add up to one again."""
        logs = factor * self.logs + words
        top = logs.max(1, keepdims=True)
        return HeldOut(logs - top - np.log(np.exp(logs - top).sum(1, keepdims=True)), self.right, self.rows)

    @property
    def sure(self) -> "HeldOut":
        """Log-probabilities times the factor with the least loss; see `confidence`."""
        return self.changed(confidence(self)[0])


@on_one_thread
def hold_out(
    view: Any, targets: Sequence[str], strength: float, enough: int | None = None, scale: Any = None
) -> HeldOut:
    """What a reader of a view says of rows that are held out in turn.

    An answer's only row is in every training part. Columns are standardised on all rows: that knows no
    answers.

    Args:
        view: `[N, D]`.
        targets: the answer of each row.
        strength: C, the inverse of regularisation.
        enough: so many rows are held out, by whole folds; none: all.
        scale: of its columns; see `columns`.
    """
    return _held_out(orthogonal(columns(view, scale)[0])[0], targets, strength, enough)


@on_one_thread
def chosen_strength(
    view: Any, targets: Sequence[str], strengths: Sequence[float], enough: int, scale: Any
) -> tuple[float, HeldOut]:
    """The C under which held-out rows have the least loss, well scaled, and what is said of them then.

    It is the first, unless another one is better by more than `CLEAR`: few rows can hardly tell strengths
    apart; see `hold_out`.
    """
    x, _ = orthogonal(columns(view, scale)[0])
    held = {strength: _held_out(x, targets, strength, enough) for strength in strengths}
    losses = {strength: one.sure.loss for strength, one in held.items()}
    best = min(losses, key=lambda strength: losses[strength])
    if losses[best] >= losses[strengths[0]] - CLEAR:
        best = strengths[0]
    return best, held[best]


def _held_out(x: Array, targets: Sequence[str], strength: float, enough: int | None) -> HeldOut:
    """The same, of rows on orthogonal columns `[N, R]`."""
    answers, gold = numbered(targets)
    if held_out(targets) is None:
        return HeldOut(np.zeros((0, len(answers))), gold[:0], np.zeros(0, np.intp))
    folds = first_folds(fold_numbers(targets), enough or len(targets))
    parts = folds != np.arange(folds.max() + 1)[:, None]
    weights, biases = fit_parts(x, gold, len(answers), strength, parts)
    scores = np.zeros((len(targets), len(answers)))
    for fold, part in enumerate(parts):
        scores[~part] = x[~part] @ weights[fold].T + biases[fold]
    rows = np.flatnonzero(folds >= 0)
    return HeldOut(scores[rows], gold[rows], rows).changed(1.0)


def mixed(parts: Sequence[HeldOut], shares: Sequence[float]) -> HeldOut:
    """What a mixture says of the same rows."""
    total = sum(share * one.logs for share, one in zip(shares, parts, strict=True))
    return HeldOut(np.asarray(total), parts[0].right, parts[0].rows).changed(1.0)


def best_views(
    held: Mapping[View, HeldOut], views: Sequence[View], sharpness: float, most: int
) -> dict[View, float]:
    """The heaviest of some views with their weights.

    Args:
        held: of each view, what its reader says of held-out rows.
        views: some of them.
        sharpness: of the weights.
        most: how many are kept.
    """
    shares = weights([held[view].loss for view in views], sharpness).tolist()
    return heaviest(dict(zip(views, shares, strict=True)), most)


def weighed(
    held: Mapping[View, HeldOut], views: Sequence[View], sharpness: float, most: int
) -> tuple[dict[View, float], float]:
    """The same (see `best_views`), and the held-out loss of their mixture, well scaled."""
    kept = best_views(held, views, sharpness, most)
    together = mixed([held[view] for view in kept], list(kept.values()))
    return kept, together.sure.loss


def confidence(held: HeldOut, words: Any = None) -> tuple[float, float]:
    """The factor on a mixture's log-probabilities, and that on cosines, with the least held-out loss.

    Readers with so much regularisation are less sure than they are right (their temperature is the inverse).
    What the answers' words say needs no rows; the fewer there are, the more it counts.

    Args:
        held: what the mixture says of held-out rows; where there are none, the factors are 1 and `UNTRIED`.
        words: cosines of all rows with the words of each answer `[N, C]`; none: their factor is 0.
    """
    from scipy.optimize import minimize

    if not len(held.right):
        return 1.0, 0.0 if words is None else UNTRIED
    said = np.zeros_like(held.logs) if words is None else np.asarray(words, np.float64)[held.rows]
    bounds = [CONFIDENCE, (0.0, 0.0 if words is None else MOST_WORDS)]

    def loss(at: Array) -> float:
        return held.changed(float(np.exp(at[0])), float(at[1]) * said).loss

    starts = [(0.0, 0.0), (1.0, bounds[1][1] and UNTRIED)]
    found = [minimize(loss, start, bounds=bounds, method="L-BFGS-B") for start in starts]
    best = min(found, key=lambda one: float(one.fun)).x
    return float(np.exp(best[0])), float(best[1])


def with_words(head: LinearHead, words: Any, factor: float) -> LinearHead:
    """The head with one more part: cosines with the words of its answers, times a factor.

    Args:
        head: on the views.
        words: the answers' own vectors, one long, `[C, D]`.
        factor: of `confidence`.
    """
    middle = words - words.mean(0)  # what all answers share changes nothing
    return LinearHead(
        np.concatenate([head.weights, np.float32(factor) * middle.astype(np.float32)], axis=1),
        head.bias,
        head.answers,
    )


def first_rows(texts: Sequence[str], targets: Sequence[str], most: int) -> list[int]:
    """Places of about `most` rows, in their order: of each answer its share, and eight where it has so many.

    Of more than 32 answers fewer than eight, two at least, so that they are not many rows in all.

    Which ones follows from the texts alone, so that parts of the same rows choose many of the same ones, and
    those are read once.
    """
    if len(texts) <= most:
        return list(range(len(texts)))
    places: dict[str, list[int]] = defaultdict(list)
    for i in sorted(range(len(texts)), key=lambda i: sha256_bytes(texts[i].encode())):
        places[targets[i]].append(i)
    least = max(2, min(FOLDS, LOOKS // len(places)))
    shares = {answer: max(least, round(len(own) * most / len(texts))) for answer, own in places.items()}
    return sorted(i for answer, own in places.items() for i in own[: shares[answer]])


def first_folds(folds: NDArray[np.int64], enough: int) -> NDArray[np.int64]:
    """Each row's fold, of the first folds that have enough rows together; -1 for the rows of others.

    Args:
        folds: each row's fold, -1 for a row of none.
        enough: how many rows.
    """
    sizes = np.bincount(folds[folds >= 0]).cumsum()
    last = min(int(np.searchsorted(sizes, enough)), len(sizes) - 1)
    return np.where(folds <= last, folds, -1)


def fold_numbers(targets: Sequence[str], folds: int = FOLDS) -> NDArray[np.int64]:
    """Each row's fold: the rows of an answer go round in turn; -1 for a row that is alone with its answer."""
    seen: Counter[str] = Counter()
    counts = Counter(targets)
    numbers = []
    for answer in targets:
        numbers.append(seen[answer] % folds if counts[answer] > 1 else -1)
        seen[answer] += 1
    return np.asarray(numbers)
