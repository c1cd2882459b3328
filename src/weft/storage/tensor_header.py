"""The header of a safetensors file, read strictly, and the numbers behind it. Loads without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weft.errors import ArtifactError
from weft.storage.hashing import strict_json

PROMPTS, WEIGHTS = "prompts.safetensors", "weights.safetensors"
LARGEST = {PROMPTS: 64 << 20, WEIGHTS: 64 << 30}  # bytes of the file
LARGEST_HEADER = {PROMPTS: 64 << 10, WEIGHTS: 4 << 20}
LARGEST_OF_MODELS = 100_000_000  # bytes of a header that the format itself allows
DTYPES = {"F32": 4, "BF16": 2, "F16": 2}  # name in the header -> bytes of a number
WITH_BYTES = {**DTYPES, "U8": 1}
Numbers = np.ndarray[Any, np.dtype[Any]]
LARGEST_VALUE = 1e6  # embeddings have entries near 1; what trains further than this has diverged


@dataclass(frozen=True)
class Entry:
    """One tensor of a safetensors header: number format, shape, and where its bytes lie in the buffer."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def header(data: bytes, limit: int) -> tuple[dict[str, Any], int]:
    """The JSON header of safetensors bytes, and where the numbers begin.

    Raises:
        ValueError: if it is not exactly that.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(limit, len(data) - 8):
        raise ValueError(f"its header says {size:,} bytes; the file has {len(data):,}")
    text = data[8 : 8 + size]
    if text[:1] != b"{" or len(text) - len(text.rstrip(b" ")) >= 8:
        raise ValueError("its header is not a JSON object")
    return _object(text), 8 + size


def header_of(file: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a model's safetensors file, and where the numbers begin, which are not read.

    Raises:
        ValueError: if it is no such file, or its numbers are not all there.
    """
    there = file.stat().st_size
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if not 2 <= size <= min(LARGEST_OF_MODELS, there - 8):
            raise ValueError(f"its header says {size:,} bytes; the file has {there:,}")
        lines = _object(opened.read(size))
    promised = (
        8 + size + max((_end(line) for name, line in lines.items() if name != "__metadata__"), default=0)
    )
    if promised != there:
        raise ValueError(f"its header promises {promised:,} bytes; the file has {there:,}")
    return lines, 8 + size


def _object(text: bytes) -> dict[str, Any]:
    found = strict_json(text)
    if not isinstance(found, dict):
        raise ValueError("its header is not a JSON object")
    return found


def _end(line: Any) -> int:
    """Where a tensor's bytes end; its number format may be any."""
    offsets: Any = line.get("data_offsets") if isinstance(line, dict) else None
    if not _are_counts(offsets, least=0, most=2) or len(offsets) != 2:
        raise ValueError("a tensor of its header has no data_offsets")
    return int(offsets[1])


def entry_of(value: Any, kinds: Mapping[str, int] = DTYPES) -> Entry:
    """One tensor's line of a header.

    Args:
        value: the line.
        kinds: number formats that it may have, and bytes of a number.

    Raises:
        ValueError: if it is not of the known form, or its bytes are not as many as its numbers need.
    """
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("a tensor needs dtype, shape and data_offsets, and nothing else")
    shape, offsets = value["shape"], value["data_offsets"]
    if not _are_counts(shape, least=1, most=8) or not _are_counts(offsets, least=0, most=2):
        raise ValueError("shape and data_offsets must be short lists of whole numbers")
    if not isinstance(value["dtype"], str) or value["dtype"] not in kinds or len(offsets) != 2:
        raise ValueError(f"its numbers are {str(value['dtype'])[:20]!r}, not one of {', '.join(kinds)}")
    entry = Entry(value["dtype"], tuple(shape), *offsets)
    if entry.end - entry.begin != math.prod(shape) * kinds[entry.dtype]:
        raise ValueError(f"shape {shape} does not fill bytes {entry.begin} to {entry.end}")
    return entry


def _are_counts(values: Any, *, least: int, most: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(one) is int and one >= least for one in values)
    )


def numbers_of(data: bytes, start: int, entry: Entry) -> Numbers:
    """A tensor's values as fp32, in its shape; bytes as they are."""
    count = math.prod(entry.shape)
    if entry.dtype == "U8":
        return np.frombuffer(data, np.uint8, count, start + entry.begin).reshape(entry.shape)
    if entry.dtype == "BF16":  # the upper half of an fp32
        halves = np.frombuffer(data, "<u2", count, start + entry.begin)
        return (halves.astype("<u4") << 16).view("<f4").reshape(entry.shape)
    kind = "<f4" if entry.dtype == "F32" else "<f2"
    values = np.frombuffer(data, kind, count, start + entry.begin)
    return values.astype("<f4", copy=False).reshape(entry.shape)


def largest(values: Numbers, what: str) -> float:
    """The largest size of some numbers.

    Raises:
        ArtifactError: if one is no number, or they are beyond all that training gives.
    """
    found = float(np.abs(values).max(initial=0))
    if not math.isfinite(found):
        raise ArtifactError(f"{what} holds values that are no numbers", code="A05")
    if found > LARGEST_VALUE:
        cause = f"{what} has entries up to {found:.3g}; at most {LARGEST_VALUE:g} are read"
        raise ArtifactError(cause, code="A06")
    return found
