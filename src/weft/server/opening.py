"""How the worker comes by its engine. Loads torch when it is called, and not before."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft import bank as banks
from weft.errors import ArtifactError

if TYPE_CHECKING:
    from weft.serving.engine import Engine

Opens = Callable[[Path, int, Any], Any]
"""Path of a bank, generation, and an engine of another generation or none, to an engine of this one."""


def open_engine(
    path: Path,
    generation: int,
    other: "Engine | None",
    base: str | None = None,
    encoders: Sequence[str] = (),
) -> "Engine":
    """The engine of a bank, on the model of another one if there is one.

    Args:
        path: of the bank.
        generation: that it shall be of.
        other: an engine of another generation.
        base: where the base model lies here; none: as the bank says.
        encoders: likewise of encoders that read beside it.

    Raises:
        ArtifactError: if the bank is of another generation by now, or its base model is not there.
    """
    from weft.serving.engine import Engine

    snapshot = banks.open(path).snapshot()
    if snapshot.generation != generation:
        cause = f"the bank is of generation {snapshot.generation} by now, not {generation}"
        raise ArtifactError(cause, fix="try again", code="S18")
    if other is None:
        return Engine.of(snapshot, base=base, encoders=encoders)
    if other.snapshot.base != snapshot.base:
        raise ArtifactError("the bank is of another base model now", fix="start the server again", code="A08")
    return other.under(snapshot)
