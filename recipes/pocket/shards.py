"""Examples as token ids: flat arrays with offsets in one safetensors file, as small as they can be sent."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from recipes.pocket.examples import Example, kind_of

MOST_SOURCE, MOST_TARGET = 96, 24  # tokens
CHUNK = 4096


@dataclass(frozen=True)
class Shard:
    """Examples as tokens, without the tokenizer's special ones.

    Attributes:
        sources, targets: ids of all examples one after another, as uint16.
        source_ends, target_ends: where each example's ids end.
        task: number of each example's task.
        told: ids of every task's instruction.
        names: of the tasks.
    """

    sources: np.ndarray
    targets: np.ndarray
    source_ends: np.ndarray
    target_ends: np.ndarray
    task: np.ndarray
    told: list[list[int]]
    names: list[str]

    def __len__(self) -> int:
        return len(self.task)

    def source(self, i: int) -> list[int]:
        """Ids of an example's source."""
        return _part(self.sources, self.source_ends, i)

    def target(self, i: int) -> list[int]:
        """Ids of an example's target."""
        return _part(self.targets, self.target_ends, i)

    def of(self, kinds: Collection[str], longest: int) -> np.ndarray:
        """Numbers of the examples of some kinds whose target has so many ids at most.

        Args:
            kinds: tasks by name; instruction: all that are told in the words of others. None: every kind.
            longest: ids of a target.
        """
        wanted = np.array([not kinds or kind_of(name) in kinds for name in self.names])
        return np.flatnonzero(wanted[self.task] & (self.target_lengths <= longest))

    @property
    def lengths(self) -> np.ndarray:
        """Ids of every source."""
        return np.diff(self.source_ends.astype(np.int64), prepend=0)

    @property
    def target_lengths(self) -> np.ndarray:
        """Ids of every target."""
        return np.diff(self.target_ends.astype(np.int64), prepend=0)


def write(path: Path, examples: Iterable[Example], told: Mapping[str, str], tokenizer: Any) -> None:
    """Tokenise examples and write them; `path` gets .safetensors and .json.

    Args:
        path: without suffix.
        examples: what to write.
        told: the instruction of every task there is; their order by name is that of the soft prompts.
        tokenizer: of the model to train.
    """
    every = list(examples)
    number = {name: i for i, name in enumerate(sorted(told))}
    arrays = {"task": np.array([number[one.task] for one in every], np.uint16)}
    for side, most in (("source", MOST_SOURCE), ("target", MOST_TARGET)):
        rows = _tokens([getattr(one, side) for one in every], tokenizer, most)
        arrays[f"{side}s"] = np.array([token for row in rows for token in row], np.uint16)
        arrays[f"{side}_ends"] = np.cumsum([len(row) for row in rows]).astype(np.uint32)
    save_file(arrays, path.with_suffix(".safetensors"))
    names = sorted(told)
    words = {"names": names, "told": _tokens([told[name] for name in names], tokenizer, MOST_SOURCE)}
    path.with_suffix(".json").write_text(json.dumps(words) + "\n")


def read(path: Path) -> Shard:
    """What `write` wrote."""
    return Shard(
        **load_file(path.with_suffix(".safetensors")), **json.loads(path.with_suffix(".json").read_text())
    )


def _tokens(texts: Sequence[str], tokenizer: Any, most: int) -> list[list[int]]:
    found: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        found += tokenizer(part, add_special_tokens=False)["input_ids"]
    return [row[:most] for row in found]


def _part(ids: np.ndarray, ends: np.ndarray, i: int) -> list[int]:
    begin = int(ends[i - 1]) if i else 0
    return [int(one) for one in ids[begin : int(ends[i])]]
