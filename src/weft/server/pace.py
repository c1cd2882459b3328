"""How fast the model works, and so how long a newcomer would wait."""

from collections import deque

WINDOW = 0.5  # seconds of work, after which they count
KEPT = 12  # windows that are looked back on
SLOW = 4  # one of so many was slower than what is counted on


class Pace:
    """Tokens per second, as measured while there was work.

    What is counted on is the lower quartile of the last windows: texts that were read before are answered
    faster than others, and a promise that is made at their pace would not be kept. A window is of time in
    which there was work, with or without pauses in it: single short answers count as well, or a slow first
    one would be all that is ever known.
    """

    def __init__(self) -> None:
        self._found: deque[float] = deque(maxlen=KEPT)
        self._since: float | None = None
        self._worked, self._done = 0.0, 0

    @property
    def rate(self) -> float | None:
        """Tokens per second to count on; none as long as nothing is known."""
        return sorted(self._found)[len(self._found) // SLOW] if self._found else None

    def begin(self, now: float) -> None:
        """Work is there from now on."""
        if self._since is None:
            self._since = now

    def add(self, tokens: int, now: float) -> None:
        """So many tokens are answered."""
        self._done += tokens
        self._look(now)
        if self._worked >= WINDOW:
            self._found.append(self._done / self._worked)
            self._worked, self._done = 0.0, 0

    def end(self, now: float) -> None:
        """No work is left; a window that has begun goes on with what comes next."""
        self._look(now)
        self._since = None

    def drop(self) -> None:
        """No work is left, since who did it is gone; the window that had begun says nothing."""
        self._since, self._worked, self._done = None, 0.0, 0

    def seconds(self, tokens: int) -> float:
        """Until so many tokens are done; 0 as long as nothing is known."""
        rate = self.rate
        return tokens / rate if rate else 0.0

    def _look(self, now: float) -> None:
        if self._since is not None:
            self._worked += now - self._since
            self._since = now
