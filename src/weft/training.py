"""One training loop for every method and stage: what differs comes in as a loss and as batches.

Several courses may share a frozen model: the rows of all of them go through it in one batch, and each has
its own parameters, optimiser, clipping, rates, scores and end.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from weft.batch import Batch, join
from weft.config import OptimConfig
from weft.data import Batches
from weft.errors import ConfigError, NumericError
from weft.losses import lm_loss_rows, lm_loss_sum
from weft.model import TunedModel

WARN_NORM, STOP_NORM = 50.0, 1000.0
PART_TOKENS = {"cpu": 512}  # of one pass of several courses: where the measured rate stops rising
PART_TOKENS_ELSEWHERE = 65536  # not measured


@dataclass(frozen=True)
class Totals:
    """Counts of a whole step, by which sums over micro-batches are divided."""

    rows: int
    target_tokens: int


class Loss(Protocol):
    """Value to minimise for a part of a step, and its terms for the log; all parts add up to the step."""

    def __call__(
        self, model: TunedModel, batch: Batch, totals: Totals
    ) -> tuple[Tensor, dict[str, float]]: ...


def lm_loss(model: TunedModel, batch: Batch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
    """L_PLM: mean cross-entropy of the target tokens of the whole step."""
    value = lm_loss_sum(model(batch).logits, batch.labels) / totals.target_tokens
    return value, {"lm": float(value.detach())}


@dataclass
class Progress:
    """All that a run needs to go on from a step, but the parameters and the optimiser.

    `seconds` is the time of its steps; courses that share a batch share its time.
    """

    step: int = 0
    seconds: float = field(default=0.0, compare=False)
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    scores: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Checkpoint:
    """The state of training after `progress.step` steps; holds until the next one.

    Attributes:
        progress: step, best score, patience.
        trained: the trained parameters by name.
        best: the same at the best score so far.
        optimizer: parameter number -> state by name.
    """

    progress: Progress
    trained: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to know while training runs.

    Attributes:
        log: told the terms of every step.
        warn: told what looks wrong.
        save: keeps a checkpoint.
    """

    log: Callable[[dict[str, int | float]], None] = lambda line: None
    warn: Callable[[str], None] = lambda text: None
    save: Callable[[Checkpoint], None] = lambda checkpoint: None


class Pace(Protocol):
    """Told after every step: it saves all courses now, or not; it must where `must` is set."""

    def __call__(self, save: Callable[[], None], *, must: bool = False) -> None: ...


def never(save: Callable[[], None], *, must: bool = False) -> None:
    """The pace that saves nothing."""


def make_optimizer(model: TunedModel, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW with one learning rate for each group that the method trains.

    Raises:
        ConfigError: if a group has no rate, or a rate has no group.
    """
    if set(optim.lr) != set(model.trained):
        raise ConfigError(
            f"trained are {', '.join(sorted(model.trained))}; optim.lr names {', '.join(sorted(optim.lr))}",
            where="optim.lr",
            fix="give one rate for each group the method trains",
        )
    # Factors stay out of the decay: under the gauge freedom it would only shift size between u, v and P*.
    groups = [
        {
            "params": parameters,
            "lr": optim.lr[name],
            "weight_decay": 0.0 if name == "factors" else optim.weight_decay,
            "name": name,
        }
        for name, parameters in model.trained.items()
    ]
    return torch.optim.AdamW(groups)


def rate_factor(step: int, optim: OptimConfig) -> float:
    """What the learning rates are multiplied by at a step: linear rise, then linear fall to 0."""
    warm = round(optim.warmup * optim.steps)
    if step < warm:
        return (step + 1) / warm
    return (optim.steps - step) / (optim.steps - warm)


@dataclass
class Course:
    """One training: what is trained, on which rows, and how far it is.

    Args:
        model: what is trained: the parameters in `model.trained`, and nothing else.
        batches: the batch of any step.
        loss: what is minimised.
        optim: rates, lengths, clipping.
        validate: score on dev rows, the higher the better; called every `optim.eval_every` steps.
        hooks: log lines, warnings, checkpoints.
        seed: of the dropout of every step, with the step's number.

    Attributes:
        error: what ended it before its time.
    """

    model: TunedModel
    batches: Batches
    loss: Loss
    optim: OptimConfig
    validate: Callable[[], float] | None = None
    hooks: Hooks = field(default_factory=Hooks)
    seed: int = 0
    error: NumericError | None = None

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.model, self.optim)
        self.progress, self.best = Progress(), self.model.state()

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        patience = self.optim.patience
        stale = patience is not None and self.progress.stale >= patience
        return self.error is not None or stale or self.progress.step >= self.optim.steps

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from where an earlier process stopped."""
        self.progress, self.best = checkpoint.progress, checkpoint.best
        self.model.load_state(checkpoint.trained)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": checkpoint.optimizer})

    def save(self) -> None:
        """Hand a checkpoint to the hook."""
        state = self.optimizer.state_dict()["state"]
        self.hooks.save(Checkpoint(self.progress, self.model.state(), self.best, state))

    def begin(self) -> Batch:
        """Set the rates of a step, and draw its batch."""
        factor = rate_factor(self.progress.step, self.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = self.optim.lr[group["name"]] * factor
        self.optimizer.zero_grad(set_to_none=True)
        return self.batches(self.progress.step)

    def end(self, terms: dict[str, float], padding: float) -> None:
        """With the gradients at hand: clip, step, judge, log; what is no number ends the course."""
        try:
            self._end(terms, padding)
        except NumericError as error:
            self.error = error

    def _end(self, terms: dict[str, float], padding: float) -> None:
        factor = rate_factor(self.progress.step, self.optim)
        _check_finite("loss", terms["loss"], self.progress.step)
        parameters = [parameter for group in self.model.trained.values() for parameter in group]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.optim.clip))
        _check_finite("gradient", norm, self.progress.step)
        self.optimizer.step()
        self.progress.step += 1
        _check_norm(self.model, self.progress.step, self.hooks)
        line = {"step": self.progress.step, **terms, "gradient": norm, "rate": factor, "padding": padding}
        if self.validate is not None and _is_due(self.progress.step, self.optim):
            self._judge(self.validate())
            line["dev"] = self.progress.scores[-1][1]
        self.hooks.log(line)

    def _judge(self, score: float) -> None:
        """Record a dev score; the state to keep is the earliest with the highest score."""
        progress = self.progress
        progress.scores.append((progress.step, score))
        if progress.best is None or score > progress.best:
            progress.best, progress.best_step, progress.stale = score, progress.step, 0
            self.best = self.model.state()
        else:
            progress.stale += 1

    def finish(self) -> Progress:
        """Leave the model in the state to keep.

        Raises:
            NumericError: if that is what ended the course.
        """
        if self.error is not None:
            raise self.error
        if self.progress.scores and self.optim.keep == "best":
            self.model.load_state(self.best)
        return self.progress


def fit(
    model: TunedModel,
    batches: Batches,
    loss: Loss,
    optim: OptimConfig,
    *,
    validate: Callable[[], float] | None = None,
    hooks: Hooks | None = None,
    resume: Checkpoint | None = None,
    seed: int = 0,
    pace: Pace = never,
) -> Progress:
    """Train one course in place, and leave the model in the state to keep. `Course` says what is what.

    Raises:
        NumericError: at the step where the loss or a gradient is no number, or a prompt has exploded.
    """
    course = Course(model, batches, loss, optim, validate, hooks or Hooks(), seed)
    if resume is not None:
        course.resume(resume)
    for _ in fit_together([course], pace):
        pass
    return course.finish()


def fit_together(courses: Sequence[Course], pace: Pace = never) -> Iterator[Course]:
    """Train courses on one frozen model, a step of all in one batch; each is given back when it is over.

    The gradients are those of each course alone, but for rounding: no row sees another. So that a course
    which goes on in another process meets the same company, all are saved whenever one leaves.

    Args:
        courses: one; or several on one frozen backbone without dropout, with prompts and `lm_loss`.
        pace: when to save.
    """
    live = list(courses)
    while live:
        over = [course for course in live if course.over]
        live = [course for course in live if not course.over]
        yield from over
        if not live:
            return
        start = time.monotonic()
        _step(live[0]) if len(live) == 1 else _joint_step(live)
        spent = (time.monotonic() - start) / len(live)
        for course in live:
            course.progress.seconds += spent
        pace(_saver(live), must=0 < sum(course.over for course in live) < len(live))


def _saver(courses: list[Course]) -> Callable[[], None]:
    def save() -> None:
        for course in courses:
            if course.error is None:
                course.save()

    return save


@contextmanager
def _seeded(model: TunedModel, seed: int, step: int) -> Iterator[None]:
    """Dropout, where it is on, is a function of seed and step, so that a resumed run draws the same."""
    if not model.dropout:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
        yield


def _step(course: Course) -> None:
    """One step of one course, its rows in micro-batches whose losses add up to the whole."""
    batch, model = course.begin(), course.model
    totals = Totals(len(batch.sources), batch.target_tokens)
    terms: dict[str, float] = {}
    with _seeded(model, course.seed, course.progress.step):
        for part in batch.split(course.optim.micro_batch or course.optim.batch_size):
            value, logged = course.loss(model, part.to(model.backbone.device), totals)
            torch.autograd.backward(value)
            logged = {"loss": float(value.detach()), **logged}
            terms = {name: terms.get(name, 0.0) + number for name, number in logged.items()}
    course.end(terms, batch.padding)


def _joint_step(courses: list[Course]) -> None:
    """One step of several courses. Their prompts are made once, and the model's gradient goes back into them.

    Rows of like length share a part, which saves padding.
    """
    batches = [course.begin() for course in courses]
    device = courses[0].model.backbone.device
    made = [course.model.prompts_of(batch.task_ids) for course, batch in zip(courses, batches, strict=True)]
    prompts = torch.cat([one for one in made if one is not None])
    weights = torch.cat([prompts.new_full((len(one.sources),), 1 / one.target_tokens) for one in batches])
    leaf, losses = prompts.detach().requires_grad_(), torch.zeros(len(weights))
    rows = join(batches)
    for places in _parts(courses, rows):
        part = rows.pick(places).to(device)
        own = leaf.index_select(0, torch.tensor(places, device=device))
        value = _row_losses(courses[0].model, part, own) * weights[places]
        torch.autograd.backward(value.sum())
        losses[places] = value.detach().cpu().float()
    torch.autograd.backward(prompts, leaf.grad)
    sizes = [len(batch.sources) for batch in batches]
    for course, batch, own in zip(courses, batches, torch.split(losses, sizes), strict=True):
        course.end({"loss": float(own.sum()), "lm": float(own.sum())}, batch.padding)


def _row_losses(model: TunedModel, part: Batch, prompts: Tensor) -> Tensor:
    """The loss of every row `[B]` under its own prompt (nats)."""
    state = model.backbone.read(part.sources)
    with model.backbone.mode(dropout=False):
        logits = model.backbone.forward(state, prompts, part.labels).logits
    return lm_loss_rows(logits, part.labels)


def _parts(courses: list[Course], rows: Batch) -> Iterator[list[int]]:
    """Places of the rows of each pass, shorter texts first, of about as many tokens as fill the device."""
    backbone = courses[0].model.backbone
    tokens = part_tokens(backbone.device)
    optims = [course.optim for course in courses]
    limits = [one.micro_batch for one in optims if one.micro_batch and one.micro_batch < one.batch_size]
    most = max(1, min([tokens // tokens_of_row(courses[0].model, rows), *limits]))
    order = sorted(range(len(rows.sources)), key=lambda i: len(rows.sources[i]))
    parts = -(-len(order) // most)
    for part in range(parts):
        yield order[part * len(order) // parts : (part + 1) * len(order) // parts]


def part_tokens(device: torch.device) -> int:
    """How many tokens of a pass with gradient fill a device."""
    return PART_TOKENS.get(device.type, PART_TOKENS_ELSEWHERE)


def tokens_of_row(model: TunedModel, rows: Batch) -> int:
    """How many tokens of a row the model computes in a step, at most."""
    texts = 0 if model.backbone.keeps_texts else max(map(len, rows.sources))
    length = 0 if model.prompts is None else model.prompts.length
    return int(length + rows.labels.shape[1] + texts)


def _check_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise NumericError(
            f"the {what} is {value}",
            where=f"step {step + 1}",
            fix="lower optim.lr; with bfloat16 weights, try base.dtype: float32",
            code="N01",
        )


def _check_norm(model: TunedModel, step: int, hooks: Hooks) -> None:
    """Warn of prompts far larger than embeddings, and stop where they have exploded."""
    if model.prompts is None:
        return
    with torch.no_grad():
        prompts = model.prompts(torch.arange(len(model.tasks), device=model.backbone.device))
    ratio = float(prompts.pow(2).mean().sqrt()) / model.backbone.scale
    if not math.isfinite(ratio) or ratio > STOP_NORM:
        raise NumericError(
            f"the prompt has exploded: its entries are {ratio:,.0f} times the size of embeddings",
            where=f"step {step}",
            fix="lower optim.lr",
            code="N03",
        )
    if ratio > WARN_NORM:
        hooks.warn(f"step {step}: prompt entries are {ratio:.0f} times the size of embeddings")


def _is_due(step: int, optim: OptimConfig) -> bool:
    return optim.eval_every is not None and (step % optim.eval_every == 0 or step == optim.steps)
