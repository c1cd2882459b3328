"""How fast the model works, and so how long a newcomer would wait."""

WINDOW = 0.5  # seconds of work, after which they count
KEPT = 0.7  # weight of what was known before


class Pace:
    """Tokens per second, as measured while there was work."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._since: float | None = None
        self._done = 0

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
            found = self._done / (now - self._since)
            self.rate = found if self.rate is None else KEPT * self.rate + (1 - KEPT) * found
            self._since, self._done = now, 0

    def seconds(self, tokens: int) -> float:
        """Until so many tokens are done; 0 as long as nothing is known."""
        return tokens / self.rate if self.rate else 0.0
