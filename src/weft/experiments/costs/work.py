"""What runs compute and keep, in the order in which they run: who reads a text first pays for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from math import ceil
from typing import TypeGuard

from weft.config.task import TaskSpec
from weft.config.training import OptimConfig
from weft.data import sampling
from weft.evaluation.nearest import ROWS as NEAREST
from weft.experiments.costs import passes
from weft.experiments.costs.before import Before, Draw, draw_of
from weft.experiments.costs.learners import Learner, Learners
from weft.experiments.costs.machine import Kind
from weft.experiments.costs.passes import Pass
from weft.experiments.costs.sizes import Row, Sizes
from weft.experiments.costs.texts import Reader, Texts, different, longest_shares
from weft.experiments.jobs import Job
from weft.losses import target_costs
from weft.methods import Method
from weft.methods.in_context import InContext
from weft.methods.weft import Weft
from weft.models.text_cache import BYTES, LENGTHS
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, SourceRun
from weft.tasks import template
from weft.training.checkpoints import KEPT as CHECKPOINTS
from weft.training.runner import STATE_BYTES

LOG_LINE = 120.0  # bytes of a step's line
NUMBER = 4  # bytes of a number that is trained or kept
DEV_BATCH = FIT_BATCH = 64  # rows of a pass over dev rows, and over those that a classifier is fitted to


NOTHING = Learner()


@dataclass(frozen=True)
class Work:
    """Of one run.

    Attributes:
        passes: through the model; of a training, its steps first.
        trains: whether it is a training.
        learner: what is trained.
        tokens: that are computed at once in a step, of which activations are kept.
        steps: of a training.
        answers: rows that are answered.
        letters: of their texts together.
        text_bytes: of texts that it is the first to read and keep.
        fits: whether it fits a classifier, of which only the readings are counted.
    """

    passes: tuple[Pass, ...] = ()
    trains: bool = False
    learner: Learner = NOTHING
    tokens: float = 0.0
    steps: int = 0
    answers: float = 0.0
    letters: float = 0.0
    text_bytes: float = 0.0
    fits: bool = False

    @property
    def operations(self) -> float:
        """All of them."""
        return sum((one.operations * one.times for one in self.passes), 0.0)

    def disk(self, files: float, line: float) -> float:
        """Bytes that stay: the run's folder, given those of its small files and of an answer; and texts."""
        written = LOG_LINE * self.steps + line * self.answers + self.letters
        return files + written + NUMBER * self.learner.kept * self.trains + self.text_bytes

    @property
    def checkpoints(self) -> float:
        """Bytes of checkpoints, which go when the run is finished: trained and best numbers, two moments."""
        return 4.0 * CHECKPOINTS * NUMBER * self.learner.trained * self.trains

    def memory(self, weights: float, kept: float) -> float:
        """Bytes at most, of the model's weights and of a step, which keeps so many of a token."""
        return weights + kept * self.tokens + (STATE_BYTES + NUMBER) * self.learner.trained * self.trains


@dataclass
class Works:
    """Works of a plan's runs.

    Args:
        sizes: of the base model.
        reader: looks into tasks.
        learners: what runs train.
        part_tokens: of a step of several runs.
        read_tokens: of a read of texts.
        encoder: sizes of a frozen encoder that reads beside the base model, by its name.
    """

    sizes: Sizes
    reader: Reader
    learners: Learners
    part_tokens: int
    read_tokens: int
    encoder: Callable[[str], Sizes]
    _before: Before = field(default_factory=Before)

    def of(self, group: Sequence[Job]) -> list[Work]:
        """Of runs that train in one batch, or of one run."""
        found = [self._alone(job.config) for job in group]
        return found if len(found) == 1 else self._together(found)

    def _together(self, alone: list[Work]) -> list[Work]:
        """Steps of several runs, in parts that fill the device; each run has its share of them."""
        operations = sum(one.passes[0].operations for one in alone)
        tokens = sum(one.tokens for one in alone)
        parts = max(1, ceil(tokens / self.part_tokens))
        found = []
        for work in alone:
            step, *others = work.passes
            share = parts * step.operations / operations
            joint = Pass(step.kind, operations / parts, step.times * share, step.shapes / len(alone))
            found.append(replace(work, passes=(joint, *others), tokens=tokens / parts))
        return found

    def _alone(self, config: AnyRun) -> Work:
        if isinstance(config, EvaluateRun):
            return self._evaluation(config)
        if config.optim is None:
            return self._fitting(config)
        learner, optim = self.learners.of(config), config.optim
        training = [self.reader.training(config, spec) for spec in config.tasks]
        row = self._step_row(config, learner, training)
        operations = row.operations(self.sizes)
        each = operations.full_step if learner.own == "full" else operations.step
        kind: Kind = "taught" if _is_taught(config) else "step"
        shapes = self._shapes(learner, optim, [texts for texts, _ in training])
        found, size = [Pass(kind, each * optim.batch_size, float(optim.steps), shapes)], 0.0
        for texts, rows in training:
            used = min(float(rows), optim.steps * optim.batch_size / len(training))
            ahead = float(sampling.WINDOW * optim.batch_size)
            read, kept = self._texts(texts, used, learner, ahead, draw_of(config))
            found, size = [*found, *read], size + kept
        found += [
            *self._teaching(config, learner, row, training),
            *self._nearest(config, training),
            *self._dev(config, learner),
        ]
        tokens = row.tokens(self.sizes) * (optim.micro_batch or optim.batch_size)
        return Work(tuple(found), True, learner, tokens, optim.steps, text_bytes=size)

    def _shapes(self, learner: Learner, optim: OptimConfig, training: Sequence[Texts]) -> float:
        """Shapes of steps that no run met before: batches are as long as their longest text."""
        lengths = sorted(chain.from_iterable(texts.lengths for texts in training))
        shares = longest_shares(lengths, float(optim.batch_size))
        what = (learner.own, learner.prompt, optim.batch_size, *map(id, training))
        before = self._before.met(what, optim.steps)
        known, later = (different(shares.values(), float(draws)) for draws in (before, before + optim.steps))
        return later - known

    def _step_row(self, config: AnyRun, learner: Learner, training: Sequence[tuple[Texts, int]]) -> Row:
        """A row of a run's steps, padded as its batches are; the source stage's are as they are drawn."""
        assert not isinstance(config, EvaluateRun)
        assert config.optim is not None
        mixed = isinstance(config, SourceRun) or config.optim.length_pool == 0
        alike = learner.keeps_texts or not mixed
        lengths = [
            one.mean if alike else one.longest_of(float(config.optim.batch_size)) for one, _ in training
        ]
        answers = [one.longest for one, _ in training]
        count = len(training)
        return Row(float(learner.prompt), sum(lengths) / count, sum(answers) / count, learner.keeps_texts)

    def _texts(
        self, texts: Texts, rows: float, learner: Learner, at_once: float, draw: Draw = None
    ) -> tuple[list[Pass], float]:
        """Texts that are read once and kept, as far as nobody has read them before, and their bytes."""
        if not learner.keeps_texts or not texts.rows:
            return [], 0.0
        fresh = self._before.fresh("kept", texts, rows, draw)
        found = passes.text_reads(self.sizes, texts, fresh, at_once, self.read_tokens, LENGTHS)
        return found, fresh * texts.mean * self.sizes.kept * BYTES

    def _teaching(
        self, config: AnyRun, learner: Learner, row: Row, training: Sequence[tuple[Texts, int]]
    ) -> list[Pass]:
        """What teachers say of each row that comes; of one that comes again it is kept, if it may be.

        Before that, of one batch, at its own lengths and at those of passes, to find what that costs.
        """
        if not _is_taught(config):
            return []
        size, steps, tasks = config.optim.batch_size, config.optim.steps, len(training)
        live = config.distill.targets == "live"
        each = [(texts, steps * size / tasks, rows) for texts, rows in training]
        drawn = [(texts, draws if live else min(draws, rows)) for texts, draws, rows in each]
        tried = [(texts, size / tasks) for texts, _ in training]
        taught = partial(passes.taught, self.sizes, prompt=float(learner.prompt), kept=learner.keeps_texts)
        one_batch = Pass("read", row.operations(self.sizes).forward * size, 1.0)
        calls = float(ceil(steps / target_costs.WINDOW))
        return [one_batch, *taught(tried, calls=1.0), *taught(drawn, calls=calls)]

    def _nearest(self, config: AnyRun, training: Sequence[tuple[Texts, int]]) -> list[Pass]:
        """Rows under every known prompt, where the nearest one is looked for; once for all that ask alike."""
        if not isinstance(config, AdaptRun) or getattr(config.method, "start", "") != "nearest":
            return []
        known = len(config.teachers) or self.learners.sources(config)
        found: list[Pass] = []
        for spec, (texts, rows) in zip(config.tasks, training, strict=True):
            drawn = (spec.name, config.seed, config.shots, config.shots_total)
            key = ("nearest", *drawn, *config.teachers, config.source)
            if not self._before.met(key, 1):
                row = Row(float(config.prompt.length), texts.mean, kept=self.learners.suffix)
                found += passes.scoring(self.sizes, texts, row, float(min(rows, NEAREST)), float(known))
        return found

    def _dev(self, config: AnyRun, learner: Learner) -> list[Pass]:
        """Dev rows as often as they are scored."""
        if isinstance(config, EvaluateRun) or config.optim is None or not config.optim.eval_every:
            return []
        found: list[Pass] = []
        times = ceil(config.optim.steps / config.optim.eval_every)
        for spec in config.tasks:
            texts = self.reader.texts(config, spec, "dev", "dev_rows")
            read, _ = self._texts(texts, float(texts.rows), learner, float(texts.rows))
            written = 0.0 if texts.closed else texts.limit
            found += [*read, *self._answers(texts, learner, None, DEV_BATCH, times, written)]
        return found

    def _evaluation(self, config: EvaluateRun) -> Work:
        learner, method = self.learners.of(config), self.learners.method(config)
        found, kept, rows, letters = list[Pass](), 0.0, 0.0, 0.0
        for spec in config.tasks:
            texts = self.reader.texts(config, spec, config.split, "test_rows")
            rows, letters = rows + texts.rows, letters + texts.rows * texts.letters
            if method is not None and method.only_reads:
                found += self._readings(method, config, spec, texts, float(texts.rows), config.batch_size)
            if method is None or method.only_reads or not method.reads_base:
                continue
            read, size = self._texts(texts, float(texts.rows), learner, float(texts.rows))
            row = self._behind(method, texts, config) if isinstance(method, InContext) else None
            written = (texts.longest if config.run else texts.limit) if config.generate else 0.0
            written = written if texts.closed else texts.limit
            found += [*read, *self._answers(texts, learner, row, config.batch_size, 1, written)]
            kept += size
        fits = method is not None and method.only_reads
        return Work(tuple(found), False, learner, answers=rows, letters=letters, text_bytes=kept, fits=fits)

    def _answers(
        self, texts: Texts, learner: Learner, row: Row | None, size: int, times: int, written: float
    ) -> list[Pass]:
        """Of a split, in batches of like length; a row is a text under the learner's prompt, if not given."""
        row = row or Row(float(learner.prompt), texts.padded(size), kept=learner.keeps_texts)
        met = bool(self._before.met((learner.own, learner.prompt, size, id(texts), row), times))
        return passes.answers(self.sizes, texts, row, size, times, written, met=met)

    def _behind(self, method: InContext, texts: Texts, config: EvaluateRun) -> Row:
        """A text behind a context, which a causal model reads once for all rows."""
        context, text = float(method.context_tokens), texts.padded(config.batch_size)
        if isinstance(method.examples, int):
            context = min(context, (method.examples + 1) * (texts.mean + texts.answer))
        if self.sizes.writer is not None:
            return Row(context, text)
        return Row(text, context, kept=True)

    def _fitting(self, config: AnyRun) -> Work:
        """What a method reads that is fitted at once."""
        assert isinstance(config, AdaptRun)
        found: list[Pass] = []
        if config.method.only_reads:
            for spec in config.tasks:
                texts, rows = self.reader.training(config, spec)
                found += self._readings(config.method, config, spec, texts, float(rows), FIT_BATCH)
        return Work(tuple(found), fits=True)

    def _readings(
        self, method: Method, config: AnyRun, spec: TaskSpec, texts: Texts, rows: float, size: int
    ) -> list[Pass]:
        """What a method reads that needs no more: texts bare, under prompts, by encoders beside the base.

        Texts whose fields are read apart are read once more; the words of a template around them are counted
        too. What one run has read is kept for the others; under which few prompts a task reads, too.
        """
        found, draw = list[Pass](), draw_of(config)
        if method.reads_base:
            found += passes.readings(self.sizes, texts, self._before.fresh("bare", texts, rows, draw), size)
        if isinstance(method, Weft) and method.sources:
            prompts = len(config.teachers) + 1 if isinstance(config, AdaptRun) else method.prompts
            row = Row(float(config.prompt.length), texts.padded(size), kept=self.learners.suffix)
            fresh = self._before.fresh("prompts", texts, rows, draw)
            found += passes.under_prompts(self.sizes, row, fresh, size, prompts)
        for name in method.also_reads:
            fresh = self._before.fresh(f"encoder {name}", texts, rows, draw)
            found += passes.readings(self.encoder(name), texts, fresh, size)
        for name in (
            method.field_readers(len(template.names(spec.source))) if isinstance(method, Weft) else ()
        ):
            fresh = self._before.fresh(f"fields {name}", texts, rows, draw)
            found += passes.readings(self.encoder(name) if name else self.sizes, texts, fresh, size)
        return found


def _is_taught(config: AnyRun) -> TypeGuard[SourceRun]:
    """Whether teachers say something of its rows."""
    return isinstance(config, SourceRun) and bool(config.teachers) and config.distill.teaches
