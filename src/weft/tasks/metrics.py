"""Metrics as pure functions (predictions, references) -> percent.

Predictions are answer strings; `references[i]` holds the accepted answers of row i, the first of them
being the canonical one. All results are percentages: 0 to 100, correlations and Matthews -100 to 100; those
of `NEVER_FIRST` have scales of their own. A metric gives None where it is undefined, and never NaN; tables
count it as 0, as published ones do, and say so. Every metric raises ValueError if the numbers of predictions
and references differ, or if a row has no reference.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from weft.tasks.generation_metrics import GENERATION
from weft.tasks.groups import members
from weft.tasks.scoring import Metric, References, check

UNPARSED = -1.0
ARTICLES = re.compile(r"\b(?:an?|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def accuracy(predictions: Sequence[str], references: References) -> float | None:
    """Share of predictions that equal any of their references, white space at the ends aside.

    Returns:
        percent; None without rows.
    """
    return _mean_of_best(lambda guess, gold: float(guess.strip() == gold.strip()), predictions, references)


def exact_match(predictions: Sequence[str], references: References) -> float | None:
    """Share of predictions that are, character for character, one of their references.

    Returns:
        percent; None without rows.
    """
    return _mean_of_best(lambda guess, gold: float(guess == gold), predictions, references)


def f1_macro(
    predictions: Sequence[str], references: References, *, labels: Sequence[str] = ()
) -> float | None:
    """Unweighted mean of the F1 of every class; scikit-learn's `f1_score(average="macro", zero_division=0)`.

    Args:
        predictions: answers of the model.
        references: accepted answers of each row; the canonical ones count.
        labels: all classes of the task. One that neither side has counts as 0, and a prediction that is none
            of them is an error like any other. Without them, the classes are the strings on either side.
            Labels are compared without white space at the ends.

    Returns:
        percent; None without rows.
    """
    guesses, golds = _labels(predictions, references)
    hits = Counter(gold for guess, gold in zip(guesses, golds, strict=True) if guess == gold)
    sizes = Counter(guesses) + Counter(golds)
    classes = dict.fromkeys(label.strip() for label in labels) or sizes
    return 100.0 * fmean(2 * hits[one] / max(1, sizes[one]) for one in classes) if sizes else None


def f1_binary(predictions: Sequence[str], references: References, *, positive: str) -> float | None:
    """F1 of the class `positive` against all other strings, by the canonical references.

    Args:
        predictions: answers of the model.
        references: accepted answers of each row.
        positive: the label that counts as positive. Labels are compared without white space at the ends.

    Returns:
        percent; None if neither the predictions nor the references hold a positive.
    """
    guesses, golds = _labels(predictions, references)
    wanted = positive.strip()
    hits = sum(guess == gold == wanted for guess, gold in zip(guesses, golds, strict=True))
    size = guesses.count(wanted) + golds.count(wanted)
    return 100.0 * (2 * hits / size) if size else None


def group_em(
    predictions: Sequence[str], references: References, *, groups: Sequence[str] = ()
) -> float | None:
    """Share of groups of rows of which every row is right: exact match of MultiRC, over its questions.

    Khashabi et al. 2018, as SuperGLUE counts it (arXiv:1905.00537). Answers are compared as by `accuracy`.

    Args:
        predictions: answers of the model.
        references: accepted answers of each row.
        groups: of each row; one that names none (`""`) is alone, and so are all without `groups`.

    Returns:
        percent; None without rows.
    """
    check(predictions, references)
    right = [accuracy([guess], [answers]) for guess, answers in zip(predictions, references, strict=True)]
    whole = [all(right[i] for i in places) for places in members(groups or [""] * len(right))]
    return 100.0 * fmean(whole) if whole else None


def measured(
    metric: Metric, predictions: Sequence[str], references: References, groups: Sequence[str]
) -> float | None:
    """What a metric gives; the one of whole groups is told each row's group."""
    if metric is group_em:
        return group_em(predictions, references, groups=groups)
    return metric(predictions, references)


def matthews(predictions: Sequence[str], references: References) -> float | None:
    """Matthews correlation of predictions and canonical references, for any number of classes.

    The R_K statistic of Gorodkin (2004), as scikit-learn's `matthews_corrcoef`, which gives 0 where this
    gives None. Labels are compared without white space at the ends.

    Returns:
        percent, -100 to 100; None without rows, or if either side holds one class only.
    """
    guesses, golds = _labels(predictions, references)
    n, hits = len(golds), sum(guess == gold for guess, gold in zip(guesses, golds, strict=True))
    guessed, actual = Counter(guesses), Counter(golds)
    covariance = n * hits - sum(guessed[label] * actual[label] for label in actual)
    spread = math.prod(n * n - sum(size * size for size in side.values()) for side in (guessed, actual))
    return 100.0 * (covariance / math.sqrt(spread)) if spread else None


def pearson(predictions: Sequence[str], references: References) -> float | None:
    """Pearson correlation of predicted and canonical numbers.

    A prediction that is not a finite number counts as -1.0. T5's evaluation does so with strings that are
    no number (Raffel et al. 2020, arXiv:1910.10683); here infinity and NaN are treated alike.

    Returns:
        percent, -100 to 100; None without rows, or if either side is constant.

    Raises:
        ValueError: if a canonical reference is not a finite number.
    """
    return _correlation(*_numbers(predictions, references))


def spearman(predictions: Sequence[str], references: References) -> float | None:
    """Spearman correlation of predicted and canonical numbers; equal numbers share their mean rank.

    Predictions that are not finite numbers count as -1.0; results and errors as of `pearson`.
    """
    guesses, golds = _numbers(predictions, references)
    return _correlation(_ranks(guesses), _ranks(golds))


def squad_em(predictions: Sequence[str], references: References) -> float | None:
    """Share of predictions that equal any reference after the normalisation of SQuAD v1.1.

    The normalisation lowers the case and drops ASCII punctuation, the articles a, an, the, and surplus white
    space (Rajpurkar et al. 2016, arXiv:1606.05250).

    Returns:
        percent; None without rows.
    """
    return _mean_of_best(lambda guess, gold: float(_words(guess) == _words(gold)), predictions, references)


def squad_f1(predictions: Sequence[str], references: References) -> float | None:
    """Mean F1 of the words shared with the best reference, normalised as in `squad_em`.

    As in the official script of v1.1, two answers without words have F1 0, although they match exactly.

    Returns:
        percent; None without rows.
    """
    return _mean_of_best(_word_f1, predictions, references)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "exact_match": exact_match,
    "f1_macro": f1_macro,
    "group_em": group_em,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "squad_em": squad_em,
    "squad_f1": squad_f1,
    **GENERATION,
}
NAMES: tuple[str, ...] = (*METRICS, "f1_binary")
NEVER_FIRST = {
    "ter": "lower is better",
    "nist": "it is no percentage",
    "cider": "it has no end at 100",
}


def check_first(name: str) -> None:
    """Refuse a metric that cannot decide: what decides is compared, averaged and shown as percent to reach.

    Raises:
        ValueError: saying why.
    """
    if name in NEVER_FIRST:
        raise ValueError(f"the first metric decides, and {name} cannot: {NEVER_FIRST[name]}")


def metric(name: str, *, positive: str | None = None, labels: Sequence[str] = ()) -> Metric:
    """The metric of a name.

    Args:
        name: one of `NAMES`.
        positive: the label that counts as positive; needed by `f1_binary`, ignored by the others.
        labels: all answers of a closed task; used by `f1_macro`, ignored by the others.

    Raises:
        ValueError: if the name is unknown, or `f1_binary` has no positive label.
    """
    if name not in NAMES:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(NAMES)}")
    if name == "f1_macro" and labels:
        return partial(f1_macro, labels=labels)
    if name != "f1_binary":
        return METRICS[name]
    if positive is None:
        raise ValueError("f1_binary needs the label that counts as positive")
    return partial(f1_binary, positive=positive)


def _mean_of_best(
    score: Callable[[str, str], float], predictions: Sequence[str], references: References
) -> float | None:
    """Mean over rows, in percent, of the score against the best reference; None without rows."""
    check(predictions, references)
    rows = zip(predictions, references, strict=True)
    best = [max(score(guess, gold) for gold in answers) for guess, answers in rows]
    return 100.0 * fmean(best) if best else None


def _labels(predictions: Sequence[str], references: References) -> tuple[list[str], list[str]]:
    """Predicted and canonical labels, stripped."""
    check(predictions, references)
    return [guess.strip() for guess in predictions], [answers[0].strip() for answers in references]


def _numbers(
    predictions: Sequence[str], references: References
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predicted and canonical numbers; a prediction that is none becomes `UNPARSED`."""
    check(predictions, references)
    guesses = np.array([_number(guess) for guess in predictions])
    golds = np.array([_number(answers[0]) for answers in references])
    if np.isnan(golds).any():
        row = int(np.isnan(golds).argmax())
        raise ValueError(f"row {row}: the reference {references[row][0]!r} is not a finite number")
    return np.where(np.isnan(guesses), UNPARSED, guesses), golds


def _number(text: str) -> float:
    """The finite number that a text spells, else NaN."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Pearson correlation in percent; None without rows, or if either side is constant."""
    if not x.size or x.min() == x.max() or y.min() == y.max():
        return None
    # not scipy's pearsonr: it warns of nearly constant numbers, and its mean overflows with 1e308
    return 100.0 * float(np.clip(_unit(x) @ _unit(y), -1.0, 1.0))


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers that are not all equal, with their mean taken off, at length 1."""
    scaled = x / np.abs(x).max()
    centred = scaled - scaled.mean()
    return np.asarray(centred / np.linalg.norm(centred))


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of every number, from 1; equal numbers share the mean of their ranks."""
    # not scipy's rankdata: importing scipy.stats takes a second, and every command loads this module
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def _words(answer: str) -> list[str]:
    """The words of an answer that SQuAD v1.1 compares."""
    return ARTICLES.sub(" ", answer.lower().translate(NO_PUNCTUATION)).split()


def _word_f1(guess: str, gold: str) -> float:
    """F1 of two answers as bags of words; 0 if they share none."""
    guessed, actual = Counter(_words(guess)), Counter(_words(gold))
    shared = (guessed & actual).total()
    return 2 * shared / (guessed.total() + actual.total()) if shared else 0.0
