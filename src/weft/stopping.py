"""SIGTERM and SIGINT: the first lets a training step end and be saved, the second ends at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from weft.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Stop:
    """Whether this process was asked to end.

    Attributes:
        asked: the signal that asked for an end after the present step; none as long as nobody asked.
    """

    asked: int | None = None
    _training: bool = False

    @contextmanager
    def watched(self) -> Iterator["Stop"]:
        """Answer the signals while the block runs; works in the main thread only, as Python demands."""
        before = {number: signal.signal(number, self._answer) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def after_step(self) -> Iterator[None]:
        """While the block runs, the first signal waits for `check`."""
        self._training = True
        try:
            yield
        finally:
            self._training = False

    def check(self) -> None:
        """End here, if it was asked for.

        Raises:
            Stopped: naming the signal.
        """
        if self.asked is not None:
            raise Stopped(self.asked)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked is not None, number
        if again or not self._training:
            raise Stopped(number)
