"""Readers of one view held out in eight folds: all folds as one problem, beside scikit-learn fold by fold."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks import measure
from benchmarks.goals import Result, Settings
from weft.evaluation.logistic import fit_parts, orthogonal

WIDTH, STRENGTH, FOLDS = 576, 0.01, 8
SHAPES = ((32, 2), (200, 2), (200, 7))  # rows, answers


def run(settings: Settings) -> list[Result]:
    """Seconds of both, on rows as wide as the states of smollm2, a few of whose directions carry most."""
    return [_folds(rows, answers, settings) for rows, answers in SHAPES]


def _folds(rows: int, answers: int, settings: Settings) -> Result:
    x, gold = _rows(rows, answers)
    numbers = np.arange(rows) // answers % FOLDS
    parts = np.array([numbers != fold for fold in range(FOLDS)])
    turned, _ = orthogonal(x)  # scikit-learn gets the few columns too, as a user who knows of it would

    def alone(_: int) -> None:
        for part in parts:
            LogisticRegression(C=STRENGTH, max_iter=2000).fit(turned[part], gold[part])

    arms = {"at once": lambda _: fit_parts(turned, gold, answers, STRENGTH, parts), "fold by fold": alone}
    seconds, _ = measure.interleave(arms, settings.rounds)
    ratios = measure.ratios(seconds, "fold by fold", "at once")
    text = (
        f"{rows} rows of {WIDTH} columns in their own space, {answers} answers, {FOLDS} folds, C = {STRENGTH}"
    )
    return Result(f"readers, scikit-learn / weft, {rows} rows, {answers} answers", ratios, text, seconds)


def _rows(count: int, answers: int) -> tuple[np.ndarray, np.ndarray]:
    draw, gold = np.random.default_rng(0), np.arange(count) % answers
    x = 3 * draw.normal(size=(count, 30)) @ draw.normal(size=(30, WIDTH)) + draw.normal(size=(count, WIDTH))
    x[:, :answers] += 2 * np.eye(answers)[gold]
    return (x - x.mean(0)) / x.std(0), gold
