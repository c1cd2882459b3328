"""Seconds of whole steps and passes of a model, by their operations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

import torch

from weft.config.training import DistillConfig, OptimConfig
from weft.data.batch import Batch, Encoded, Tokens, collate
from weft.experiments.costs.machine import Curve, Point, Times, points
from weft.experiments.costs.sizes import Operations, Row, Sizes
from weft.losses.distillation import distillation_loss
from weft.losses.objective import Loss, lm_loss
from weft.losses.targets import TeacherTargets
from weft.losses.terms import lm_loss_sum
from weft.models import Backbone
from weft.models.memory import saved_bytes
from weft.models.tuned import TunedModel, with_prompts
from weft.storage.page_store import PageStore
from weft.training.course import Hooks
from weft.training.loop import fit

PROMPT, TEXT, ANSWER = 8, 32, 2  # tokens of a row
TOKENS = (16, 64, 256, 640)  # of a pass
READ = 2048  # of one more without gradients, such as evaluations make
AGAIN = 4  # tokens that are written
SHAPES = 5  # lengths of texts that a point is measured with
DIFFERENT = 8  # texts of a batch: where texts are kept, each is read once and costs more than its row
Clock = Callable[[], float]


class Beside(NamedTuple):
    """See `Times` and `Measured`; with the one step, and the one pass."""

    train: float
    evaluate: float
    files: float
    line: float


def prompted(backbone: Backbone) -> TunedModel:
    """A model that trains one prompt."""
    prompt = backbone.embeddings[:PROMPT].detach().float().clone()[None]
    return with_prompts(backbone, prompt, ("task",))


@dataclass(frozen=True)
class Passes:
    """Passes of one model, by the number of their tokens."""

    model: TunedModel
    sizes: Sizes
    clock: Clock

    def times(self, group: str, beside: Beside) -> Times:
        """All of them, given what whole runs took."""
        (steps, fresh_step), (reads, fresh_read) = self.steps(group), self.reads()
        return Times(
            step=steps,
            read=reads,
            write=self.writes(),
            fresh_step=fresh_step,
            fresh_read=fresh_read,
            train=max(0.0, beside.train - steps.points[0][1]),
            evaluate=max(0.0, beside.evaluate - reads.points[0][1]),
        )

    def taught(self) -> Curve:
        """Whole steps beside what a teacher says, which is kept in memory."""
        distill = DistillConfig()
        targets = TeacherTargets(self.model, distill, PageStore(None, 0, lambda text: None))
        return self.steps("prompt", distillation_loss(self.model, distill, targets), targets)[0]

    def steps(
        self, group: str, loss: Loss = lm_loss, targets: TeacherTargets | None = None
    ) -> tuple[Curve, float]:
        """Whole steps with their optimiser, and what the first one of a shape takes beyond that.

        Rates are so small that nothing moves far.
        """

        def trained(batches: list[Batch]) -> list[float]:
            if targets is not None:
                targets.prepare(batches)
            return self._steps(group, batches * 2, loss)

        full = "model" in self.model.trained
        return self._curve(TOKENS, trained, lambda one: one.full_step if full else one.step)

    def reads(self) -> tuple[Curve, float]:
        """Passes without gradients, from which answers begin; likewise."""

        def read(batches: list[Batch]) -> list[float]:
            stamps = [self.clock()]
            for batch in batches * 2:
                self.model.begin(batch.sources, batch.task_ids.tolist())
                stamps.append(self.clock())
            return [two - one for one, two in pairwise(stamps)][1:]

        return self._curve((*TOKENS, READ), read, lambda one: one.forward, answer=1)

    def _curve(
        self,
        tokens: Sequence[int],
        work: Callable[[list[Batch]], list[float]],
        counted: Callable[[Operations], float],
        answer: int = ANSWER,
    ) -> tuple[Curve, float]:
        """Passes of so many tokens each, over texts of some lengths, in turn and once again.

        Lengths differ a little, as those of batches do: products are faster over some numbers of rows.

        Args:
            tokens: of the passes of each point.
            work: does batches twice, and gives the seconds of each but the first.
            counted: the operations that count.
            answer: tokens of an answer.
        """
        found, first = list[Point](), list[float]()
        for rows in self._counts(self._row(answer), tokens):
            batches = [self._batch(rows, TEXT + more) for more in range(SHAPES)]
            for batch in batches:
                self.model.prepare(batch.sources)
            took = work(batches)
            first += [one - two for one, two in zip(took[: SHAPES - 1], took[SHAPES:], strict=True)]
            each = [counted(self._row(answer, TEXT + more).operations(self.sizes)) for more in range(SHAPES)]
            found.append((rows * fmean(each), median(took[SHAPES - 1 :])))
        return points(found), max(0.0, median(first))

    def _steps(self, group: str, batches: Sequence[Batch], loss: Loss) -> list[float]:
        """Seconds of each step but the first."""
        stamps: list[float] = []
        optim = OptimConfig(lr={group: 1e-9}, steps=len(batches), batch_size=len(batches[0].sources))
        hooks = Hooks(log=lambda line: stamps.append(self.clock()))
        fit(self.model, lambda step: batches[step], loss, optim, hooks=hooks)
        return [two - one for one, two in pairwise(stamps)]

    def writes(self) -> Curve:
        """One more token of some rows."""
        found, behind = list[Point](), self._row(answer=2).next_token(self.sizes).forward
        for rows in (1, 8, 64):
            context = self.model.begin(self._batch(rows).sources, [0] * rows)
            stamps = []
            with self.model.backbone.mode(dropout=False):
                for _ in range(AGAIN + 1):
                    context = self.model.backbone.step(context, [self._ids[0]] * rows)
                    stamps.append(self.clock())
            found.append((rows * behind, median(two - one for one, two in pairwise(stamps))))
        return points(found)

    def kept(self) -> float:
        """Bytes that a step keeps of a token, by those of two rows and of one."""

        def loss(rows: int) -> torch.Tensor:
            batch = self._batch(rows).to(self.model.backbone.device)
            return lm_loss_sum(self.model(batch).logits, batch.labels)

        one, two = saved_bytes(lambda: loss(1)), saved_bytes(lambda: loss(2))
        return (two - one) / self._row().tokens(self.sizes)

    def _row(self, answer: int = ANSWER, length: int = TEXT) -> Row:
        prompt = 0 if self.model.prompts is None else self.model.prompts.length
        return Row(float(prompt), float(length), float(answer), self.model.keeps_texts)

    def _counts(self, row: Row, tokens: Sequence[int]) -> list[int]:
        """Rows of passes of so many tokens."""
        each = row.tokens(self.sizes)
        return sorted({max(1, round(some / each)) for some in tokens} | {1, 2})

    def _batch(self, rows: int, length: int = TEXT) -> Batch:
        """Rows of a few texts, every other one a token shorter: padding that is masked takes its time."""
        ids = self._ids
        texts = [self._text(ids, number, length - number % 2) for number in range(min(rows, DIFFERENT))]
        each = [Encoded(texts[number % DIFFERENT], (ids[1],) * ANSWER) for number in range(rows)]
        return collate(each, [0] * rows)

    @staticmethod
    def _text(ids: Sequence[int], number: int, length: int) -> Tokens:
        return tuple(ids[(number * length + place) % len(ids)] for place in range(length))

    @property
    def _ids(self) -> list[int]:
        special = self.model.backbone.special_ids
        words = range(min(len(self.model.backbone.embeddings), 4096))
        return [token for token in words if token not in special]
