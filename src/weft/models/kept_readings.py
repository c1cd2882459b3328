"""Readings of texts that are kept, so that the runs of one process read a text once. Loads without torch."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Reading = TypeVar("Reading", bound=Hashable)


class KeptReadings:
    """Vectors of texts by reading and text; where room ends, those that were used longest ago go.

    Which rows share a batch then depends on what was read before; that changes vectors by rounding alone.

    Args:
        room: bytes; 0: nothing is kept.
    """

    def __init__(self, room: int = 0) -> None:
        self.room, self._used = room, 0
        self._vectors: OrderedDict[tuple[Hashable, Hashable], Vector] = OrderedDict()

    def fill(self, found: Mapping[Reading, Vector], texts: Sequence[Hashable]) -> list[int]:
        """Put what is kept into the rows of texts of which every reading is; the places of the others.

        Args:
            found: reading -> vectors `[N, D]`.
            texts: N texts.
        """
        missing = []
        for i, text in enumerate(texts):
            keys = [(reading, text) for reading in found]
            if all(key in self._vectors for key in keys):
                for key in keys:
                    found[key[0]][i] = self._vectors[key]
                    self._vectors.move_to_end(key)
            else:
                missing.append(i)
        return missing

    def keep(self, found: Mapping[Reading, Vector], texts: Sequence[Hashable], places: Sequence[int]) -> None:
        """Keep the rows at these places, as far as there is room."""
        if not self.room:
            return
        for i in places:
            for reading, vectors in found.items():
                self._put((reading, texts[i]), vectors[i].copy())

    def _put(self, key: tuple[Hashable, Hashable], vector: Vector) -> None:
        old: Any = self._vectors.pop(key, None)
        self._used += vector.nbytes - (0 if old is None else old.nbytes)
        self._vectors[key] = vector
        while self._used > self.room:
            self._used -= self._vectors.popitem(last=False)[1].nbytes
