"""What a bank refuses beyond what every artifact may be refused for."""

from collections.abc import Sequence

from weft.errors import ArtifactError, ResourceError


class UnknownTaskError(ArtifactError):
    """The bank has no task of that name; the remedy names those whose names are near.

    Args:
        cause: what is wrong.
        near: these names, for programs.
        about: as of every error.
    """

    def __init__(self, cause: str, *, near: Sequence[str] = (), **about: str) -> None:
        super().__init__(cause, **about)
        self.near = tuple(near)


class QuarantinedError(ArtifactError):
    """The numbers or the entry of one task are not those that were written; other tasks are served."""


class ConflictError(ResourceError):
    """The bank is of another generation than the one that a change was meant for."""
