"""Answers and scores: greedy writing for every task, and scored choices where the answers are closed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from weft.batch import Tokens
from weft.errors import DataError
from weft.model import TunedModel
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
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        found = _answer_batch(model, tasks, [sources[i] for i in part], [task_ids[i] for i in part], generate)
        answers.update(zip(part, found, strict=True))
    return [answers[i] for i in range(len(sources))]


def _answer_batch(
    model: TunedModel, tasks: Sequence[Task], sources: Sequence[Tokens], task_ids: Sequence[int], generate: bool
) -> list[Answer]:
    """One batch: read once, score the choices of all its tasks, then write."""
    backbone = model.backbone
    context = model.begin(sources, task_ids)
    present = sorted(set(task_ids))
    words = sorted({word for k in present for word in tasks[k].choices})
    scores = backbone.score(context, [backbone.answer_tokens(word) for word in words]) if words else None
    written: list[str | None] = [None] * len(sources)
    if generate or any(not tasks[k].choices for k in present):
        longest = max(tasks[k].max_target_tokens for k in present)
        tokens = backbone.generate(context, longest)
        written = [backbone.decode(row[: tasks[k].max_target_tokens]) for row, k in zip(tokens, task_ids, strict=True)]
    return [
        _one_answer(tasks[k], written[i], words, None if scores is None else scores[i])
        for i, k in enumerate(task_ids)
    ]


def _one_answer(task: Task, written: str | None, words: list[str], scores: torch.Tensor | None) -> Answer:
    parsed = None if written is None else task.parse(written)
    if not task.choices or scores is None:
        return Answer(task.name, parsed)
    own = torch.tensor([words.index(word) for word in task.choices], device=scores.device)
    shares = torch.softmax(scores[own].double(), -1).tolist()
    probabilities = dict(zip(task.choices, shares, strict=True))
    return Answer(task.name, parsed, max(task.choices, key=lambda word: probabilities[word]), probabilities)


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


def majority(task: Task, train: Sequence[Example], examples: Sequence[Example]) -> tuple[Scores, list[Answer]]:
    """Scores of always giving the training rows' commonest answer (of equal ones, the first in order)."""
    counts = Counter(example.target for example in train)
    commonest = min(counts, key=lambda target: (-counts[target], target))
    answers = [Answer(task.name, commonest, commonest if task.choices else None) for _ in examples]
    return score(task, examples, answers), answers

