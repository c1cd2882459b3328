"""Answers and scores: greedy writing for every task, and scored choices where the answers are closed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from weft.data.batch import Tokens
from weft.errors import DataError
from weft.models import Context
from weft.models.tuned import TunedModel
from weft.tasks import Example, Task


@dataclass(frozen=True)
class Answer:
    """One row's answer.

    Attributes:
        task: the task's name.
        written: what the model wrote, parsed; none if it was not asked to write.
        chosen: the likeliest choice, for closed answer sets.
        probabilities: choice -> probability among the choices.
    """

    task: str
    written: str | None = None
    chosen: str | None = None
    probabilities: dict[str, float] | None = None

    @property
    def text(self) -> str:
        """The answer: the chosen one of a closed set, else the written one."""
        return self.chosen if self.chosen is not None else self.written or ""


@dataclass(frozen=True)
class Scores:
    """Metrics of one task on some rows, in percent; none where a metric is undefined.

    Attributes:
        rows: how many rows were scored.
        metrics: of the answers: the chosen ones where answers are closed.
        written: of the freely written answers, where they were asked for.
        unparsable: share of written answers outside the closed set, in percent.
    """

    rows: int
    metrics: dict[str, float | None]
    written: dict[str, float | None] | None = None
    unparsable: float | None = None


@torch.no_grad()
def answer(
    model: TunedModel,
    tasks: Sequence[Task],
    sources: Sequence[Tokens],
    task_ids: Sequence[int],
    *,
    batch_size: int = 64,
    generate: bool = True,
) -> list[Answer]:
    """Answers of texts under their tasks' prompts; rows of different tasks share batches.

    Args:
        model: `model.tasks` names the tasks in the order of the task ids.
        tasks: the same tasks.
        sources: texts as tokens.
        task_ids: the task of each text.
        batch_size: rows read at once; they are ordered by length, which changes no answer.
        generate: also write freely where the answers are closed.
    """
    if model.prompts is not None:  # without a prompt, texts are read anew anyhow
        model.backbone.prepare(sources)
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        found = _answer_batch(model, tasks, [sources[i] for i in part], [task_ids[i] for i in part], generate)
        answers.update(zip(part, found, strict=True))
    return [answers[i] for i in range(len(sources))]


def _answer_batch(
    model: TunedModel,
    tasks: Sequence[Task],
    sources: Sequence[Tokens],
    task_ids: Sequence[int],
    generate: bool,
) -> list[Answer]:
    """One batch: read once, score the choices of each of its tasks, then write."""
    present = sorted(set(task_ids))
    written: list[str | None] = [None] * len(sources)
    context = model.begin(sources, task_ids)
    shares = {k: _shares(model, context, tasks[k]) for k in present if tasks[k].choices}
    if generate or len(shares) < len(present):
        tokens = model.backbone.generate(context, max(tasks[k].max_target_tokens for k in present))
        cut = [row[: tasks[k].max_target_tokens] for row, k in zip(tokens, task_ids, strict=True)]
        written = [tasks[k].parse(model.backbone.decode(row)) for row, k in zip(cut, task_ids, strict=True)]
    return [
        _one_answer(tasks[k], written[i], shares[k][i] if k in shares else None)
        for i, k in enumerate(task_ids)
    ]


def _shares(model: TunedModel, context: Context, task: Task) -> list[list[float]]:
    """Probability of each of a task's choices, for every row of a context."""
    log_probs = model.backbone.score(context, [model.backbone.answer_tokens(word) for word in task.choices])
    shares: list[list[float]] = torch.softmax(log_probs.double(), -1).tolist()
    return shares


def _one_answer(task: Task, written: str | None, shares: list[float] | None) -> Answer:
    if shares is None:
        return Answer(task.name, written)
    probabilities = dict(zip(task.choices, shares, strict=True))
    return Answer(task.name, written, max(task.choices, key=lambda word: probabilities[word]), probabilities)


def score(task: Task, examples: Sequence[Example], answers: Sequence[Answer]) -> Scores:
    """Metrics of answers against the accepted ones.

    Raises:
        DataError: if there are no rows.
    """
    if not examples:
        raise DataError("there are no rows to score", where=f"task {task.name}", code="D13")
    accepted = [example.accepted for example in examples]
    metrics = {name: metric([one.text for one in answers], accepted) for name, metric in task.metrics.items()}
    if any(one.written is None for one in answers):
        return Scores(len(examples), metrics)
    texts = [one.written or "" for one in answers]
    written = {name: metric(texts, accepted) for name, metric in task.metrics.items()}
    strange = sum(text not in task.choices for text in texts) if task.choices else 0
    return Scores(len(examples), metrics, written, 100 * strange / len(texts))


def evaluate(
    model: TunedModel,
    task: Task,
    examples: Sequence[Example],
    sources: Sequence[Tokens],
    *,
    task_id: int = 0,
    batch_size: int = 64,
    generate: bool = True,
) -> tuple[Scores, list[Answer]]:
    """Scores of a model on one task's examples, and its answers."""
    tasks = [task] * (task_id + 1)
    answers = answer(
        model, tasks, sources, [task_id] * len(sources), batch_size=batch_size, generate=generate
    )
    return score(task, examples, answers), answers


def majority(
    task: Task, train: Sequence[Example], examples: Sequence[Example]
) -> tuple[Scores, list[Answer]]:
    """Scores of always giving the training rows' commonest answer (of equal ones, the first in order)."""
    counts = Counter(example.target for example in train)
    commonest = min(counts, key=lambda target: (-counts[target], target))
    answers = [Answer(task.name, commonest, commonest if task.choices else None) for _ in examples]
    return score(task, examples, answers), answers
