"""What the server needs of a bank and of an engine; `weft.bank` and `weft.serving` have it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from weft.config.task import TaskSpec
from weft.errors import ArtifactError


class UnknownTaskError(ArtifactError):
    """No such task."""


class QuarantinedError(ArtifactError):
    """A task whose numbers are not those that were written."""


class Entry(Protocol):
    name: str
    kind: str
    group: str
    sha256: str
    task: TaskSpec
    prompt_length: int
    metrics: Mapping[str, Any]
    run: str


class Snapshot(Protocol):
    generation: int
    base: Any

    def find(self, name: str) -> Entry: ...
    def names(
        self, *, prefix: str = "", after: str = "", limit: int = 100, group: str | None = None
    ) -> list[str]: ...
    def search(self, text: str, limit: int) -> list[str]: ...
    def __len__(self) -> int: ...


class Bank(Protocol):
    @property
    def generation(self) -> int: ...
    def snapshot(self) -> Snapshot: ...


@dataclass(frozen=True)
class Sources:
    """Where the two processes get the bank and the engine; functions of modules, since a process is started.

    Attributes:
        bank: opens the bank at a path; in both processes.
        pin: what a worker needs to open the very same generation, for JSON.
        engine: path of the bank, such a pin, and an engine of another generation to share the model with, or
            none, to an engine; in the worker alone.
        request: fields to the engine's Request; in the worker alone.
    """

    bank: Callable[[Path], Bank]
    pin: Callable[[Any], Any]
    engine: Callable[[Path, Any, Any], Any]
    request: Callable[..., Any]
