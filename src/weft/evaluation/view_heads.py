"""One task's head on views of its texts, weighted by held-out rows, and on the words of its answers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from weft.evaluation.few_bits import Part
from weft.evaluation.fields import FieldViews
from weft.evaluation.linear import LinearHead
from weft.evaluation.readers import (
    HeldOut,
    chosen_strength,
    confidence,
    fit_reader,
    hold_out,
    side_by_side,
    with_words,
)
from weft.evaluation.views import View, Views
from weft.tasks import Example


@dataclass(frozen=True)
class TaskRows:
    """The training rows of a task, as views read them.

    Attributes:
        views: the frozen models on whole texts.
        fields: the frozen models on the fields of texts.
        texts: of the rows.
        targets: their answers.
        limit: longest text, in each model's tokens.
    """

    views: Views
    fields: FieldViews
    texts: Sequence[str]
    targets: Sequence[str]
    limit: int

    @classmethod
    def of(cls, rows: Sequence[Example], views: Views, fields: FieldViews, limit: int) -> "TaskRows":
        """Those of a task."""
        return cls(views, fields, [row.source for row in rows], [row.target for row in rows], limit)

    def read(self, rows: Sequence[int], wanted: Collection[View] | None = None) -> dict[View, Any]:
        """Vectors of some rows in each view that is wanted; none: in all."""
        some = [self.texts[i] for i in rows]
        return self.views.read(some, self.limit, wanted) | self.fields.read(some, self.limit, wanted)

    def held_out(
        self,
        rows: Sequence[int],
        strength: float,
        wanted: Collection[View] | None = None,
        enough: int | None = None,
    ) -> dict[View, HeldOut]:
        """What the reader of each view says of rows that it was not fitted on: of `enough`, or of all.

        Views that come with the same readings are read too: parts of the same rows, such as the folds of a
        cross-validation, want other ones, and a reading is much dearer than what is kept of it.
        """
        known = [self.targets[i] for i in rows]
        read = self.read(rows, wanted and {*wanted, *self.views.beside(wanted), *self.fields.beside(wanted)})
        strengths = {view: self.strength(strength, view, x) for view, x in read.items()}
        return {
            view: hold_out(read[view], known, strengths[view], enough, self.views.scales.get(view))
            for view in wanted or read
        }

    def strength(self, strength: float, view: View, x: Any) -> float:
        """C of a view's regression: more for fewer columns, so that rows are as long in every view."""
        return strength * self.views.width(view) / float(x.shape[1])

    def head(
        self,
        some: Sequence[int],
        shares: Mapping[View, float],
        strengths: Sequence[float],
        enough: int,
        *,
        words: bool,
    ) -> tuple[LinearHead, dict[View, float], Any]:
        """The head of all rows on the views side by side, what is noted of each view, and means of columns.

        Args:
            some: places of the rows of which some are held out.
            shares: the weight of each view.
            strengths: C of the regression, of which the best by held-out rows is taken.
            enough: how many are held out.
            words: whether the answers' words count, as far as held-out rows bear it out.
        """
        read = self.read(range(len(self.texts)), shares)
        scales = [self.views.scales.get(view) for view in shares]
        x, scale = side_by_side(
            [read[view] for view in shares], scales, list(shares.values()), self.views.backbone.width
        )
        known = [self.targets[i] for i in some]
        strength, held = chosen_strength(x[some], known, strengths, enough, scale)
        said = Words(self.views, self.targets, self.limit) if words else None
        factor, counts = confidence(held, said and said.cosines([self.texts[i] for i in some]))
        head = fit_reader(x, self.targets, strength, scale).times(factor)
        noted = said.shares(counts) if said else {}
        if said and noted:
            head = with_words(head, said.vectors, counts)
            x = np.concatenate([x, said.read(self.texts)], axis=1)
        return head, {**shares, **noted}, x.mean(0, dtype=np.float64)


@dataclass(frozen=True)
class Words:
    """Texts held against the words of the answers, by each encoder; of several encoders it is the mean.

    Attributes:
        views: the frozen models.
        targets: the answers of the training rows.
        limit: longest text, in tokens.
    """

    views: Views
    targets: Sequence[str]
    limit: int

    def read(self, texts: Sequence[str]) -> Any:
        """Vectors of texts `[N, D]`, those of the encoders side by side, each one long."""
        found = self.views.read(texts, self.limit, self.views.words)
        return np.concatenate([found[view] for view in self.views.words], axis=1)

    @cached_property
    def vectors(self) -> Any:
        """Those of the answers `[C, D]`, so that a product with a text's vector is a mean of cosines."""
        return self.read(sorted(set(self.targets))) / len(self.views.words)

    def cosines(self, texts: Sequence[str]) -> Any:
        """Of texts with each answer `[N, C]`; none without an encoder."""
        return self.read(texts) @ self.vectors.T if self.views.words else None

    def shares(self, factor: float) -> dict[View, float]:
        """How much each of the views counts; none, if they do not."""
        return dict.fromkeys(self.views.words, factor) if factor > 0 else {}


def parts_of(views: Views, fields: FieldViews, kept: Sequence[View], bits: int) -> list[Part]:
    """How the columns of a task's views are kept, in their order."""
    widths = [(fields if view.apart else views).width(view) for view in kept]
    scales = [views.scales.get(view) for view in kept]
    return [Part.of(width, scale, bits) for width, scale in zip(widths, scales, strict=True)]


def field_views(views: Views, template: str, *, opens: bool = True, compares: bool = True) -> FieldViews:
    """What reads the fields of a task's texts: encoders, and the base model where there are none."""
    base = {"": views.backbone} if views.backbone.only_reads or not views.encoders else {}
    return FieldViews({**base, **views.encoders}, template, opens, compares)
