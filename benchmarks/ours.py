"""weft's side of a comparison: its own training loop and its own answers, as its stages call them."""

from collections.abc import Callable, Sequence

import torch

from weft.config.training import FactorConfig, OptimConfig, PromptConfig
from weft.data.batch import Batch, Encoded, collate
from weft.data.encoding import EncodedTask
from weft.data.sampling import EpochBatches, ReadAhead, pool_size
from weft.losses.objective import Loss, lm_loss
from weft.losses.terms import lm_loss_sum
from weft.models import Backbone
from weft.models.fresh_prompt import fresh_prompt
from weft.models.tuned import TunedModel, with_prompts
from weft.prompts.bank import PromptBank, new_bank
from weft.tasks import Task
from weft.training.course import Course
from weft.training.loop import fit

FIRST = torch.zeros(1, dtype=torch.long)  # the task id of a batch of one row


def bank(backbone: Backbone, length: int, tasks: tuple[str, ...] = ("task",)) -> PromptBank:
    """A shared prompt of vocabulary embeddings, with factors for each task."""
    shared = fresh_prompt(backbone, PromptConfig(length=length), seed=0)
    return new_bank(shared, FactorConfig(), tasks, seed=0)


def prompts(backbone: Backbone, length: int, tasks: int) -> TunedModel:
    """A model with a plain prompt for each of several tasks."""
    config = PromptConfig(length=length)
    starts = [fresh_prompt(backbone, config, seed=seed) for seed in range(tasks)]
    return with_prompts(backbone, torch.stack(starts), tuple(f"task-{k}" for k in range(tasks)))


def train(
    model: TunedModel,
    rows: Sequence[Encoded],
    size: int,
    *,
    loss: Loss = lm_loss,
    teach: Callable[[Sequence[Batch]], None] | None = None,
) -> None:
    """One epoch of a task's rows in steps of `size`, as a training run takes them."""
    backbone, steps = model.backbone, -(-len(rows) // size)
    task = EncodedTask("task", tuple(rows))
    batches = EpochBatches((task,), size, seed=0, pool=pool_size(None, backbone))
    optim = OptimConfig(lr=dict.fromkeys(model.trained, 0.05), steps=steps, batch_size=size)
    fit(model, ReadAhead(batches, backbone.prepare, steps, teach=teach), loss, optim)


def steps(model: TunedModel, batches: Sequence[Sequence[Encoded]]) -> None:
    """A training step of each of some batches."""
    made = [collate(rows, [0] * len(rows)) for rows in batches]
    rates = dict.fromkeys(model.trained, 0.05)
    optim = OptimConfig(lr=rates, steps=len(made), batch_size=len(batches[0]))
    fit(model, made.__getitem__, lm_loss, optim)


def courses(models: Sequence[TunedModel], rows: Sequence[Sequence[Encoded]], size: int) -> list[Course]:
    """Trainings of one epoch each, ready to go through the frozen model alone or together."""
    found = []
    for model, own in zip(models, rows, strict=True):
        optim = OptimConfig(lr=dict.fromkeys(model.trained, 0.05), steps=len(own) // size, batch_size=size)
        pool = pool_size(None, model.backbone)
        batches = EpochBatches((EncodedTask("task", tuple(own)),), size, seed=0, pool=pool)
        found.append(Course(model, batches, lm_loss, optim))
    return found


def closed(name: str, choices: Sequence[str]) -> Task:
    """A task that has answers and no rows."""
    return Task(name, lambda split: [], lambda row: [], lambda row: "", {}, choices=tuple(choices))


@torch.no_grad()
def loss(model: TunedModel, batch: Batch) -> float:
    """Mean cross-entropy of a batch's target tokens."""
    return float(lm_loss_sum(model(batch).logits, batch.labels)) / batch.target_tokens
