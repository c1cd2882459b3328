"""Tokenised examples, and batches of them.

Letters in shapes, here and everywhere: B rows of a batch, S text tokens, P prompt tokens, T target tokens,
N positions that a model sees, D embedding size, K tasks, R rank, V vocabulary, C answer choices, L layers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

IGNORE = -100
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """One example as token ids; the target ends with the end token."""

    source: Tokens
    target: Tokens


@dataclass(frozen=True)
class Batch:
    """Rows of one or several tasks.

    Attributes:
        sources: token ids of the texts, unpadded; the backbone pads on the side it needs.
        labels: target token ids, padded on the right with -100.
        task_ids: position of each row's task in the run's task list.
    """

    sources: tuple[Tokens, ...]
    labels: Int[Tensor, "B T"]
    task_ids: Int[Tensor, " B"]

    @property
    def target_tokens(self) -> int:
        """Number of tokens that carry loss."""
        return int((self.labels != IGNORE).sum())

    @property
    def padding(self) -> float:
        """Share of the source positions that are padding, were the texts padded to the longest."""
        longest = max(map(len, self.sources))
        return 1 - sum(map(len, self.sources)) / (longest * len(self.sources))

    def split(self, size: int) -> list["Batch"]:
        """The same rows in pieces of at most `size`."""
        starts = range(0, len(self.sources), size)
        return [
            Batch(self.sources[i : i + size], self.labels[i : i + size], self.task_ids[i : i + size])
            for i in starts
        ]

    def pick(self, places: Sequence[int]) -> "Batch":
        """Some of the rows, with as many target columns as they need."""
        labels = self.labels[list(places)]
        longest = int((labels != IGNORE).sum(1).max()) if places else 0
        sources = tuple(self.sources[place] for place in places)
        return Batch(sources, labels[:, :longest].contiguous(), self.task_ids[list(places)])

    def share(self, rank: int, size: int) -> "Batch":
        """Every `size`-th row from row `rank` on, or none: what one of so many processes works on."""
        return self if size == 1 else self.pick(range(rank, len(self.sources), size))

    def to(self, device: torch.device) -> "Batch":
        """The same batch, its tensors on a device."""
        return Batch(self.sources, self.labels.to(device), self.task_ids.to(device))


def by_length(sources: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Places of texts, so many at once and the shortest first: of like length, which saves padding."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def collate(examples: Sequence[Encoded], task_ids: Sequence[int]) -> Batch:
    """Examples and their tasks as one batch.

    Raises:
        ValueError: if an example has no target token: it would carry no loss.
    """
    if not all(example.target for example in examples):
        raise ValueError("an example has no target token")
    longest = max(len(example.target) for example in examples)
    labels = torch.full((len(examples), longest), IGNORE, dtype=torch.long)  # contiguous, as T5 needs
    for row, example in enumerate(examples):
        labels[row, : len(example.target)] = torch.tensor(example.target)
    return Batch(tuple(example.source for example in examples), labels, torch.tensor(list(task_ids)))


def join(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches, one after the other; task ids stay as they are in each."""
    longest = max(batch.labels.shape[1] for batch in batches)
    labels = [F.pad(batch.labels, (0, longest - batch.labels.shape[1]), value=IGNORE) for batch in batches]
    sources = tuple(source for batch in batches for source in batch.sources)
    return Batch(sources, torch.cat(labels), torch.cat([batch.task_ids for batch in batches]))
