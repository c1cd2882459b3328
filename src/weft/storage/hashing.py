"""SHA-256 of bytes, files and JSON values, and JSON that every reader reads alike."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

READ_CHUNK = 1 << 20
HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # of the two halves that JSON may write a rare character as


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """One spelling of a JSON value, for hashing: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return sha256_bytes(canonical_json(value))


def strict_json(data: bytes) -> Any:
    """A JSON value, read so that every reader sees the same: no key twice, no NaN or infinity, all text.

    Raises:
        ValueError: if it is not such a value.
    """
    text = data.decode()
    try:
        value = json.loads(
            text, object_pairs_hook=_no_twins, parse_constant=_no_constant, parse_float=_finite
        )
        if HALF_PAIR.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # fails where the other half is missing
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text} is too large")
    return value
