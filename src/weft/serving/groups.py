"""Rows that go on together, a token at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from weft.models import Backbone, Context
from weft.models.decoding import advance
from weft.serving.rows import Filler, Row

FILLER = Filler()


@dataclass(eq=False)
class Group:
    """Rows of one context, in its order."""

    context: Context
    rows: list[Row | Filler]

    @property
    def live(self) -> int:
        """Rows of the model that they are: each beam is one."""
        return sum(row.width for row in self.rows)

    @property
    def own(self) -> list[Row]:
        """The rows that somebody waits for."""
        return [row for row in self.rows if isinstance(row, Row)]

    def advance(self, backbone: Backbone) -> None:
        """One more token of each row."""
        with backbone.mode(dropout=False):
            live, self.context = advance(backbone, self.context, self.rows)
        self.rows = [FILLER if isinstance(row, Row) and row.over else row for row in live]


def group_of(backbone: Backbone, context: Context, rows: Sequence[Row]) -> Group | None:
    """The rows of a context that write."""
    going = [i for i, row in enumerate(rows) if row.writes]
    if not going:
        return None
    whole = len(going) == len(context.mask)
    return Group(context if whole else _picked(backbone, context, going), [rows[i] for i in going])


def fixed_group(context: Context, rows: Sequence[Row]) -> Group | None:
    """The same in a context that keeps its shape; the places of others are filled."""
    if not any(row.writes for row in rows):
        return None
    places: list[Row | Filler] = [row if row.writes else FILLER for row in rows]
    for row in rows:
        row.stays = len(context.mask) > 1
    return Group(context, places + [FILLER] * (len(context.mask) - len(rows)))


def together(backbone: Backbone, groups: Sequence[Group]) -> Group:
    """Several groups as one."""
    context = backbone.join([group.context for group in groups])
    return Group(context, [row for group in groups for row in group.rows])


def _picked(backbone: Backbone, context: Context, places: Sequence[int]) -> Context:
    """Some rows of a context, with what was predicted of them."""
    logits = context.next[list(places)]
    picked = backbone.select(context, places)
    return Context(picked.mask, picked.memory, logits)
