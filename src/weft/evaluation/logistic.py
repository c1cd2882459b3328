"""Logistic regressions on parts of the same rows, fitted at once: one product with the rows serves all parts.

The loss is scikit-learn's `LogisticRegression`: `|W|^2 / 2 + C * sum -log p(answer)`, an intercept without
penalty, one vector of weights where there are two answers. Its curvature lies below a fixed one (Böhning
1992, "Multinomial logistic regression algorithm"); on orthogonal columns that is a diagonal, so each step
divides the gradient by it. Of many answers, whose probabilities are small, the curvature is a small share of
that: each part begins there, and doubles its share where a step has found the loss more curved (Beck &
Teboulle 2009, FISTA with backtracking). Steps have momentum, which a part loses when it points uphill.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PRECISE, STEPS = 1e-6, 2000  # gradient of the mean loss, and the most steps
EMPTY = 1e-12  # of the largest square: a direction that no row reaches, but for rounding
ROUNDING = 1e-12  # of a loss
FEW = 8  # answers; of no more, watching the loss costs more than shorter ways save


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
    want = np.eye(answers)[:, 1:] if binary else np.eye(answers)
    rows = np.column_stack([x, np.ones(len(x))])
    penalty = np.append(np.ones(x.shape[1]), 0.0)[:, None, None]
    mask = np.asarray(parts, np.float64).T[:, :, None]
    parted = _Parts(rows, want[gold][:, None], mask, penalty, strength, binary)
    most = 0.25 if binary else 0.5
    found = _least(parted, 1 / answers if answers > FEW else most, most)
    if binary:
        found = np.concatenate([np.zeros_like(found), found], axis=2)
    return found[:-1].transpose(1, 2, 0), found[-1]


@dataclass(frozen=True)
class _Parts:
    """The regressions of all parts; of two answers the first has no weights and the score 0.

    Attributes:
        rows: with a one at the end `[N, R]`.
        want: 1 at a row's answer `[N, 1, C]`.
        mask: 1 for the rows of a part `[N, F, 1]`.
        penalty: on a weight's square, none on an intercept's `[R, 1, 1]`.
        strength: C of the loss.
        binary: whether there are two answers.
    """

    rows: Array
    want: Array
    mask: Array
    penalty: Array
    strength: float
    binary: bool

    def scores(self, at: Array) -> Array:
        """Of all rows for all parts `[N, F, C]`, at weights `[R, F, C]`."""
        return (self.rows @ at.reshape(len(at), -1)).reshape(len(self.rows), *at.shape[1:])

    def loss(self, scores: Array, at: Array) -> Array:
        """Of each part `[F]`."""
        top, _, total = self._odds(scores)
        miss = np.log(total) + top - (scores * self.want).sum(2, keepdims=True)
        found: Array = self.strength * (self.mask * miss).sum((0, 2)) + (self.penalty * at**2).sum((0, 2)) / 2
        return found

    def slope(self, scores: Array, at: Array) -> Array:
        """The gradient of the loss `[R, F, C]`."""
        _, odds, total = self._odds(scores)
        miss = (self.mask * (odds / total - self.want)).reshape(len(self.rows), -1)
        found: Array = self.strength * (self.rows.T @ miss).reshape(at.shape) + self.penalty * at
        return found

    def curvature(self, shares: Array) -> Array:
        """The diagonal `[R, F, 1]` for a share of each part `[F]`; from Böhning's on it bounds the loss's."""
        return np.maximum(self.penalty + self.strength * self._squares * shares[None, :, None], EMPTY)

    @cached_property
    def _squares(self) -> Array:
        found: Array = (self.rows**2).sum(0)[:, None, None]
        return found

    def _odds(self, scores: Array) -> tuple[Array, Array, Array]:
        """The largest score of each row, the odds of all answers to it, and their sum."""
        top = np.maximum(scores.max(2, keepdims=True), 0 if self.binary else -np.inf)
        odds = np.exp(scores - top)
        return top, odds, odds.sum(2, keepdims=True) + (np.exp(-top) if self.binary else 0.0)


def _least(parts: _Parts, first: float, most: float) -> Array:
    """Weights `[R, F, C]` where the gradient ends, for every part.

    Args:
        parts: the regressions.
        first: share of the curvature at the start.
        most: that which bounds it.
    """
    start = np.zeros((parts.rows.shape[1], parts.mask.shape[1], parts.want.shape[2]))
    at = ahead = start
    said = said_ahead = parts.scores(start)
    turns, shares = np.ones(start.shape[1]), np.full(start.shape[1], first)
    curvature = parts.curvature(shares)
    for _ in range(STEPS):
        slope = parts.slope(said_ahead, ahead)
        if np.abs(slope).max() <= PRECISE * parts.strength * len(parts.rows):
            return ahead
        new = ahead - slope / curvature
        said_new = parts.scores(new)
        if (shares < most).any():
            bound = parts.loss(said_ahead, ahead) - (slope**2 / curvature).sum((0, 2)) / 2
            over = parts.loss(said_new, new) > bound + ROUNDING * np.abs(bound)
            if (over & (shares < most)).any():
                shares = np.where(over, np.minimum(2 * shares, most), shares)
                curvature = parts.curvature(shares)
                continue
        uphill = (slope * (new - at)).sum((0, 2)) > 0
        turns = np.where(uphill, 1.0, turns)
        later = (1 + np.sqrt(1 + 4 * turns**2)) / 2
        momentum = np.where(uphill, 0.0, (turns - 1) / later)[None, :, None]
        ahead, said_ahead = new + momentum * (new - at), said_new + momentum * (said_new - said)
        at, said, turns = new, said_new, later
    return at
