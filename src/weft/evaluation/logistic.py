"""Logistic regressions on parts of the same rows, fitted at once: one product with the rows serves all parts.

The loss is scikit-learn's `LogisticRegression`: `|W|^2 / 2 + C * sum -log p(answer)`, an intercept without
penalty, one vector of weights where there are two answers. Its curvature lies below a fixed one (Böhning
1992, "Multinomial logistic regression algorithm"); on orthogonal columns that is a diagonal, so each step
divides the gradient by it. Steps have momentum, which a part loses when it points uphill.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PRECISE, STEPS = 1e-6, 2000  # gradient of the mean loss, and the most steps
EMPTY = 1e-12  # of the largest square: a direction that no row reaches, but for rounding


def orthogonal(x: Any) -> tuple[Array, Array]:
    """Rows `[N, R]` on orthogonal columns of the space that they span, and the way back: `rows @ back == x`.

    A regression with an L2 penalty has the same solution there: turning changes no length, and what no row
    reaches stays zero; of few rows, hundreds of columns become a few dozen.
    """
    x = np.asarray(x, np.float64)
    if len(x) >= x.shape[1]:
        _, turn = np.linalg.eigh(x.T @ x)
        return x @ turn, turn.T
    squares, left = np.linalg.eigh(x @ x.T)
    some = squares > EMPTY * squares[-1]
    left, sizes = left[:, some], np.sqrt(squares[some])
    return left * sizes, left.T @ x / sizes[:, None]


def fit_parts(
    x: Array, gold: NDArray[np.int64], answers: int, strength: float, parts: Any
) -> tuple[Array, Array]:
    """Weights `[F, C, R]` and intercepts `[F, C]` of a regression for each part of the rows.

    Of two answers, the first has zeros.

    Args:
        x: rows `[N, R]` on orthogonal columns with mean zero, as `orthogonal` of centred rows gives them.
        gold: number of each row's answer `[N]`.
        answers: how many there are, C, two or more.
        strength: C of the loss, the inverse of regularisation.
        parts: which rows each part has `[F, N]`.
    """
    binary = answers == 2
    rows = np.column_stack([x, np.ones(len(x))])
    want = (np.eye(answers)[:, 1:] if binary else np.eye(answers))[gold]
    mask = np.asarray(parts, np.float64).T[:, :, None]
    penalty = np.append(np.ones(x.shape[1]), 0.0)[:, None, None]
    highest = penalty + (0.25 if binary else 0.5) * strength * (rows**2).sum(0)[:, None, None]

    def gradient(at: Array) -> Array:
        scores = (rows @ at.reshape(len(at), -1)).reshape(len(rows), *at.shape[1:])
        miss = mask * (_shares(scores, binary) - want[:, None, :])
        found: Array = strength * (rows.T @ miss.reshape(len(rows), -1)).reshape(at.shape) + penalty * at
        return found

    start = np.zeros((rows.shape[1], len(parts), want.shape[1]))
    found = _least(gradient, start, np.maximum(highest, 1e-12), PRECISE * strength * len(x))
    if binary:
        found = np.concatenate([np.zeros_like(found), found], axis=2)
    return found[:-1].transpose(1, 2, 0), found[-1]


def _shares(scores: Array, binary: bool) -> Array:
    """Probabilities of the answers whose scores are given; of two answers the first has score 0."""
    top = np.maximum(scores.max(2, keepdims=True), 0 if binary else -np.inf)
    odds = np.exp(scores - top)
    found: Array = odds / (odds.sum(2, keepdims=True) + (np.exp(-top) if binary else 0))
    return found


def _least(gradient: Any, start: Array, highest: Array, precise: float) -> Array:
    """Where the gradient ends, for every part `[:, part, :]`; `highest` bounds the curvature."""
    at = ahead = start
    turns = np.ones(start.shape[1])
    for _ in range(STEPS):
        slope = gradient(ahead)
        if np.abs(slope).max() <= precise:
            return ahead
        new = ahead - slope / highest
        uphill = (slope * (new - at)).sum((0, 2)) > 0
        turns = np.where(uphill, 1.0, turns)
        later = (1 + np.sqrt(1 + 4 * turns**2)) / 2
        momentum = np.where(uphill, 0.0, (turns - 1) / later)[None, :, None]
        at, ahead, turns = new, new + momentum * (new - at), later
    return at
