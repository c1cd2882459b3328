"""A bounded, fair queue: keys take turns, a key's tasks take turns, and of a task the oldest goes first.

It knows no clock and no event loop, so that tests can try every order of events.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    """What can wait: its key's and task's names, and its size."""

    @property
    def key(self) -> str: ...
    @property
    def lane(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def tokens(self) -> int: ...


T = TypeVar("T", bound=Item)
N = TypeVar("N")


class Full(Exception):
    """The queue does not take this item.

    Args:
        reason: `rows`, `tokens`, `task` or `key`: whose limit it is.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Bounds:
    """Most rows and tokens of the queue, and the share of its rows that one task or one key may fill."""

    rows: int
    tokens: int
    share: float = 1.0


class FairQueue(Generic[T]):
    """Items that wait.

    Args:
        bounds: of all that waits together.
        several_keys: whether keys have shares too; with one key for all they have none.
    """

    def __init__(self, bounds: Bounds, *, several_keys: bool = False) -> None:
        self.bounds, self.several_keys = bounds, several_keys
        self.rows, self.tokens = 0, 0
        self._lanes: OrderedDict[str, OrderedDict[str, deque[T]]] = OrderedDict()
        self._key_rows: Counter[str] = Counter()
        self._lane_rows: Counter[tuple[str, str]] = Counter()
        self._lane_tokens: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return sum(len(lane) for lanes in self._lanes.values() for lane in lanes.values())

    def __iter__(self) -> Iterator[T]:
        return (item for lanes in self._lanes.values() for lane in lanes.values() for item in lane)

    def put(self, item: T) -> None:
        """Let an item wait. One that is larger than a bound is taken when nothing else of its kind waits.

        Raises:
            Full: naming the bound.
        """
        share = self.bounds.rows * self.bounds.share
        lane = self._lane_rows[item.key, item.lane]
        for reason, there, more, most in (
            ("rows", self.rows, item.rows, self.bounds.rows),
            ("tokens", self.tokens, item.tokens, self.bounds.tokens),
            ("task", lane, item.rows, share),
            ("key", self._key_rows[item.key] if self.several_keys else 0, item.rows, share),
        ):
            if there and there + more > most:
                raise Full(reason)
        self._lanes.setdefault(item.key, OrderedDict()).setdefault(item.lane, deque()).append(item)
        self._count(item, 1)

    def take(self, fits: Callable[[T], bool]) -> T | None:
        """The item whose turn it is, or none: if nothing waits, or it does not fit now.

        Nobody overtakes an item that does not fit, or a large one would never have its turn.
        """
        for key, lanes in self._lanes.items():
            name, lane = next(iter(lanes.items()))
            if not fits(lane[0]):
                return None
            item = lane.popleft()
            self._turn(key, name)
            self._count(item, -1)
            return item
        return None

    def remove(self, item: T) -> None:
        """Let an item go that waits no more."""
        self._lanes[item.key][item.lane].remove(item)
        self._count(item, -1)
        if not self._lanes[item.key][item.lane]:
            self._drop(item.key, item.lane)

    def ahead(self, item: T) -> int:
        """Tokens that are likely to be worked on before an item that comes now has had its turn."""
        lanes = sum(len(lanes) for lanes in self._lanes.values())
        own = self._lane_tokens[item.key, item.lane] + item.tokens
        new = item.lane not in self._lanes.get(item.key, ())
        return min(self.tokens + item.tokens, own * (lanes + new))

    def _turn(self, key: str, name: str) -> None:
        """Who had a turn goes to the end, or away."""
        if self._lanes[key][name]:
            self._lanes[key].move_to_end(name)
        else:
            self._drop(key, name)
        if key in self._lanes:
            self._lanes.move_to_end(key)

    def _drop(self, key: str, name: str) -> None:
        del self._lanes[key][name]
        if not self._lanes[key]:
            del self._lanes[key]

    def _count(self, item: T, sign: int) -> None:
        self.rows += sign * item.rows
        self.tokens += sign * item.tokens
        _add(self._key_rows, item.key, sign * item.rows)
        _add(self._lane_rows, (item.key, item.lane), sign * item.rows)
        _add(self._lane_tokens, (item.key, item.lane), sign * item.tokens)


def _add(counter: "Counter[N]", name: N, amount: int) -> None:
    """Names whose count is zero are forgotten: there may be a million."""
    counter[name] += amount
    if not counter[name]:
        del counter[name]
