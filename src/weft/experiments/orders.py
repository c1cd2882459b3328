"""Runs as an order to another process, perhaps of another machine: what it is told, and what comes back."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from weft.errors import WeftError
from weft.runs.config import AnyRun

if TYPE_CHECKING:
    from weft.runs.workspace import Workspace

Outcomes = dict[str, WeftError | None]  # of each run: what it failed of, if it did


@dataclass(frozen=True)
class Order:
    """Runs that train in one batch, or one run.

    Attributes:
        configs: their configurations.
        root: the folder of runs, which whoever works on it must see under this name.
        data_root: the folder of task data, likewise.
    """

    configs: tuple[AnyRun, ...]
    root: Path
    data_root: Path | None


def fill(order: Order) -> Outcomes:
    """Run what an order asks for; what is finished is not run again, and what was begun goes on.

    Raises:
        ResourceError: at once: a full disk or a folder in use would stop every other run as well.
        NumericError: if a run changed the frozen model.
    """
    from weft import stages

    workspace = _workspace(order.root, order.data_root)
    with workspace.stop.watched():
        found = {
            name: outcome if isinstance(outcome, WeftError) else None
            for name, outcome in stages.perform_together(order.configs, workspace)
        }
    workspace.check_frozen()
    return found


@cache
def _workspace(root: Path, data_root: Path | None) -> "Workspace":
    """Of this process, so that a model is loaded once for all its orders."""
    from weft.runs.workspace import Workspace

    return Workspace(root, data_root)
