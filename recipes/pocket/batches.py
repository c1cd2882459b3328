"""Batches of a shard: rows of like length together, the same at the same step whatever came before."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recipes.pocket.shards import Shard
from weft.data.batch import IGNORE

POOL = 32  # batches whose rows are put in order of length
LONG_ANSWER = 6  # tokens; longer ones stand in batches of their own, because the output layer is dear


@dataclass(frozen=True)
class Rows:
    """A batch.

    Attributes:
        ids, mask: sources with their special tokens `[B, S]`.
        labels: targets with the end token, IGNORE beyond `[B, T]`.
        task: number of each row's task `[B]`.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    task: Tensor


@dataclass
class Batches:
    """Which rows stand in the batch of a step.

    Args:
        shard: examples.
        size: rows of a batch.
        seed: of the order.
        begin, end: special tokens around a source.
        pad: fills rows up.
        chosen: numbers of the examples that are used; none: all.
    """

    shard: Shard
    size: int
    seed: int
    begin: int
    end: int
    pad: int
    chosen: np.ndarray | None = None
    _epoch: int = -1
    _order: np.ndarray = field(default_factory=lambda: np.empty(0, int))

    def rows(self, step: int) -> np.ndarray:
        """Numbers of the examples of a step's batch."""
        of_epoch = len(self._chosen) // self.size
        epoch, batch = divmod(step, of_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._ordered(epoch, of_epoch)
        return self._order[batch]

    def at(self, step: int, *, told: bool) -> Rows:
        """A step's batch.

        Args:
            step: from 0.
            told: begin sources with their task's instruction.
        """
        shard, numbers = self.shard, self.rows(step)
        words = [shard.told[shard.task[i]] if told else [] for i in numbers]
        sources = [
            [self.begin, *say, *shard.source(i), self.end] for say, i in zip(words, numbers, strict=True)
        ]
        targets = [[*shard.target(i), self.end] for i in numbers]
        ids = padded(sources, self.pad)
        mask = padded([[1] * len(row) for row in sources], 0)
        return Rows(
            ids, mask, padded(targets, IGNORE), torch.from_numpy(shard.task[numbers].astype(np.int64))
        )

    @property
    def _chosen(self) -> np.ndarray:
        return np.arange(len(self.shard)) if self.chosen is None else self.chosen

    def _ordered(self, epoch: int, count: int) -> np.ndarray:
        """An epoch's batches: rows drawn, sorted in pools (short answers, then long), batches drawn again."""
        draw = np.random.default_rng([self.seed, epoch])
        rows = draw.permutation(self._chosen)[: count * self.size]
        pools = [rows[i : i + POOL * self.size] for i in range(0, len(rows), POOL * self.size)]
        writes = self.shard.target_lengths > LONG_ANSWER
        ordered = np.concatenate(
            [pool[np.lexsort((self.shard.lengths[pool], writes[pool]))] for pool in pools]
        )
        return draw.permutation(ordered.reshape(count, self.size))


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of unlike length as one tensor, filled on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])
