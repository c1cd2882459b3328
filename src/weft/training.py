"""One training loop for every method and stage: what differs comes in as a loss and as batches."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from weft.batch import Batch
from weft.config import OptimConfig
from weft.data import Batches
from weft.errors import ConfigError, NumericError
from weft.losses import lm_loss_sum
from weft.model import TunedModel

WARN_NORM, STOP_NORM = 50.0, 1000.0


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
    """All that a run needs to go on from a step, but the parameters and the optimiser."""

    step: int = 0
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
        save: called after every step with a function that makes its checkpoint.
    """

    log: Callable[[dict[str, int | float]], None] = lambda line: None
    warn: Callable[[str], None] = lambda text: None
    save: Callable[[Callable[[], Checkpoint]], None] = lambda make: None


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
) -> Progress:
    """Train in place, and leave the model in the state to keep.

    Args:
        model: what is trained: the parameters in `model.trained`, and nothing else.
        batches: the batch of any step.
        loss: what is minimised.
        optim: rates, lengths, clipping.
        validate: score on dev rows, the higher the better; called every `optim.eval_every` steps.
        hooks: log lines, warnings, checkpoints.
        resume: where an earlier process stopped.
        seed: of the dropout of every step, with the step's number.

    Raises:
        NumericError: at the step where the loss or a gradient is no number, or a prompt has exploded.
    """
    hooks = hooks or Hooks()
    optimizer = make_optimizer(model, optim)
    progress, best = Progress(), model.state()
    if resume is not None:
        progress, best = resume.progress, resume.best
        model.load_state(resume.trained)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": resume.optimizer})
    scale = prompt_scale(model)
    while progress.step < optim.steps and not _out_of_patience(progress, optim):
        with _seeded(model, seed, progress.step):
            terms = _step(model, batches(progress.step), loss, optim, optimizer, progress.step)
        progress.step += 1
        _check_norm(model, scale, progress.step, hooks)
        if validate is not None and _is_due(progress.step, optim):
            best = _judge(model, validate(), progress, best)
            terms["dev"] = progress.scores[-1][1]
        hooks.log({"step": progress.step, **terms})
        hooks.save(partial(_checkpoint, model, optimizer, progress, best))
    if progress.scores and optim.keep == "best":
        model.load_state(best)
    return progress


@contextmanager
def _seeded(model: TunedModel, seed: int, step: int) -> Iterator[None]:
    """Dropout, where it is on, is a function of seed and step, so that a resumed run draws the same."""
    if not model.dropout:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
        yield


def _checkpoint(
    model: TunedModel, optimizer: torch.optim.Optimizer, progress: Progress, best: dict[str, Tensor]
) -> Checkpoint:
    return Checkpoint(progress, model.state(), best, optimizer.state_dict()["state"])


def _step(
    model: TunedModel,
    batch: Batch,
    loss: Loss,
    optim: OptimConfig,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> dict[str, float]:
    """One optimiser step, its rows in micro-batches whose losses add up to the whole."""
    factor = rate_factor(step, optim)
    for group in optimizer.param_groups:
        group["lr"] = optim.lr[group["name"]] * factor
    optimizer.zero_grad(set_to_none=True)
    totals = Totals(len(batch.sources), batch.target_tokens)
    terms: dict[str, float] = {}
    for part in batch.split(optim.micro_batch or optim.batch_size):
        value, logged = loss(model, part.to(model.backbone.device), totals)
        torch.autograd.backward(value)
        logged = {"loss": float(value.detach()), **logged}
        terms = {name: terms.get(name, 0.0) + number for name, number in logged.items()}
    _check_finite("loss", terms["loss"], step)
    parameters = [parameter for group in model.trained.values() for parameter in group]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, optim.clip))
    _check_finite("gradient", norm, step)
    optimizer.step()
    return {**terms, "gradient": norm, "rate": factor}


def _check_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise NumericError(
            f"the {what} is {value}",
            where=f"step {step + 1}",
            fix="lower optim.lr; with bfloat16 weights, try base.dtype: float32",
            code="N01",
        )


def prompt_scale(model: TunedModel) -> float:
    """Root mean square of the embedding matrix, the natural size of a prompt's entries."""
    return float(model.backbone.embeddings.detach().float().pow(2).mean().sqrt())


def _check_norm(model: TunedModel, scale: float, step: int, hooks: Hooks) -> None:
    """Warn of prompts far larger than embeddings, and stop where they have exploded."""
    if model.prompts is None:
        return
    with torch.no_grad():
        prompts = model.prompts(torch.arange(len(model.tasks), device=model.backbone.device))
    ratio = float(prompts.pow(2).mean().sqrt()) / scale
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


def _judge(model: TunedModel, score: float, progress: Progress, best: dict[str, Tensor]) -> dict[str, Tensor]:
    """Record a dev score; the state to keep is the earliest with the highest score."""
    progress.scores.append((progress.step, score))
    if progress.best is None or score > progress.best:
        progress.best, progress.best_step, progress.stale = score, progress.step, 0
        return model.state()
    progress.stale += 1
    return best


def _out_of_patience(progress: Progress, optim: OptimConfig) -> bool:
    return optim.patience is not None and progress.stale >= optim.patience
