"""Which waiting rows are read together: the oldest, and others that are like it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Protocol

from weft.serving.rows import Row
from weft.serving.settings import EngineSettings

REAL = 0.75  # share of what is read that is no padding, at least
FILLS = 256  # tokens of a read from which on padding costs as much as tokens do
AHEAD = 1024  # waiting rows that are looked at
SAME = 3  # rows of the oldest one's text, which are then read without others
LADDER = tuple(
    sorted({*(8 << n for n in range(12)), *(12 << n for n in range(12))})
)  # 8, 12, 16, 24, 32, ...


def rung(length: int) -> int:
    """The least length of the ladder that has room."""
    return next((one for one in LADDER if one >= length), length)


class Reader(Protocol):
    """What reads rows: its bounds, and what it needs of a row."""

    @property
    def settings(self) -> EngineSettings:
        """Its bounds."""

    def reads(self, row: Row) -> int:
        """How many tokens go through the model for a row."""

    def shares_text(self, rows: Sequence[Row]) -> bool:
        """Whether it gains by reading these, which have one text, apart from others."""

    def kind(self, row: Row) -> Hashable:
        """Rows of one kind can share a batch."""


@dataclass(frozen=True)
class Room:
    """What is taken already.

    Attributes:
        live: rows that are being answered, each beam counting as one.
        longest: positions of the longest of these.
    """

    live: int = 0
    longest: int = 0


def next_batch(waiting: Sequence[Row], room: Room, reader: Reader) -> list[Row]:
    """The rows that are read next; none where the oldest has to wait: nobody overtakes it into its room.

    The others are those of its kind whose lengths are nearest to its own, while little of what is read is
    padding.

    Args:
        waiting: the oldest first.
        room: what is taken.
        reader: reads them.
    """
    if not waiting or (reader.settings.fixed and room.live):
        return []
    first = waiting[0]
    others = [row for row in waiting[1:AHEAD] if reader.kind(row) == reader.kind(first)]
    same = [row for row in others if row.source == first.source]
    if len(same) >= SAME and reader.shares_text([first, *same]):
        others = same
    near = nsmallest(
        reader.settings.rows, others, key=lambda row: abs(reader.reads(row) - reader.reads(first))
    )
    if room.live and not _fits([first], room, reader):
        return []
    batch = [first]
    for row in near:
        if not _fits([*batch, row], room, reader):
            break
        batch.append(row)
    return batch


def _fits(rows: Sequence[Row], room: Room, reader: Reader) -> bool:
    """Whether rows may be read together, beside those that are live."""
    settings = reader.settings
    if settings.fixed:
        return len(rows) < settings.rows  # one at least fills up its shape
    count = room.live + sum(row.most for row in rows)
    held = count * max(room.longest, *(row.positions for row in rows))
    each = [reader.reads(row) for row in rows]
    read = len(rows) * max(each)
    bounded = count <= settings.rows and held <= settings.live_tokens
    real = read <= FILLS or sum(each) >= REAL * read
    return bounded and real and (len(rows) == 1 or read <= settings.read_tokens)
