"""Views of a text's fields, each read alone: the word that a text opens with, and how fields compare.

A model that reads a pair as one text must find out by itself that the halves say the same; few rows do not
teach it that. Read apart, each token of one field is held against the one of the other that is most like it
(Zhang et al. 2020, arXiv:1904.09675, score texts so): what one says and the other does not then shows.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import Any

import numpy as np

from weft.data.batch import Tokens
from weft.errors import DataError
from weft.evaluation.aligned import Aligned
from weft.evaluation.answers import TextError
from weft.evaluation.views import PLAIN, Cut, Limit, View, cuts, spread
from weft.models import Backbone
from weft.models.features import token_states
from weft.tasks import template

MOST = 3  # fields that are compared each with each
ROWS = 32  # whose tokens' states are in memory together
FIRST, COSINES = "first", "cosines"  # as `View.compares`
FOUND, MISSED = ">", "~"  # between the numbers of two fields there
Fields = tuple[Tokens, ...]


@dataclass(frozen=True)
class FieldViews:
    """Frozen models that read the fields of texts.

    Attributes:
        models: by name; encoders, or, where there are none, the base model.
        template: that made the texts. Fields beyond three are too many to compare.
        opens: whether there are views of the first word of a text that is one field.
        compares: whether there are views that compare fields.
    """

    models: Mapping[str, Backbone]
    template: str
    opens: bool = True
    compares: bool = True

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """The fields that are compared, by their places in the template."""
        count = len(template.names(self.template))
        return list(combinations(range(count), 2)) if self.compares and count <= MOST else []

    @cached_property
    def names(self) -> list[View]:
        """Of one field its first word's state at the last layer, by models that read both ways.

        Of more, for each pair: how well each is found in the other, what is missed at three layers; and the
        cosines of all pairs at all layers, in one view.
        """
        one = self.opens and len(template.names(self.template)) == 1
        found = []
        for name, model in self.models.items():
            if one and model.only_reads:
                found.append(View(name, "", model.depths[0], FIRST))
            for a, b in self.pairs:
                found += [View(name, "", 0, f"{a}{FOUND}{b}"), View(name, "", 0, f"{b}{FOUND}{a}")]
                found += [View(name, "", at, f"{a}{MISSED}{b}") for at in thirds(self.layers(model))]
            found += [View(name, "", 0, COSINES)] if self.pairs else []
        return found

    def beside(self, views: Collection[View]) -> list[View]:
        """All views of `names` that the same readings give: of the models that read any of some views."""
        read = {view.encoder for view in views if view.apart}
        return [view for view in self.names if view.encoder in read]

    def layers(self, model: Backbone) -> list[int]:
        """The layers that are read: to compare all of an encoder, five of a language model; else the last."""
        depth = model.depths[0]
        if not self.pairs:
            return [depth]
        return list(range(depth + 1)) if model.only_reads else spread(PLAIN, depth)

    def width(self, view: View) -> int:
        """How many numbers a view has."""
        model = self.models[view.encoder]
        layers = len(self.layers(model))
        if view.compares == COSINES:
            return layers * len(self.pairs)
        if FOUND in view.compares:
            return layers * Aligned.SAID
        return model.width * (2 if MISSED in view.compares else 1)

    def read(
        self,
        texts: Sequence[str],
        limit: Limit,
        wanted: Collection[View] | None = None,
        *,
        batch_size: int = 32,
    ) -> dict[View, Any]:
        """Vectors `[N, D]` of texts for each view; zero of an empty field, alone or beside another.

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
            own = [view for view in views if view.encoder == name]
            found |= self._read(self.models[name], rows, own, batch_size)
        return {view: found[view] for view in views}

    def _fields(self, number: int, text: str, limit: int) -> list[Cut]:
        fields = template.fields(self.template, text)
        if len(fields) != len(template.names(self.template)):
            cause = f"the text is not of the form {self.template!r}, whose fields are read"
            fault = DataError(cause, fix="give the text as the task's template makes it", code="D05")
            raise TextError(number, fault)
        return [(field, limit) for field in fields]

    def _read(
        self, model: Backbone, rows: Sequence[Sequence[Cut]], views: Sequence[View], batch_size: int
    ) -> dict[View, Any]:
        """One model's views of rows; those that it keeps are not read again."""
        known = {field: _tokens(model, *field) for field in dict.fromkeys(chain.from_iterable(rows))}
        tokens = [tuple(known[field] for field in row) for row in rows]
        found = {view: np.zeros((len(rows), self.width(view)), np.float32) for view in views}
        missing = model.kept.fill(found, tokens)
        for i, states in self._states(model, tokens, missing, batch_size):
            for view, vector in self._vectors(model, tokens[i], states, views):
                found[view][i] = vector
        model.kept.keep(found, tokens, missing)
        return found

    def _states(
        self, model: Backbone, rows: Sequence[Fields], places: Sequence[int], batch_size: int
    ) -> Iterator[tuple[int, Mapping[Tokens, Any]]]:
        """Rows at some places with the states `[L, S, D]` of their fields; a field is read once in a part."""
        for start in range(0, len(places), ROWS):
            some = places[start : start + ROWS]
            fields = dict.fromkeys(field for i in some for field in rows[i] if field)
            states = token_states(model, list(fields), self.layers(model), batch_size=batch_size)
            yield from ((i, states) for i in some)

    def _vectors(
        self, model: Backbone, row: Fields, states: Mapping[Tokens, Any], views: Sequence[View]
    ) -> Iterator[tuple[View, Any]]:
        """Each view of one row; none of an empty field."""
        place = {layer: i for i, layer in enumerate(self.layers(model))}
        pairs = {(a, b): Aligned(states[row[a]], states[row[b]]) for a, b in self.pairs if row[a] and row[b]}
        for view in views:
            if view.compares == FIRST:
                if row[0]:
                    yield view, states[row[0]][place[view.layer], _opening(model, row[0])]
            elif view.compares == COSINES:
                empty = np.zeros(len(place))
                yield view, np.concatenate([pairs[x].cosines if x in pairs else empty for x in self.pairs])
            elif pair := pairs.get(_between(view)):
                yield view, _compared(pair, view, place)


def _compared(pair: Aligned, view: View, place: Mapping[int, int]) -> Any:
    """One view of a pair of fields."""
    if MISSED in view.compares:
        return pair.missed(place[view.layer])
    a, b = view.compares.split(FOUND)
    return pair.second_in_first if a < b else pair.first_in_second


def _between(view: View) -> tuple[int, int]:
    """The fields that a view compares, the first one first."""
    a, b = sorted(map(int, view.compares.replace(MISSED, FOUND).split(FOUND)))
    return a, b


def _opening(model: Backbone, tokens: Tokens) -> int:
    """The place of a text's first token behind what begins every text."""
    before = {model.tokenizer.cls_token_id, model.tokenizer.bos_token_id}
    return next((i for i, token in enumerate(tokens) if token not in before), 0)


def thirds(layers: Sequence[int]) -> list[int]:
    """The layers at one, two and three thirds of the way, each once."""
    return sorted({layers[round((len(layers) - 1) * share / 3)] for share in (1, 2, 3)})


def _tokens(model: Backbone, text: str, limit: int) -> Tokens:
    """A field's tokens, cut to a limit; none of a field that leaves none."""
    try:
        return model.text_tokens(text, model.most_tokens(limit))[0] if text.strip() else ()
    except DataError:
        return ()
