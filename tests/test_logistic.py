"""Regressions on parts of the same rows, held against scikit-learn's on each part alone."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from weft.evaluation import logistic


def rows_of(count, width, answers, seed=0):
    """Centred rows that tell their answers apart, with columns of unlike size that go together."""
    draw = np.random.default_rng(seed)
    gold = np.arange(count) % answers
    x = draw.normal(size=(count, 3)) @ draw.normal(size=(3, width)) + draw.normal(size=(count, width))
    x[:, :answers] += 2 * np.eye(answers)[gold]
    return x - x.mean(0), gold


@pytest.mark.parametrize("shape", [(6, 40), (40, 6)])
def test_orthogonal_rows_are_the_rows_turned(shape):
    """Their products stay, their columns are orthogonal, and the way back gives the rows again."""
    x, _ = rows_of(*shape, 2)
    turned, back = logistic.orthogonal(x)
    assert turned.shape[1] <= min(shape)
    assert np.allclose(turned @ back, x)
    assert np.allclose(turned @ turned.T, x @ x.T)
    squares = turned.T @ turned
    assert np.allclose(squares, np.diag(np.diag(squares)), atol=1e-9)


@pytest.mark.parametrize("answers", [2, 3, 7, 14])
@pytest.mark.parametrize(("count", "width"), [(42, 90), (210, 14)])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_each_part_has_the_solution_of_scikit_learn(answers, count, width, strength):
    """Weights on the rows as they were, and intercepts; the parts leave out unlike numbers of rows.

    Of more than `FEW` answers steps are longer, and each part finds by itself how long.
    """
    x, gold = rows_of(count, width, answers)
    parts = np.array([np.arange(count) % 5 != 0, np.arange(count) >= count // 3, np.ones(count, bool)])
    turned, back = logistic.orthogonal(x)
    weights, bias = logistic.fit_parts(turned, gold, answers, strength, parts)
    assert (weights.shape, bias.shape) == ((3, answers, turned.shape[1]), (3, answers))
    for k, part in enumerate(parts):
        known = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(x[part], gold[part])
        own = (weights[k] @ back, bias[k])
        if answers == 2:
            assert not own[0][0].any()
            own = (own[0][1:], own[1][1:])
        assert np.allclose(own[0], known.coef_, atol=2e-4 * np.abs(known.coef_).max())
        shift = own[1] - known.intercept_  # of many answers, all intercepts may move together
        assert np.allclose(shift, shift.mean() if answers > 2 else 0, atol=1e-3)


def test_a_part_without_an_answer_never_gives_it():
    """Its probability falls as far as its intercept is let go; nothing overflows."""
    x, gold = rows_of(30, 4, 3)
    turned, _ = logistic.orthogonal(x)
    weights, bias = logistic.fit_parts(turned, gold, 3, 1.0, (gold != 2)[None])
    scores = turned @ weights[0].T + bias[0]
    assert np.isfinite(scores).all()
    assert (scores[gold != 2].argmax(1) != 2).all()
