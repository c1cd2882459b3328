"""What the engine needs of a bank: one generation of it, that nobody changes any more."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from weft.config.task import TaskSpec
from weft.methods.method import Saved


class Entry(Protocol):
    """A task of a bank."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Literal["factors", "prompt", "readers"]: ...
    @property
    def group(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def task(self) -> TaskSpec: ...
    @property
    def source_tokens(self) -> int: ...
    @property
    def since(self) -> int: ...
    @property
    def prompt_length(self) -> int: ...


class Snapshot(Protocol):
    """One generation of a bank."""

    @property
    def generation(self) -> int: ...

    def find(self, name: str) -> Entry:
        """The task of that name.

        Raises:
            ArtifactError: if there is none, with near names; or its numbers are damaged.
        """

    def factors(self, entries: Sequence[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """`u [B, l, R]` and `v [B, R, d]` of entries of one group."""

    def shared(self, group: str) -> NDArray[Any]:
        """The shared prompt of a group `[l, d]`."""

    def prompt(self, entry: Any) -> NDArray[Any]:
        """An entry's whole prompt `[P, d]`."""

    def saved(self, entry: Any) -> Saved:
        """What a task of `method: weft` kept."""
