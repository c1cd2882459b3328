"""How the worker comes by its model. Loads torch when it is called, and not before."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft import bank as banks
from weft.errors import ArtifactError

if TYPE_CHECKING:
    from weft.bank import Snapshot
    from weft.serving.engine import Engine

Opens = Callable[[Path, int, Any], Any]
"""Path of a bank, generation, and an engine of another generation or none, to an engine of this one."""


def open_engine(path: Path, generation: int, other: "Engine | None", base: str | None = None) -> "Engine":
    """The engine of a bank, on the model of another one if there is one.

    Args:
        path: of the bank.
        generation: that it shall be of.
        other: an engine of another generation.
        base: where the base model lies here; none: as the bank says.

    Raises:
        ArtifactError: if the bank is of another generation by now, or its base model is not there.
    """
    snapshot = banks.open(path).snapshot()
    if snapshot.generation != generation:
        cause = f"the bank is of generation {snapshot.generation} by now, not {generation}"
        raise ArtifactError(cause, fix="try again", code="S18")
    if other is None:
        return _on_new_model(snapshot, base)
    if other.snapshot.base != snapshot.base:
        raise ArtifactError("the bank is of another base model now", fix="start the server again", code="A08")
    return other.under(snapshot)


def _on_new_model(snapshot: "Snapshot", base: str | None) -> "Engine":
    """An engine on the bank's base model, which is loaded as the first task's run had it.

    Raises:
        ArtifactError: if the model is not there, or has other files.
    """
    from weft.config.model import BaseConfig
    from weft.models import base_folder, load_backbone
    from weft.runs.workspace import noted_choices
    from weft.serving.engine import Engine

    facts = snapshot.base
    named = BaseConfig(model=base) if base else BaseConfig(model=facts.model, revision=facts.revision)
    folder = base_folder.resolve(named)
    if folder.hash != facts.base_hash:
        cause = f"the model here has files {folder.hash[:12]}, and the bank's has {facts.base_hash[:12]}"
        fix = f"name the folder of {facts.name} that the tasks were trained on: --base FOLDER"
        raise ArtifactError(cause, where=folder.origin, fix=fix, code="A08")
    names = snapshot.names(limit=1)
    noted = noted_choices(snapshot.find(names[0]).choices if names else {})
    how: dict[str, Any] = {**noted, "position": facts.position}
    return Engine(load_backbone(folder, **how), snapshot)
