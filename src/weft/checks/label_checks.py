"""Checks of a task's labels: what a reader of its answers could take for something else."""

import math
from collections import defaultdict

from weft.checks.findings import Findings
from weft.checks.row_checks import some_of
from weft.config.task import TaskSpec
from weft.errors import ConfigError


def check_labels(spec: TaskSpec, found: Findings) -> None:
    """Answers that are other numbers than the file's values, and values that share an answer."""
    where, labels = f"task {spec.name} (labels)", spec.written().labels or {}
    other = [(value, word) for value, word in labels.items() if _are_other_numbers(value, word)]
    if other:
        found.warn(
            ConfigError(
                f"the label value {other[0][0]!r} is written {other[0][1]!r}: answers are other numbers than "
                "the values of the file",
                where=where,
                fix="read 'label' of a prediction, which is the file's value; or choose other words",
            )
        )
    values = defaultdict(list)
    for value, word in labels.items():
        values[word].append(value)
    shared = [(word, some) for word, some in values.items() if len(some) > 1]
    if shared:
        word, some = shared[0]
        found.warn(
            ConfigError(
                f"the label values {some_of(some)} are one answer, {word!r}",
                where=where,
                fix=f"nothing needs to change if that is meant; a prediction's 'label' says {some[0]!r}",
            )
        )


def _are_other_numbers(value: str, word: str) -> bool:
    try:
        return math.isfinite(float(value)) and float(value) != float(word)
    except ValueError:
        return False
