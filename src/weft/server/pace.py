"""How fast the model works, and so how long a newcomer would wait."""

from collections import deque

WINDOW = 0.5  # seconds of work, after which they count
KEPT = 12  # windows that are looked back on
SLOW = 4  # one of so many was slower than what is counted on


class Pace:
    """Tokens per second, as measured while there was work.

    What is counted on is the lower quartile of the last windows: texts that were read before are answered
    faster than others, and a promise that is made at their pace would not be kept.
    """

    def __init__(self) -> None:
        self._found: deque[float] = deque(maxlen=KEPT)
        self._since: float | None = None
        self._done = 0

    @property
    def rate(self) -> float | None:
        """Tokens per second to count on; none as long as nothing is known."""
        return sorted(self._found)[len(self._found) // SLOW] if self._found else None

    def begin(self, now: float) -> None:
        """Work is there from now on."""
        if self._since is None:
            self._since, self._done = now, 0

    def end(self) -> None:
        """No work is left."""
        self._since = None

    def add(self, tokens: int, now: float) -> None:
        """So many tokens are done."""
        self._done += tokens
        if self._since is not None and now - self._since >= WINDOW:
            self._found.append(self._done / (now - self._since))
            self._since, self._done = now, 0

    def seconds(self, tokens: int) -> float:
        """Until so many tokens are done; 0 as long as nothing is known."""
        rate = self.rate
        return tokens / rate if rate else 0.0
