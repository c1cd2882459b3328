"""A mapping that forgets what was used longest ago. Loads without torch."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by key, up to a room; each is made when it is first asked for.

    Args:
        room: of all values together.
        size: what one takes of it; none: 1.
    """

    def __init__(self, room: int, size: Callable[[Value], int] = lambda value: 1) -> None:
        self.room, self.used = room, 0
        self.made = 0  # how often a value had to be made
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key; one that is larger than the room is made each time."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self.made += 1
        if self._size(value) > self.room:
            return value
        self._values[key] = value
        self.used += self._size(value)
        while self.used > self.room:
            self.used -= self._size(self._values.popitem(last=False)[1])
        return value
