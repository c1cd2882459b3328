"""What a pass over a plan finds: all its faults, errors and warnings, in the order of finding."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from textwrap import fill
from typing import Literal, TypeVar

from weft.config.base import Allowance
from weft.errors import Faults, WeftError, raise_all

T = TypeVar("T")
WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """A fault that stops a run (error), or one that a reader of its scores should know (warning)."""

    level: Literal["error", "warning"]
    fault: WeftError

    def __str__(self) -> str:
        """A block of lines for a terminal of 80 columns; words are not broken, so paths stay whole."""
        head, *rest = f"{self.level}: {self.fault}".split("\n")
        parts = [_wrapped(head, 2), *(_wrapped(line, 9) for line in rest)]
        return "\n".join(parts)


def _wrapped(line: str, indent: int) -> str:
    return fill(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


@dataclass
class Findings:
    """Faults as they are found; the same fault is kept once.

    Args:
        allow: faults of the data that are no errors here.
    """

    allow: Collection[Allowance] = ()
    found: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[WeftError]:
        """What stops the run."""
        return [one.fault for one in self.found if one.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What does not."""
        return [one for one in self.found if one.level == "warning"]

    def error(self, fault: WeftError) -> None:
        """Note a fault that stops the run."""
        self._add("error", fault)

    def warn(self, fault: WeftError) -> None:
        """Note a fault that does not."""
        self._add("warning", fault)

    def unless(self, allowance: Allowance, fault: WeftError) -> None:
        """Note an error, or a warning where the experiment allows it."""
        if allowance in self.allow:
            self.warn(fault)
            return
        fault.fix += f"; or allow: [{allowance}] in the experiment, which its table then says"
        self.error(fault)

    def attempt(self, work: Callable[[], T]) -> T | None:
        """What the work gives; where it raises, its faults are noted and nothing is given."""
        try:
            return work()
        except Faults as several:
            for fault in several.faults:
                self.error(fault)
        except WeftError as fault:
            self.error(fault)
        return None

    def raise_errors(self) -> None:
        """Raise all errors together.

        Raises:
            WeftError: if there are any.
        """
        raise_all(self.errors)

    def __str__(self) -> str:
        """All blocks, and a last line that counts them."""
        count = f"{len(self.errors)} errors, {len(self.warnings)} warnings"
        return "\n".join([*map(str, self.found), count])

    def _add(self, level: Literal["error", "warning"], fault: WeftError) -> None:
        if str(fault) not in {str(one.fault) for one in self.found}:
            self.found.append(Finding(level, fault))
