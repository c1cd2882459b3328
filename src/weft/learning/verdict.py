"""What `weft learn` says at its end: scores on the same rows, who is best, and how far it can be believed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from weft import text_table
from weft.evaluation.figures import Figures, figures
from weft.evaluation.intervals import NORMAL
from weft.learning.learn import Learned
from weft.tasks import from_spec

FEW = 10  # rows: of fewer, no interval of a difference is given


@dataclass(frozen=True)
class Scored:
    """One row of the table.

    Attributes:
        label: what is scored.
        figures: its figures.
        points: each row's score in percent, in one order for all.
    """

    label: str
    figures: Figures
    points: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The score in percent; 0 where the metric is undefined."""
        return self.figures.scores.metrics[self.figures.metric] or 0.0


def scored(learned: Learned) -> list[Scored]:
    """All scores of what was learnt, its own first."""
    task = from_spec(learned.spec)
    metric = task.metrics[task.main_metric]
    found = []
    for label, run in learned.scores.items():
        lines = run.lines("predictions.jsonl")
        points = [metric([line["answer"]], [tuple(line["references"])]) or 0.0 for line in lines]
        found.append(Scored(label, figures(task, lines), tuple(points)))
    return found


def table(found: list[Scored], width: int) -> str:
    """Scores with their intervals, the best first."""
    name = found[0].figures.metric.replace("_", " ")
    body = []
    for one in sorted(found, key=lambda one: -one.mean):
        spread = one.figures.intervals[one.figures.metric]
        body.append(
            [one.label, f"{one.mean:.1f}", f"{spread.low:.1f} to {spread.high:.1f}" if spread else "unknown"]
        )
    return text_table.render(
        [f"{found[0].figures.scores.rows:,} rows", name, "95 % interval"], body, "<>>", most=width
    )


def sentences(found: list[Scored]) -> list[str]:
    """Who is best by how much, in plain words, and how sure the probabilities are."""
    own, others = found[0], found[1:]
    best = max(others, key=lambda one: one.mean)
    gap, low, high = difference(own, best)
    spread = f" (95 % interval of the difference: {low:+.1f} to {high:+.1f})" if high < math.inf else ""
    if gap > 0:
        said = [f"{own.label} is the best, {gap:.1f} points above {best.label}{spread}."]
    elif gap == 0:
        said = [f"{own.label} and {best.label} have the same score{spread}."]
    else:
        said = [f"{best.label} is better than {own.label} here, by {-gap:.1f} points{spread}."]
    if gap and low <= 0 <= high:
        said.append("The rows are too few to tell the two apart.")
    if sure := own.figures.sureness:
        said.append(
            f"Its answers have a probability of {sure.mean:.0f} % on the mean, and {sure.right:.0f} % of "
            f"them are right (calibration error {sure.calibration_error:.1f} points)."
        )
    return said


def difference(one: Scored, other: Scored) -> tuple[float, float, float]:
    """By how many points one is above another on the same rows, and the 95 % interval (endless for few)."""
    gaps = np.asarray(one.points) - np.asarray(other.points)
    half = NORMAL * gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) >= FEW else math.inf
    mean = float(gaps.mean())
    return round(mean, 1), mean - half, mean + half


def as_dict(learned: Learned, found: list[Scored]) -> Mapping[str, object]:
    """For JSON: the task's file, the run, and the figures of each score with its run."""
    return {
        "task": learned.spec.name,
        "task_file": f"{learned.spec.folder}/{learned.spec.name}.yaml",
        "run": str(learned.run.path),
        "scores": {
            one.label: {**one.figures.as_dict(), "run": str(learned.scores[one.label].path)} for one in found
        },
    }
