"""One training: what is trained, its optimiser, clipping, rates, dev scores and end."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from weft.config.training import OptimConfig
from weft.data.batch import Batch
from weft.data.sampling import Batches
from weft.errors import ConfigError, NumericError
from weft.losses.objective import Loss
from weft.models.tuned import STOP_NORM, TunedModel

WARN_NORM = 50.0


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
    """What the learning rates are multiplied by at a step: linear rise from 0, then linear fall to 0.

    As transformers' `get_linear_schedule_with_warmup`: with a warm-up the first step has rate 0.
    """
    warm = round(optim.warmup * optim.steps)
    if step < warm:
        return step / warm
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
        terms: names of what the loss is made of, where several processes add it up.
    """

    model: TunedModel
    batches: Batches
    loss: Loss
    optim: OptimConfig
    validate: Callable[[], float] | None = None
    hooks: Hooks = field(default_factory=Hooks)
    seed: int = 0
    error: NumericError | None = None
    terms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.model, self.optim)
        self.progress, self.best = Progress(), self.model.state()

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        patience = self.optim.patience
        stale = patience is not None and self.progress.stale >= patience
        return self.error is not None or stale or self.progress.step >= self.optim.steps

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained, group after group."""
        return [parameter for group in self.model.trained.values() for parameter in group]

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
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.optim.clip))
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
        vectors = model.prompts.vectors()
    ratio = float(vectors.pow(2).mean().sqrt()) / model.backbone.scale
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
