"""The part of a card that says how good its run is; for readers, and for the hub."""

from collections.abc import Sequence
from typing import Any

from weft.config.task import TaskSpec
from weft.evaluation.intervals import Interval
from weft.experiments.tables import markdown_table
from weft.interop.hub.markdown import DASH, percent
from weft.interop.hub.scores import Score

NONE = "None: no finished evaluation of this run was at hand when the card was written."
HEAD = (
    "task",
    "metric",
    "this run",
    "95 % interval",
    "over seeds",
    "majority",
    "rows",
    "of them in training",
)
MEANING = (
    "In percent. The interval is over the scored rows. Over seeds stands the mean of runs that differ in the "
    "seed alone, with its 95 % t interval and their number. Majority is what always giving the commonest "
    "answer of these rows scores."
)
NAMES = {
    "accuracy": "accuracy",
    "f1_macro": "f1",
    "f1_binary": "f1",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}  # weft's names of metrics -> the hub's


def score_table(found: Sequence[Score]) -> str:
    """The scores, and what they are of."""
    if not found:
        return NONE
    folded = sorted({one.folds for one in found if one.folds})
    rows = "The rows are those of the test split."
    if folded:
        folds = ", ".join(map(str, folded))
        rows = f"Cross-validated in {folds} folds: each row was answered by what the others taught. "
        rows += "The run itself learnt from all of them."
    return f"{markdown_table(HEAD, [_cells(one) for one in found])}\n\n{MEANING} {rows}"


def _cells(one: Score) -> list[str]:
    leaked = DASH if one.leaked is None else f"{one.leaked:,}"
    return [
        one.task,
        one.metric,
        percent(one.score),
        _spread(one.interval),
        _seeds(one),
        percent(one.majority),
        f"{one.rows:,}",
        leaked,
    ]


def _spread(one: Interval | None) -> str:
    return DASH if one is None else f"{one.low:.1f} to {one.high:.1f}"


def _seeds(one: Score) -> str:
    if one.mean is None or one.half is None:
        return DASH
    return f"{one.mean:.1f} ± {one.half:.1f} ({len(one.seeds)})"


def result(spec: TaskSpec, one: Score, kind: str) -> Any:
    """The same for the hub's `model-index`.

    Args:
        spec: the task.
        one: its score, which is defined.
        kind: the hub's name of what is done.
    """
    from huggingface_hub import EvalResult

    hub, folds = spec.hub, f", {one.folds} folds" if one.folds else ""
    return EvalResult(
        task_type=kind,
        dataset_type=hub.path if hub else spec.name,
        dataset_config=hub.name if hub else None,
        dataset_name=spec.name,
        dataset_split=None if one.folds else "test",
        metric_type=NAMES.get(one.metric, one.metric),
        metric_name=f"{one.metric}, in percent{folds}",
        metric_value=round(one.score or 0.0, 2),
    )
