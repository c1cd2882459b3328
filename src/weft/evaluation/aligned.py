"""Two texts token by token: how well each is found in the other, and what is missed."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from weft.evaluation.class_means import unit

QUARTER = 0.25


@dataclass(frozen=True)
class Aligned:
    """Two texts, each token held against the one of the other text whose state has the largest cosine.

    Attributes:
        first: states `[L, S, D]` of one text's tokens at some layers.
        second: `[L, T, D]` of the other's.
    """

    first: Any
    second: Any
    SAID: ClassVar[int] = 3  # numbers a layer that say how well a text is found

    @cached_property
    def _units(self) -> tuple[Any, Any]:
        return unit(self.first), unit(self.second)

    @cached_property
    def _every(self) -> Any:
        """Cosines `[L, S, T]` of all tokens with all."""
        first, second = self._units
        return first @ second.transpose(0, 2, 1)

    @cached_property
    def first_in_second(self) -> Any:
        """How well the first text is found in the second: see `_said`."""
        return _said(self._every.max(2))

    @cached_property
    def second_in_first(self) -> Any:
        """How well the second text is found in the first: see `_said`."""
        return _said(self._every.max(1))

    @cached_property
    def cosines(self) -> Any:
        """Of the means of both texts' states, at each layer `[L]`."""
        return (unit(self.first.mean(1)) * unit(self.second.mean(1))).sum(1)

    def missed(self, layer: int) -> Any:
        """How far tokens lie from those that they are held against, by column `[2 D]`: a mean of |x - y|.

        Args:
            layer: the place of a layer. The first text's tokens come first.
        """
        first, second = (side[layer] for side in self._units)
        every = self._every[layer]
        return np.concatenate(
            [
                np.abs(first - second[every.argmax(1)]).mean(0),
                np.abs(second - first[every.argmax(0)]).mean(0),
            ]
        )


def _said(best: Any) -> Any:
    """Of the best cosines `[L, S]` of a text's tokens the mean, the least and the lower quartile, `[3 L]`."""
    return np.concatenate([best.mean(1), best.min(1), np.quantile(best, QUARTER, axis=1)])
