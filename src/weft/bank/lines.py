"""What the index of a bank says of each task, and of all together; each with a check number over it."""

import json
from typing import NamedTuple

from weft import storage

SIGN = 1 << 64


class State(NamedTuple):
    """What holds after a change.

    Attributes:
        bank: as the manifest has it.
        generation: counts changes, from 0.
        tasks: how many are alive.
        total: sum of the check numbers of their entries, modulo 2^64.
        sizes: file of rows -> how many it has, or bytes of records.
    """

    bank: str
    generation: int
    tasks: int
    total: int
    sizes: dict[str, int]

    @property
    def texts(self) -> tuple[object, ...]:
        """As the index keeps it, with a check number behind; the total is beyond what SQLite counts to."""
        said = (self.bank, self.generation, self.tasks, str(self.total), json.dumps(self.sizes))
        return (*said, key_of(storage.canonical_json(said).decode()))


class Line(NamedTuple):
    """What the index says of one task.

    Attributes:
        name: of the task.
        since: the generation that added it.
        shard: the file of its row.
        place: number of the row; of a record its first byte.
        length: bytes of a record; none: as many as every row of the shard has.
        group: of the tasks with which it shares arrays; empty: none.
        definition: JSON, see `entry.Definition`.
        run: id of the run that it comes from.
        metrics: JSON.
        sha256: of its numbers as they lie in the shard.
    """

    name: str
    since: int
    shard: str
    place: int
    length: int | None
    group: str
    definition: str
    run: str
    metrics: str
    sha256: bytes

    @property
    def check(self) -> int:
        """A number from all that is said here, `0 <= check < 2^64`."""
        said = [*self[:-1], self.sha256.hex()]
        return key_of(storage.canonical_json(said).decode()) % SIGN

    def is_whole(self, check: int) -> bool:
        """Whether this is what was written, by the check number beside it."""
        try:
            return self.check == check
        except (AttributeError, TypeError, ValueError):  # damage may have made other values of it
            return False


def key_of(text: str) -> int:
    """A signed number of 64 bits by which a text is found again."""
    return int.from_bytes(bytes.fromhex(storage.sha256_bytes(text.encode())[:16]), "big", signed=True)
