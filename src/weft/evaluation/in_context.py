"""Answers of a frozen model from what stands in its context, with calibrated choices.

A model that reads examples leans to some answers whatever the text: to those that are common, come last or
are likely words. Contextual calibration (Zhao et al. 2021, arXiv:2102.09690) asks it for texts that say
nothing, and divides the probabilities of choices by those: `p(choice | text) / p(choice | no text)`, with
the mean over `EMPTY_TEXTS` below, and made to sum to one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from weft.config.decoding import GREEDY, Decoding
from weft.data.batch import Tokens
from weft.data.context import ContextLayout
from weft.errors import DataError
from weft.evaluation.answers import Answer, TextError, chosen
from weft.evaluation.received import Received, received
from weft.evaluation.written import written
from weft.models import Backbone, Context, Opening
from weft.models.decoding import row_seeds
from weft.tasks import Task

EMPTY_TEXTS = ("N/A", "", "[MASK]")  # those of the paper
READ_TOKENS = 8192  # of one batch, the context counted with every row: its keys and values need memory


@dataclass(frozen=True)
class InContextAnswerer:
    """A frozen model and the context of each task, as an `Answerer`.

    Attributes:
        backbone: the model.
        tasks: the tasks.
        contexts: what stands before every text of each task; not empty.
        layouts: how texts of each become tokens.
        calibrate: divide by what is answered to texts that say nothing.
        decoding: how answers are written.
    """

    backbone: Backbone
    tasks: tuple[Task, ...]
    contexts: tuple[Tokens, ...]
    layouts: tuple[ContextLayout, ...]
    calibrate: bool
    decoding: Decoding = GREEDY
    _openings: dict[int, Opening] = field(default_factory=dict, repr=False, compare=False)
    _leanings: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """See `Answerer`; rows of one task share batches, and its context is read once."""
        bodies = [self._body(i, *one) for i, one in enumerate(zip(texts, task_ids, strict=True))]
        found: dict[int, Answer] = {}
        for k in sorted(set(task_ids)):
            order = sorted((i for i, own in enumerate(task_ids) if own == k), key=lambda i: len(bodies[i]))
            size = min(batch_size, READ_TOKENS // (len(self.contexts[k]) + self.layouts[k].limit))
            size = max(1, size // self.decoding.num_beams)
            for start in range(0, len(order), size):
                part = order[start : start + size]
                answers = self._answer_batch(k, [bodies[i] for i in part], generate)
                found.update(zip(part, answers, strict=True))
        return [found[i] for i in range(len(texts))]

    @property
    def room(self) -> int | None:
        """See `Writes`."""
        if (positions := self.backbone.positions) is None:
            return None
        pairs = zip(self.contexts, self.layouts, strict=True)
        return positions - max(len(context) + layout.limit for context, layout in pairs)

    def received(self, text: str, fields: Sequence[str], task_id: int) -> Received:
        """See `Receives`."""
        return received(self.backbone, text, fields, self.layouts[task_id].limit)

    def _body(self, number: int, text: str, task_id: int) -> Tokens:
        try:
            return self.layouts[task_id].body(text)
        except DataError as fault:
            raise TextError(number, fault) from None

    def _answer_batch(self, k: int, bodies: Sequence[Tokens], generate: bool) -> list[Answer]:
        task, context = self.tasks[k], self._begin(k, bodies)
        wrote: Sequence[str | None] = [None] * len(bodies)
        shares = self._shares(k, context) if task.choices else None
        if generate or shares is None:
            seeds = row_seeds(self.decoding.seed, bodies)
            tokens = self.backbone.generate(context, task.max_target_tokens, self.decoding, seeds)
            wrote = written(self.backbone, task, tokens)
        if shares is None:
            return [Answer(task.name, one) for one in wrote]
        return [chosen(task, row, one) for row, one in zip(shares, wrote, strict=True)]

    def _begin(self, k: int, bodies: Sequence[Tokens]) -> Context:
        """Texts behind their context; its last token is read with them, so that an empty text has one."""
        with self.backbone.mode(dropout=False):
            if k not in self._openings:
                self._openings[k] = self.backbone.open(self.contexts[k][:-1])
            rows = [self.contexts[k][-1:] + body + self.layouts[k].edges[1] for body in bodies]
            return self.backbone.begin_after(self._openings[k], rows)

    def _shares(self, k: int, context: Context) -> list[list[float]]:
        """Probability of each choice, for every row of a context."""
        found = self._scores(k, context)
        if self.calibrate:
            found = found - self._leaning(k)
        shares: list[list[float]] = found.softmax(-1).tolist()
        return shares

    def _scores(self, k: int, context: Context) -> Tensor:
        """Log-probability of every choice among the choices, `[B, C]`, in float64."""
        choices = [self.backbone.answer_tokens(word) for word in self.tasks[k].choices]
        return self.backbone.score(context, choices).double().log_softmax(-1)

    def _leaning(self, k: int) -> Tensor:
        """Log of the mean probability of every choice, `[C]`, where the text says nothing."""
        if k not in self._leanings:
            bodies = [self.layouts[k].bare(text) for text in EMPTY_TEXTS]
            found = self._scores(k, self._begin(k, bodies))
            self._leanings[k] = found.logsumexp(0) - math.log(len(bodies))
        return self._leanings[k]
