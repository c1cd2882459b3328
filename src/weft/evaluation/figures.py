"""What an evaluation says of one task, for people and programs: which answers fail, and how sure they are.

All of it follows from the lines of predictions.jsonl. Loads without torch.

    run = weft.runs.Run(Path("runs/evaluate-..."))
    figures(task, run.lines("predictions.jsonl")).as_dict()
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from weft.evaluation.answers import Answer
from weft.evaluation.intervals import Interval, interval
from weft.evaluation.scores import Scores, score
from weft.tasks import Example, Task
from weft.tasks.groups import members
from weft.tasks.metrics import accuracy

BINS = 10
SMALLEST = float(np.finfo(np.float64).eps)  # a probability of 0 counts as this in the log loss


@dataclass(frozen=True)
class PerAnswer:
    """One answer of a closed set, in percent; none where there is nothing to divide by.

    Attributes:
        answer: the answer.
        rows: rows whose true answer it is.
        answered: rows that were given it.
        precision: share of the rows given it that are right.
        recall: share of its rows that were given it.
        f1: harmonic mean of both.
    """

    answer: str
    rows: int
    answered: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Confusion:
    """Which answer was given where.

    Attributes:
        answers: the closed set, then answers outside it, if any.
        counts: `counts[i][j]` rows have the true answer i and were given j.
    """

    answers: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def per_answer(self) -> list[PerAnswer]:
        """Precision, recall and F1 of each answer."""
        found = []
        for i, answer in enumerate(self.answers):
            hits, rows = self.counts[i][i], sum(self.counts[i])
            given = sum(row[i] for row in self.counts)
            shares = _percent(hits, given), _percent(hits, rows), _percent(2 * hits, rows + given)
            found.append(PerAnswer(answer, rows, given, *shares))
        return found

    def mistakes(self) -> list[tuple[int, str, str]]:
        """Rows, true answer and given answer of each confusion, the most frequent first."""
        pairs = [
            (count, self.answers[i], self.answers[j])
            for i, row in enumerate(self.counts)
            for j, count in enumerate(row)
            if i != j and count
        ]
        return sorted(pairs, key=lambda pair: -pair[0])


@dataclass(frozen=True)
class Sureness:
    """How far the probabilities can be believed.

    Attributes:
        mean: of the probabilities of the given answers, in percent.
        right: rows that are right, in percent.
        calibration_error: expected calibration error (Guo et al. 2017, arXiv:1706.04599) of the given
            answers, in ten bins of equal width, in points.
        log_loss: mean negative logarithm of the true answer's probability.
        brier: mean squared distance of the probabilities from the truth, over all answers: 0 to 2.
    """

    mean: float
    right: float
    calibration_error: float
    log_loss: float
    brier: float


@dataclass(frozen=True)
class Figures:
    """One task's figures.

    Attributes:
        task: its name.
        metric: the metric that decides.
        scores: as in result.json; closed answers have their accuracy besides.
        intervals: of each metric; none where there is no saying.
        majority: the commonest true answer, and its share in percent.
        confusion: of closed answers.
        sureness: of closed answers with probabilities.
        empty: share of open answers that have no text, in percent.
        groups: how many groups the rows make, where some belong together; intervals then draw whole groups.
    """

    task: str
    metric: str
    scores: Scores
    intervals: dict[str, Interval | None]
    majority: tuple[str, float]
    confusion: Confusion | None = None
    sureness: Sureness | None = None
    empty: float | None = None
    groups: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in percent but for the log loss and the Brier score; null where a value is undefined.

        {"task": ..., "metric": ..., "rows": ..., "metrics": {name: score},
         "intervals": {name: {"low": ..., "high": ..., "method": "Wilson" or "bootstrap"}},
         "majority": {"answer": ..., "share": ...},
         "answers": [{"answer", "rows", "answered", "precision", "recall", "f1"}, ...],
         "confusion": {"answers": [...], "counts": [[...], ...]},  a list for each true answer
         "sureness": {"mean", "right", "calibration_error", "log_loss", "brier"},
         "written": {name: score}, "unparsable": ..., "empty": ..., "groups": ...}
        """
        per_answer = self.confusion.per_answer() if self.confusion else []
        found = {**asdict(self), **asdict(self.scores), "answers": [asdict(one) for one in per_answer]}
        del found["scores"]
        return {**found, "majority": {"answer": self.majority[0], "share": self.majority[1]}}


def figures(task: Task, lines: Iterable[Mapping[str, Any]]) -> Figures:
    """Figures of one task.

    Of several accepted answers of a row, the true one is the given one, if it is among them, else the first.

    Args:
        task: names the metrics and the closed answers.
        lines: objects of predictions.jsonl; those of other tasks are left out.

    Raises:
        DataError: if no line is of the task.
    """
    own = [line for line in lines if line["task"] == task.name]
    closed = {"accuracy": accuracy} if task.choices else {}
    task = replace(task, metrics={**task.metrics, **closed})
    scores = score(task, [example_of(line) for line in own], [_answer(task, line) for line in own])
    given, accepted = [line["answer"] for line in own], [tuple(line["references"]) for line in own]
    groups = [line.get("group", "") for line in own]
    true = [_true(*pair) for pair in zip(given, accepted, strict=True)]
    [(commonest, count)] = Counter(true).most_common(1)
    return Figures(
        task.name,
        task.main_metric,
        scores,
        {name: interval(name, metric, given, accepted, groups) for name, metric in task.metrics.items()},
        (commonest, 100 * count / len(own)),
        confusion(task.choices, true, given) if task.choices else None,
        _sureness_of(own, true),
        None if task.choices else 100 * sum(not one.strip() for one in given) / len(own),
        len(members(groups)) if any(groups) else None,
    )


def example_of(line: Mapping[str, Any]) -> Example:
    """The row that became a line."""
    return Example(line["text"], line["references"][0], tuple(line["references"]), line.get("group", ""))


def _answer(task: Task, line: Mapping[str, Any]) -> Answer:
    """The answer that became a line."""
    if task.choices:
        return Answer(task.name, line["written"], line["answer"], line["probabilities"])
    return Answer(task.name, line["answer"])


def _true(given: str, accepted: Sequence[str]) -> str:
    """The true answer of a row: of several that are accepted, the given one."""
    found = [one.strip() for one in accepted]
    return given.strip() if given.strip() in found else found[0]


def confusion(choices: Sequence[str], true: Sequence[str], given: Sequence[str]) -> Confusion:
    """Counts of true and given answers.

    Args:
        choices: the closed set, in the order of the table.
        true: of each row.
        given: of each row.
    """
    answers = tuple(dict.fromkeys(one.strip() for one in [*choices, *true, *given]))
    place = {answer: i for i, answer in enumerate(answers)}
    counts = np.zeros((len(answers), len(answers)), int)
    for one, other in zip(true, given, strict=True):
        counts[place[one.strip()], place[other.strip()]] += 1
    return Confusion(answers, tuple(map(tuple, counts.tolist())))


def _sureness_of(lines: Sequence[Mapping[str, Any]], true: Sequence[str]) -> Sureness | None:
    """Of a task's lines, if all of them have probabilities."""
    if not all(line["probabilities"] for line in lines):
        return None
    choices = list(lines[0]["probabilities"])
    place = {choice.strip(): i for i, choice in enumerate(choices)}
    shares = [[line["probabilities"][choice] for choice in choices] for line in lines]
    return sureness(shares, [place.get(one, -1) for one in true])


def sureness(shares: Any, true: Any) -> Sureness:
    """How far probabilities can be believed.

    Args:
        shares: probability of each answer, `[rows, answers]`: an array, or lists.
        true: place of each row's true answer, `[rows]`; -1 where it is none of them.
    """
    shares, places = np.asarray(shares, np.float64), np.asarray(true)
    truth = (places[:, None] == np.arange(shares.shape[1])).astype(np.float64)
    top, right = shares.max(1), truth[np.arange(len(truth)), shares.argmax(1)]
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], top)
    gaps = [abs((right - top)[bins == i].sum()) for i in range(BINS)]
    loss = -np.log(np.clip((shares * truth).sum(1), SMALLEST, 1)).mean()
    brier = ((shares - truth) ** 2).sum(1) + (places < 0)  # a truth outside the answers had no probability
    mean, share, error = (float(100 * one) for one in (top.mean(), right.mean(), sum(gaps) / len(top)))
    return Sureness(mean, share, error, float(loss), float(brier.mean()))


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
