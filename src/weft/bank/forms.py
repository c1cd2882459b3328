"""How the numbers of a task lie in a row: factors of a shared prompt, a plain prompt, or a record of bytes.

All numbers are little-endian: float32, or bfloat16 as the upper half of a float32. Loads without torch.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["factors", "prompt", "readers"]
Dtype = Literal["float32", "bfloat16"]
Numbers = NDArray[np.float32]
WIDTHS: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}  # bytes of a number


@dataclass(frozen=True)
class Form:
    """How every row of a shard lies there.

    Attributes:
        kind: what a row is.
        shape: factors: `(l, R, d)`, u `[l, R]` before v `[R, d]`; a prompt: `(P, D)`; readers: `()`.
        dtype: of the numbers; a reader's record says its own.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: Dtype

    @property
    def row_bytes(self) -> int:
        """Of a row; 0 for records, which are of unlike length."""
        return self.numbers * WIDTHS[self.dtype]

    @property
    def numbers(self) -> int:
        """How many a row has."""
        if self.kind == "factors":
            length, rank, width = self.shape
            return (length + width) * rank
        return math.prod(self.shape) if self.kind == "prompt" else 0

    def split(self, rows: Any) -> tuple[Any, Any]:
        """u `[B, l, R]` and v `[B, R, d]` of rows of factors `[B, numbers]`."""
        length, rank, width = self.shape
        u, v = rows[:, : length * rank], rows[:, length * rank :]
        return u.reshape(-1, length, rank), v.reshape(-1, rank, width)


def encoded(values: Any, dtype: Dtype) -> bytes:
    """Numbers as they lie in a file; bfloat16 is rounded to the nearest, of two to the even one."""
    whole = np.ascontiguousarray(values, "<f4")
    if dtype == "float32":
        return bytes(whole.tobytes())
    bits = whole.view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return bytes(rounded.astype("<u2").tobytes())


def decoded(data: Any, dtype: Dtype) -> Numbers:
    """The numbers of some bytes, flat, as float32."""
    if dtype == "float32":
        return np.frombuffer(data, "<f4")
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def composed(shared: Numbers, u: Numbers, v: Numbers) -> Numbers:
    """The prompts `shared * (u @ v)`: `[l, d]`, `[..., l, R]`, `[..., R, d]` -> `[..., l, d]`.

    Of rank one it is one product for each entry, so equal to the bit wherever it is computed.
    """
    found: Numbers = shared * (u * v if u.shape[-1] == 1 else u @ v)
    return found
