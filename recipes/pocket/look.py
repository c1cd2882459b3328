"""How much of each kind of example a model has learned, on examples that it was not trained on."""

from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from recipes.pocket import shards, train
from recipes.pocket.batches import Batches, Rows
from recipes.pocket.examples import kind_of
from weft.data.batch import IGNORE


@dataclass(frozen=True)
class Learned:
    """Of one task.

    Attributes:
        rows: how many were looked at.
        loss: nats a token, the mean of the rows' means.
        right: percent of rows whose every token, its end included, is the likeliest after those before it.
    """

    rows: int
    loss: float
    right: float


@torch.no_grad()
def look(trainer: train.Trainer, shard: shards.Shard, batches: int) -> dict[str, Learned]:
    """Losses and right answers under each task's soft prompt; instructions count as one task.

    Args:
        trainer: with the prompts of the tasks in the shard it was trained on.
        shard: other examples of the same tasks.
        batches: how many.
    """
    way = trainer.way
    order = Batches(shard, 32, 0, way.begin, way.end, way.tokenizer.pad_token_id)
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for step in range(batches):
        rows = order.at(step, told=False)
        for number, one in zip(rows.task.tolist(), _rows(trainer, rows), strict=True):
            found[kind_of(shard.names[number])].append(one)
    return {name: _learned(rows) for name, rows in sorted(found.items())}


def _rows(trainer: train.Trainer, rows: Rows) -> list[tuple[float, bool]]:
    logits = trainer.forward(rows, trainer.soft[rows.task, : train.SOFT // 2]).logits
    counted = rows.labels != IGNORE
    losses = F.cross_entropy(logits.transpose(1, 2), rows.labels, reduction="none").sum(1) / counted.sum(1)
    right = ((logits.argmax(-1) == rows.labels) | ~counted).all(1)
    return list(zip(losses.tolist(), right.tolist(), strict=True))


def _learned(rows: list[tuple[float, bool]]) -> Learned:
    count = len(rows)
    return Learned(
        count, sum(loss for loss, _ in rows) / count, 100 * sum(right for _, right in rows) / count
    )
