"""What a person sees while runs go on: stage > task > step, loss, score, and an honest time to go.

On a terminal, one live line; elsewhere, a plain line now and then. The time to go rests on work units:
what is done took so long, what is left has so many units.
"""

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_SECONDS = 15.0
SURE = 0.01  # of all work: before that much is done, the time to go would be that of reading texts ahead


@dataclass
class Progress:
    """Progress over a number of work units.

    Args:
        total: work units of all that will be done; 0 where it is not known.
        stream: where lines go.
        quiet: show nothing but warnings.
    """

    total: float = 0.0
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    done: float = 0.0

    def __post_init__(self) -> None:
        self.console = Console(file=self.stream, highlight=False)
        self.start = time.monotonic()
        self.shown = self.start - PLAIN_SECONDS  # the first line comes at once: a first step can take minutes
        self.current, self.units, self.share = "", 0.0, 0.0
        self._live: Live | None = None

    def begin(self, label: str, units: float) -> None:
        """A run begins, or several in one batch; `units` of work in all."""
        self.current, self.units, self.share = label, units, 0.0
        if self.console.is_terminal and not self.quiet and self._live is None:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        self._show("")

    def step(self, share: float, note: str = "") -> None:
        """A share of each run that is going on is done."""
        self.share = share
        self._show(note)

    def end(self, label: str, units: float, note: str) -> None:
        """One of the runs that are going on is over; `note` says what came out."""
        self.done += units
        self.units = max(0.0, self.units - units)
        self._line(f"{self._percent()} {label}  {note}{self._eta()}")

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self.quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        """A warning, shown always."""
        self._line(f"warning: {text}", force=True)

    def close(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, note: str) -> None:
        line = f"{self._percent()} {self.current}  {note}{self._eta()}"
        if self._live is not None:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True))
        elif not self.quiet and time.monotonic() - self.shown >= PLAIN_SECONDS:
            self._line(line)

    def _line(self, line: str, *, force: bool = False) -> None:
        if self.quiet and not force:
            return
        self.shown = time.monotonic()
        console = self._live.console if self._live is not None else self.console
        console.print(Text(line), soft_wrap=True)

    def _percent(self) -> str:
        done = self.done + self.units * self.share
        return f"{100 * done / self.total:3.0f}%" if self.total > 0 else "    "

    def _eta(self) -> str:
        done = self.done + self.units * self.share
        if self.total <= 0 or done < SURE * self.total:
            return ""
        seconds = (time.monotonic() - self.start) * (self.total - done) / done
        return f"  [{duration(seconds)} to go]" if seconds > 0.5 else ""


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
