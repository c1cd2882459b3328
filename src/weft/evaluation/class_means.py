"""The nearest class mean: the answer whose rows' mean points most nearly where a text's features do."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.evaluation.linear import LinearHead, held_out

SHARPNESS = 10.0  # of a cosine to a class mean, so that probabilities are not all alike


def unit(x: Any) -> Any:
    """Vectors along the last axis, of length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def class_means(x: Any, targets: Sequence[str]) -> LinearHead:
    """The unit mean of each answer's unit features, as a head on unit features."""
    answers, gold = tuple(sorted(set(targets))), np.asarray(targets)
    means = unit(np.stack([unit(x)[gold == one].mean(0) for one in answers]))
    return LinearHead((SHARPNESS * means).astype(np.float32), np.zeros(len(answers), np.float32), answers)


def leave_one_out(x: Any, targets: Sequence[str]) -> float | None:
    """Accuracy of the nearest class mean where each row is left out of its class in turn, in percent.

    A row that is the only one of its answer is not scored; none where no rows can be.
    """
    places = held_out(targets)
    if places is None:
        return None
    rows, gold = unit(x), np.asarray(targets)
    answers = sorted(set(targets))
    sums = np.stack([rows[gold == one].sum(0) for one in answers])
    right = 0
    for i in places:
        own = sums - np.array([[one == gold[i]] for one in answers]) * rows[i]
        right += answers[int((unit(own) @ rows[i]).argmax())] == gold[i]
    return 100.0 * right / len(places)
