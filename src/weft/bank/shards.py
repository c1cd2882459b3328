"""Files of rows as memory: what is not used is not read. Loads without torch."""

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weft import storage
from weft.bank.forms import Form
from weft.bank.lines import Line


class Mapped:
    """The bytes of a shard as far as its generation goes; fewer where the file was cut or is lost.

    A file that is unlinked afterwards stays readable here. `behind` counts bytes that no generation has yet.

    Args:
        path: the file.
        form: of its rows.
        size: rows, or bytes of records, that are the generation's.
    """

    def __init__(self, path: Path, form: Form, size: int) -> None:
        self.path, self.form = path, form
        length, self.behind = size * (form.row_bytes or 1), 0
        try:
            with storage.open_plain(path) as file:
                size = os.fstat(file.fileno()).st_size
                there, self.behind = min(length, size), max(0, size - length)
                mapped = mmap.mmap(file.fileno(), there, access=mmap.ACCESS_READ) if there else b""
        except FileNotFoundError:
            mapped = b""
        self._bytes: mmap.mmap | bytes = mapped
        self.whole = len(self._bytes) == length

    @property
    def rows(self) -> NDArray[np.uint8]:
        """All whole rows of fixed size, as bytes `[N, row]`."""
        count = len(self._bytes) // self.form.row_bytes
        flat = np.frombuffer(self._bytes, np.uint8, count * self.form.row_bytes)
        return flat.reshape(count, self.form.row_bytes)

    def row(self, line: Line) -> bytes:
        """The bytes of a task; fewer where the file ends before."""
        size = line.length or self.form.row_bytes
        start = line.place if line.length else line.place * size
        return self._bytes[start : start + size] if start >= 0 and size >= 0 else b""
