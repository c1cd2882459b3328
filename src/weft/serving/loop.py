"""Continuous batching: rows join and leave at every token."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from weft.errors import ConfigError, ResourceError, WeftError
from weft.serving.batches import Room, next_batch
from weft.serving.groups import Group
from weft.serving.requests import Piece, Request, Response
from weft.serving.rows import Row, refused

if TYPE_CHECKING:
    from weft.serving.engine import Engine


class Loop:
    """Requests on their way, a step at a time.

    Args:
        engine: answers them.
        pieces: tell what is written while it is.
    """

    def __init__(self, engine: "Engine", *, pieces: bool = True) -> None:
        self.engine, self.pieces = engine, pieces
        self._waiting: list[Row] = []
        self._groups: list[Group] = []
        self._refused: list[Response] = []
        self._ids: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not (self._waiting or self._groups or self._refused)

    def under(self, engine: "Engine") -> None:
        """Answer what is added from now on by another engine on the same model, of another generation."""
        self.engine = engine

    def add(self, requests: Iterable[Request]) -> None:
        """Take requests; what cannot be answered comes back at the next step.

        Raises:
            ConfigError: if one has the id of another that is on its way.
        """
        for request in requests:
            if request.id in self._ids:
                raise ConfigError(f"two requests have the id {request.id!r}", fix="give each its own")
            self._ids.add(request.id)
            try:
                self._waiting.append(self.engine.row(request))
            except WeftError as fault:
                self._refused.append(refused(request, fault))

    def drop(self, id: str) -> None:
        """Forget a request: nothing more is said of it. One that is not there is passed over."""
        self._ids.discard(id)
        self._waiting = [row for row in self._waiting if row.request.id != id]
        self._refused = [one for one in self._refused if one.id != id]
        for row in (row for group in self._groups for row in group.own):
            row.dropped = row.dropped or row.request.id == id

    def step(self) -> list[Piece | Response]:
        """Read some rows that wait, and one more token of each that is being written."""
        out: list[Piece | Response] = [*self._refused]
        self._refused = []
        batch = self._next()
        if batch:
            chosen = set(map(id, batch))
            self._waiting = [row for row in self._waiting if id(row) not in chosen]
            out += self._read(batch)
        for group in list(self._groups):
            out += self._advance(group)
        self._ids -= {one.id for one in out if isinstance(one, Response)}
        return out

    def _next(self) -> list[Row]:
        live = sum(group.live for group in self._groups)
        longest = max((row.positions for group in self._groups for row in group.own), default=0)
        return next_batch(self._waiting, Room(live, longest), self.engine)

    def _read(self, rows: Sequence[Row]) -> list[Response]:
        """Those that are answered at once; who writes joins the others. A fault of one stops no other."""
        try:
            self._groups = self.engine.read(rows, self._groups)
        except (WeftError, RuntimeError) as fault:
            if len(rows) > 1:
                return [one for row in rows for one in self._read([row])]
            rows[0].fail(_said(fault))
        return [row.response() for row in rows if not row.writes]

    def _advance(self, group: Group) -> list[Piece | Response]:
        before = group.own
        try:
            group.advance(self.engine.backbone)
        except RuntimeError as fault:  # of torch, such as no memory: what they had read is used up
            for row in before:
                row.fail(_said(fault))
        if all(row.over for row in before):
            self._groups.remove(group)
        told = [row for row in before if not row.dropped]
        pieces = [piece for row in told if self.pieces and (piece := row.piece())]
        return [*pieces, *(row.response() for row in told if row.over)]


def _said(fault: Exception) -> WeftError:
    """A fault as a reader of answers is told it."""
    if isinstance(fault, WeftError):
        return fault
    cause = f"the model could not be run ({type(fault).__name__}: {' '.join(str(fault).split())[:200]})"
    return ResourceError(cause, fix="ask again; a shorter text or answer takes less memory", code="S16")
