"""Text that the benchmarks also hold: runs of 13 words, or a whole short text of 8 to 12.

Words are letters and digits without case, so that punctuation hides nothing. Runs are compared by a rolling
hash of 64 bits: a false alarm drops a passage that could stay, and a miss is not possible.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

Hashes = np.ndarray
RUN, SHORTEST = 13, 8  # words
WORD = re.compile(r"[a-z0-9]+")
BASE = np.uint64(0x9E3779B97F4A7C15)


class Overlap:
    """The runs of words of benchmark texts.

    Args:
        texts: every text that nothing may share a run with.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        found: dict[int, list[Hashes]] = {}
        for text in texts:
            words = numbers(text)
            if len(words) >= SHORTEST:
                size = min(len(words), RUN)
                found.setdefault(size, []).append(runs(words, size))
        self._runs = {size: np.unique(np.concatenate(parts)) for size, parts in found.items()}

    def shares(self, text: str) -> bool:
        """Whether a text holds 13 words in a row of a benchmark text, or a whole one of 8 to 12."""
        words = numbers(text)
        return any(_any_in(runs(words, size), known) for size, known in self._runs.items())


def numbers(text: str) -> np.ndarray:
    """A number for every word, the same wherever the word stands."""
    words = WORD.findall(text.lower())
    letters = [int.from_bytes(word.encode()[:8], "little") ^ len(word) for word in words]
    return np.array(letters, dtype=np.uint64)


def runs(words: np.ndarray, size: int) -> Hashes:
    """A hash of every run of `size` words; none where the text is shorter."""
    count = len(words) - size + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    found = np.zeros(count, np.uint64)
    for offset in range(size):
        found = found * BASE + words[offset : offset + count]
    return found


def _any_in(some: Hashes, known: Hashes) -> bool:
    """Whether any of some is among those known, which are in order."""
    places = np.searchsorted(known, some)
    places[places == len(known)] = 0
    return bool((known[places] == some).any())


def benchmark_texts(tasks: Path) -> Iterator[str]:
    """Every text of every validation and test file of a folder of task data."""
    for path in sorted(tasks.glob("*/*.parquet")):
        if path.stem != "train":
            yield from (text for row in pq.read_table(path).to_pylist() for text in _texts(row))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for one in value.values() for text in _texts(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in _texts(one))
