"""What a model receives of a text: the whole of it, a part, or less than a person would read in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from weft.errors import DataError
from weft.tasks.template import shows

if TYPE_CHECKING:  # loads torch
    from weft.models import Backbone


@dataclass(frozen=True)
class Received:
    """What became of a text on its way into a model.

    Attributes:
        cut: whether tokens of it were dropped.
        special: special tokens of the model that stand in it as words.
        unknown: whether the model knows less than half of it, or of one of its fields.
        nothing: whether no token is left of it.
    """

    cut: bool = False
    special: tuple[str, ...] = ()
    unknown: bool = False
    nothing: bool = False


@runtime_checkable
class Receives(Protocol):
    """An answerer that can say what it receives of a text; of others nothing is known."""

    def received(self, text: str, fields: Sequence[str], task_id: int) -> Received:
        """What becomes of a text.

        Args:
            text: what the task's template makes of a row.
            fields: what the row says at each of the template's fields.
            task_id: the text's task.
        """


def received(model: "Backbone", text: str, fields: Sequence[str], limit: int) -> Received:
    """What becomes of a text that a model reads up to a limit of tokens."""
    codec = model.codec
    [ids] = codec.texts([text])
    left = [codec.left(one) for one in fields if shows(one)] if codec.doubtful(ids, fields) else []
    nothing = bool(left) and all(one == "nothing" for one in left)
    unknown = not nothing and any(one != "text" for one in left)
    return Received(len(ids) > codec.whole(limit), tuple(codec.written(text)), unknown, nothing)


def check_shown(fields: Iterable[str], what: str) -> None:
    """Refuse what says nothing: every field is blank.

    Args:
        fields: what stands at each of the template's fields.
        what: a row, or a request, for the message.

    Raises:
        DataError: saying so.
    """
    if not any(map(shows, fields)):
        cause = f"the {what} has no text: its fields are blank"
        raise DataError(cause, fix=f"complete the {what}", code="D02")


def check_read(got: Received, what: str) -> None:
    """Refuse a text of which a model receives nothing.

    Raises:
        DataError: saying so.
    """
    if got.nothing:
        fix = "write the text in signs that the model reads"
        raise DataError(f"the model has no token for any sign of the {what}'s text", fix=fix, code="D03")


def joined(parts: Iterable[Received]) -> Received:
    """What several models, or one of several parts of a text, make of it."""
    some = list(parts)
    special = dict.fromkeys(token for one in some for token in one.special)
    return Received(
        any(one.cut for one in some),
        tuple(special),
        any(one.unknown for one in some),
        any(one.nothing for one in some),
    )
