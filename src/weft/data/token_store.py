"""Rows as flat arrays of tokens, and the files in which those of large tasks are kept, mapped into memory.

    <folder>/<key>-<SHA-256 of the bytes>.tokens     int64: rows, source tokens, target tokens, cut texts;
                                                     int64: where each row's source ends, then its target;
                                                     int32: all sources, then all targets

The key says of what the rows were made; the file's name proves its bytes, and a damaged file is made anew.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np

from weft import storage
from weft.data.batch import Encoded, Tokens
from weft.errors import ResourceError

SUFFIX = ".tokens"
KEY_LETTERS = 32
HEAD = 4

Array = np.ndarray[tuple[int], np.dtype[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class TokenRows(Sequence[Encoded]):
    """Rows of tokens in two flat arrays; a row is made when it is asked for.

    Attributes:
        source_ends: where each row's source ends among all sources, int64 `[rows]`.
        target_ends: the same of targets.
        sources: all source tokens, int32.
        targets: all target tokens, int32.
    """

    source_ends: Array
    target_ends: Array
    sources: Array
    targets: Array

    @classmethod
    def of(cls, rows: Iterable[Encoded]) -> "TokenRows":
        """Rows as arrays."""
        sources, targets = array("i"), array("i")
        source_ends, target_ends = array("q"), array("q")
        for row in rows:
            sources.extend(row.source)
            targets.extend(row.target)
            source_ends.append(len(sources))
            target_ends.append(len(targets))
        ends = (np.array(one, dtype=np.int64) for one in (source_ends, target_ends))
        return cls(*ends, *(np.array(one, dtype=np.int32) for one in (sources, targets)))

    @classmethod
    def joined(cls, parts: Sequence["TokenRows"]) -> "TokenRows":
        """Rows of several, one after the other; at least one."""
        starts = [(0, 0), *accumulate(((len(p.sources), len(p.targets)) for p in parts), _both)][:-1]
        return cls(
            np.concatenate(
                [part.source_ends + start for part, (start, _) in zip(parts, starts, strict=True)]
            ),
            np.concatenate(
                [part.target_ends + start for part, (_, start) in zip(parts, starts, strict=True)]
            ),
            np.concatenate([part.sources for part in parts]),
            np.concatenate([part.targets for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.source_ends)

    @overload
    def __getitem__(self, place: int) -> Encoded: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Encoded, ...]: ...

    def __getitem__(self, place: int | slice) -> Encoded | tuple[Encoded, ...]:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        row = range(len(self))[place]
        return Encoded(_row(self.sources, self.source_ends, row), _row(self.targets, self.target_ends, row))

    def __repr__(self) -> str:
        """Tells rows of other content apart, however many there are."""
        return f"TokenRows({len(self)} rows, SHA-256 {storage.sha256_bytes(b''.join(self._parts()))})"

    @property
    def lengths(self) -> Array:
        """Number of source tokens of every row."""
        return np.diff(self.source_ends, prepend=0)

    def to_bytes(self, cut: int) -> bytes:
        """The rows as a file holds them, with the number of texts that were cut."""
        head = np.array([len(self), len(self.sources), len(self.targets), cut], dtype=np.int64)
        return b"".join([head.tobytes(), *self._parts()])

    def _parts(self) -> list[bytes]:
        arrays = (self.source_ends, self.target_ends, self.sources, self.targets)
        return [np.ascontiguousarray(one).tobytes() for one in arrays]


def _both(start: tuple[int, int], sizes: tuple[int, int]) -> tuple[int, int]:
    return start[0] + sizes[0], start[1] + sizes[1]


def _row(tokens: Array, ends: Array, row: int) -> Tokens:
    return tuple(tokens[ends[row - 1] if row else 0 : ends[row]].tolist())


@dataclass(frozen=True)
class TokenStore:
    """A folder of such files; it is made when the first is written."""

    folder: Path

    def get(self, key: str) -> tuple[TokenRows, int] | None:
        """Rows, mapped into memory, and how many texts were cut; none if they are not there, or damaged."""
        for path in sorted(self.folder.glob(f"{key[:KEY_LETTERS]}-*{SUFFIX}")):
            if _proven(path):
                return _mapped(path)
        return None

    def put(self, key: str, rows: TokenRows, cut: int) -> tuple[TokenRows, int]:
        """Keep rows, and give them back mapped; as they are, where the disk refuses."""
        try:
            for damaged in self.folder.glob(f"{key[:KEY_LETTERS]}-*{SUFFIX}"):
                storage.remove(damaged)
            storage.write_proven(self.folder, key[:KEY_LETTERS], SUFFIX, rows.to_bytes(cut))
        except ResourceError:  # the run goes on without; what it must write will say so itself
            return rows, cut
        return self.get(key) or (rows, cut)


def _proven(path: Path) -> bool:
    try:
        return storage.is_proven(path)
    except OSError:
        return False


def _mapped(path: Path) -> tuple[TokenRows, int]:
    """The arrays of a file whose bytes are proven."""
    raw = np.memmap(path, np.uint8, "r")
    size = HEAD * 8
    rows, sources, targets, cut = (int(one) for one in raw[:size].view(np.int64))
    bounds = list(accumulate([rows * 8, rows * 8, sources * 4, targets * 4], initial=size))
    kinds = (np.int64, np.int64, np.int32, np.int32)
    parts = [raw[a:b].view(kind) for a, b, kind in zip(bounds, bounds[1:], kinds, strict=False)]
    return TokenRows(*parts), cut


def key_of(about: Sequence[object], texts: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of what rows are made of: tokenizer, limits, and every text with its answer."""
    digest = hashlib.sha256(storage.canonical_json([*about, "rows 1"]))
    for source, target in texts:
        digest.update(f"{len(source)} {len(target)} {source}{target}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
