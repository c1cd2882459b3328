"""Every error a user can meet, with its exit code.

    WeftError
    ├── ConfigError       2   the command line or a YAML file
    ├── UnsupportedError  2   a sound request that weft does not serve
    ├── DataError         3   rows, labels, files of a task
    ├── ArtifactError     4   a run folder, a prompt file, a base model
    ├── ResourceError     5   disk, memory, a lock held by another process
    └── NumericError      6   a loss or a norm that is no longer a number

Exit code 1 is kept for faults of weft itself, 143 and 130 for a stop by SIGTERM and SIGINT.
"""

import difflib
from collections.abc import Iterable


class WeftError(Exception):
    """A fault the user can act on: what happened, where, and what to do.

    Args:
        cause: what is wrong, one sentence.
        where: file, line, row, field, or the stage and step.
        fix: what the user can do about it.
        code: number in the catalogue of faults, such as `C01`; empty where there is none.

    Attributes:
        shared: whether all processes of a training raise it.
    """

    exit_code = 1
    shared = False

    def __init__(self, cause: str, *, where: str = "", fix: str = "", code: str = "") -> None:
        super().__init__(cause)
        self.cause, self.where, self.fix, self.code = cause, where, fix, code

    def __str__(self) -> str:
        head = f"WEFT-{self.code}: {self.cause}" if self.code else self.cause
        lines = [head]
        lines += [f"  where: {self.where}"] if self.where else []
        lines += [f"  fix:   {self.fix}"] if self.fix else []
        return "\n".join(lines)

    @property
    def line(self) -> str:
        """Cause and remedy in one line, for the place of an answer."""
        return f"{self.cause} ({self.fix})" if self.fix else self.cause

    def as_dict(self) -> dict[str, object]:
        """The same error for machines."""
        return {
            "code": self.code,
            "cause": self.cause,
            "where": self.where,
            "fix": self.fix,
            "exit": self.exit_code,
        }


class ConfigError(WeftError):
    """A wrong command line or configuration file."""

    exit_code = 2


class UnsupportedError(WeftError):
    """A request that is clear, and that weft does not serve."""

    exit_code = 2


class DataError(WeftError):
    """A task's files, rows or labels are not as declared."""

    exit_code = 3


class ArtifactError(WeftError):
    """A run folder, prompt file or base model is missing, damaged or does not fit."""

    exit_code = 4


class ResourceError(WeftError):
    """The machine ran out of something, or another process holds it."""

    exit_code = 5


class NumericError(WeftError):
    """Training left the numbers: NaN, infinity, or a prompt that exploded."""

    exit_code = 6


class Faults(WeftError):
    """Several faults found in one pass, reported together."""

    def __init__(self, faults: Iterable[WeftError]) -> None:
        self.faults = list(faults)
        if not self.faults:
            raise ValueError("Faults needs at least one fault")
        super().__init__(f"{len(self.faults)} problems")
        self.exit_code = self.faults[0].exit_code

    def __reduce__(self) -> tuple[type["Faults"], tuple[list[WeftError]]]:
        return Faults, (self.faults,)

    def __str__(self) -> str:
        return "\n".join([f"{len(self.faults)} problems", *(str(fault) for fault in self.faults)])

    def as_dict(self) -> dict[str, object]:
        """All faults for machines."""
        return {"exit": self.exit_code, "faults": [fault.as_dict() for fault in self.faults]}


class Stopped(BaseException):
    """The process was asked to end by a signal, and what can be kept is kept.

    No fault, and so no WeftError; nor an Exception, which libraries catch and forget.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def raise_all(faults: list[WeftError]) -> None:
    """Raise what was found: nothing, the one fault, or all of them together.

    Raises:
        WeftError: if `faults` is not empty.
    """
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise Faults(faults)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or the list of known names when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(names) or 'none'}"
