"""Answers of tuned models: written ones for every task, and scored choices where the answers are closed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from weft.config.decoding import GREEDY, Decoding
from weft.data.batch import Tokens, by_length
from weft.errors import DataError
from weft.evaluation.answers import Answer, TextError, chosen
from weft.evaluation.received import Received, received
from weft.evaluation.scores import Scores, score
from weft.evaluation.written import written
from weft.models import Backbone, Context
from weft.models.decoding import row_seeds
from weft.models.tuned import TunedModel
from weft.tasks import Example, Task


@dataclass(frozen=True)
class TunedAnswerer:
    """A tuned model as an `Answerer`.

    Attributes:
        model: one prompt (or the same weights) for each task.
        tasks: the tasks, in the order of the model's task ids.
        source_tokens: longest text of each task, in tokens.
        decoding: how answers are written.
    """

    model: TunedModel
    tasks: tuple[Task, ...]
    source_tokens: tuple[int, ...]
    decoding: Decoding = GREEDY

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """See `Answerer`; rows of different tasks share batches."""
        limits = [self.source_tokens[k] for k in task_ids]
        sources = texts_tokens(self.model.backbone, texts, limits)
        return answer(
            self.model,
            self.tasks,
            sources,
            task_ids,
            batch_size=batch_size,
            generate=generate,
            decoding=self.decoding,
        )

    @property
    def room(self) -> int | None:
        """See `Writes`."""
        if (positions := self.model.backbone.positions) is None:
            return None
        prompt = 0 if self.model.prompts is None else self.model.prompts.length
        return positions - prompt - max(self.source_tokens)

    def received(self, text: str, fields: Sequence[str], task_id: int) -> Received:
        """See `Receives`."""
        return received(self.model.backbone, text, fields, self.source_tokens[task_id])


def texts_tokens(backbone: Backbone, texts: Sequence[str], limits: Sequence[int]) -> list[Tokens]:
    """Tokens of texts, each cut to its limit.

    Args:
        backbone: gives the tokenizer.
        texts: the texts.
        limits: most tokens of each.

    Raises:
        TextError: for a text that has none.
    """
    found: list[Tokens] = []
    for text, limit in zip(texts, limits, strict=True):
        try:
            found.append(backbone.text_tokens(text, limit)[0])
        except DataError as fault:
            raise TextError(len(found), fault) from None
    return found


@torch.no_grad()
def answer(
    model: TunedModel,
    tasks: Sequence[Task],
    sources: Sequence[Tokens],
    task_ids: Sequence[int],
    *,
    batch_size: int = 64,
    generate: bool = True,
    decoding: Decoding = GREEDY,
) -> list[Answer]:
    """Answers of texts under their tasks' prompts; rows of different tasks share batches.

    Args:
        model: `model.tasks` names the tasks in the order of the task ids.
        tasks: the same tasks.
        sources: texts as tokens.
        task_ids: the task of each text.
        batch_size: rows read at once, each beam counting as one; they are ordered by length, which changes
            no answer.
        generate: also write freely where the answers are closed.
        decoding: how answers are written.
    """
    model.prepare(sources)
    answers: dict[int, Answer] = {}
    for part in by_length(sources, max(1, batch_size // decoding.num_beams)):
        rows = [sources[i] for i in part], [task_ids[i] for i in part]
        found = _answer_batch(model, tasks, *rows, generate, decoding)
        answers.update(zip(part, found, strict=True))
    return [answers[i] for i in range(len(sources))]


def _answer_batch(
    model: TunedModel,
    tasks: Sequence[Task],
    sources: Sequence[Tokens],
    task_ids: Sequence[int],
    generate: bool,
    decoding: Decoding,
) -> list[Answer]:
    """One batch: read once, score the choices of each of its tasks, then write."""
    present = sorted(set(task_ids))
    wrote: dict[int, str] = {}
    context = model.begin(sources, task_ids)
    shares = {k: _shares(model, context, tasks[k]) for k in present if tasks[k].choices}
    if generate or len(shares) < len(present):
        limits = [tasks[k].max_target_tokens for k in task_ids]
        tokens = model.backbone.generate(context, limits, decoding, row_seeds(decoding.seed, sources))
        for k in present:
            own = [i for i, one in enumerate(task_ids) if one == k]
            wrote |= zip(own, written(model.backbone, tasks[k], [tokens[i] for i in own]), strict=True)
    return [
        chosen(tasks[k], shares[k][i], wrote.get(i)) if k in shares else Answer(tasks[k].name, wrote.get(i))
        for i, k in enumerate(task_ids)
    ]


def _shares(model: TunedModel, context: Context, task: Task) -> list[list[float]]:
    """Probability of each of a task's choices, for every row of a context."""
    log_probs = model.backbone.score(context, [model.backbone.answer_tokens(word) for word in task.choices])
    shares: list[list[float]] = torch.softmax(log_probs.double(), -1).tolist()
    return shares


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
