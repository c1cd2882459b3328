"""Comparisons: what frozen encoders make of the two texts of a pair, each read alone.

A model that reads a pair as one text must find out by itself that the halves say the same; few rows do not
teach it that. Read apart, the halves lie close where they mean the same (Reimers & Gurevych 2019,
arXiv:1908.10084, compare sentences so).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import Any

import numpy as np

from weft.data.batch import Tokens
from weft.errors import DataError
from weft.evaluation.answers import TextError
from weft.evaluation.class_means import unit
from weft.evaluation.views import Cut, Limit, View, cuts
from weft.models import Backbone
from weft.models.features import Reading, features
from weft.tasks import template

MOST = 3  # fields that are compared each with each
COSINES = "cosines"  # as `View.compares`: of all pairs at all layers
Fields = tuple[Cut, ...]


@dataclass(frozen=True)
class Comparisons:
    """Encoders that compare the fields of texts.

    Attributes:
        encoders: by name.
        template: that made the texts. Fields beyond three are too many to compare.
    """

    encoders: Mapping[str, Backbone]
    template: str

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """The fields that are compared, by their places in the template."""
        count = len(template.names(self.template))
        return list(combinations(range(count), 2)) if count <= MOST else []

    @cached_property
    def names(self) -> list[View]:
        """Differences of each pair at every layer, and all cosines."""
        pairs = [f"{a}-{b}" for a, b in self.pairs]
        layers = {name: range(encoder.depths[0] + 1) for name, encoder in self.encoders.items()}
        found = [View(name, "", layer, pair) for name in layers for pair in pairs for layer in layers[name]]
        return found + [View(name, "", 0, COSINES) for name in layers if pairs]

    def width(self, view: View) -> int:
        """How many numbers a view has."""
        encoder = self.encoders[view.encoder]
        return (encoder.depths[0] + 1) * len(self.pairs) if view.compares == COSINES else encoder.width

    def read(
        self,
        texts: Sequence[str],
        limit: Limit,
        wanted: Collection[View] | None = None,
        *,
        batch_size: int = 32,
    ) -> dict[View, Any]:
        """Vectors `[N, D]` of texts for each view; a field that stands in several texts is read once.

        `|a - b|` at a layer, of means of states made one long; and the cosines of a and b at all layers. An
        empty field is a vector of zeros.

        Args:
            texts: what the template made of rows.
            limit: longest field, in each model's tokens.
            wanted: the views; none: all.
            batch_size: texts read at once, of like length; it changes no number but for rounding.

        Raises:
            TextError: for a text that the template did not make.
        """
        views = [view for view in self.names if wanted is None or view in wanted]
        rows = [self._fields(i, *one) for i, one in enumerate(cuts(texts, limit))] if views else []
        found: dict[View, Any] = {}
        for name in dict.fromkeys(view.encoder for view in views):
            states = self._states(self.encoders[name], rows, batch_size)
            found |= {view: self._compared(states, view) for view in views if view.encoder == name}
        return {view: found[view] for view in views}

    def _fields(self, number: int, text: str, limit: int) -> Fields:
        fields = template.fields(self.template, text)
        if len(fields) != len(template.names(self.template)):
            cause = f"the text is not of the form {self.template!r}, whose fields are compared"
            fault = DataError(cause, fix="give the text as the task's template makes it", code="D05")
            raise TextError(number, fault)
        return tuple((field, limit) for field in fields)

    def _compared(self, states: Sequence[Any], view: View) -> Any:
        """One view `[N, D]` of the fields' states `[N, F, D]` at each layer."""
        if view.compares == COSINES:
            return np.stack([(x[:, a] * x[:, b]).sum(1) for a, b in self.pairs for x in states], axis=1)
        a, b = map(int, view.compares.split("-"))
        return np.abs(states[view.layer][:, a] - states[view.layer][:, b])

    def _states(self, encoder: Backbone, rows: Sequence[Fields], batch_size: int) -> list[Any]:
        """Each layer's means of states, one long, of every field: `[N, F, D]`."""
        found = {field: _tokens(encoder, *field) for field in dict.fromkeys(chain.from_iterable(rows))}
        tokens = {field: one for field, one in found.items() if one}
        place = {field: i for i, field in enumerate(tokens)}
        places = np.array([[place.get(field, -1) for field in fields] for fields in rows])
        layers: list[Reading] = [(layer, "mean") for layer in range(encoder.depths[0] + 1)]
        means = features(encoder, list(tokens.values()), layers, batch_size=batch_size)
        empty = np.zeros((1, encoder.width), np.float32)
        return [np.concatenate([unit(means[layer]), empty])[places] for layer in layers]


def _tokens(encoder: Backbone, text: str, limit: int) -> Tokens:
    """A field's tokens, cut to a limit; none of a field that leaves none."""
    try:
        return encoder.text_tokens(text, encoder.most_tokens(limit))[0] if text.strip() else ()
    except DataError:
        return ()
