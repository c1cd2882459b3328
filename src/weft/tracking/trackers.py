"""The trackers that weft knows, which are accelerate's: those asked for, and a run opened in one of them."""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.errors import ConfigError, UnsupportedError, did_you_mean

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

NAMES = ("tensorboard", "trackio", "wandb", "mlflow")  # each also that of its package and of weft's extra
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # it is a folder's name, too
PROJECT = "weft"  # where none is named, and there is no experiment
FOLDER = ".trackers"  # of the folder of runs
Settings = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Trackers:
    """What is told of runs.

    Attributes:
        names: of the trackers.
        project: what runs are grouped by there: a project, an experiment.
        root: the folder of runs.
    """

    names: tuple[str, ...]
    project: str
    root: Path

    def folder(self, name: str, run: str) -> Path:
        """Where it is noted how far a tracker was told of a run, and TensorBoard's files lie."""
        return self.root / FOLDER / name / self.project / run


def asked(names: Sequence[str] | None, project: str, root: Path) -> Trackers:
    """The trackers that options name, each once, in their order.

    Args:
        names: as given: names, or several with commas between them.
        project: name of the project.
        root: the folder of runs.

    Raises:
        ConfigError: for a tracker that weft does not know, or a project that cannot be a folder.
        UnsupportedError: if a tracker's package is not installed.
    """
    found = dict.fromkeys(name.strip() for one in names or () for name in one.split(",") if name.strip())
    for name in found:
        if name not in NAMES:
            raise ConfigError(f"there is no tracker {name!r}", where="--track", fix=did_you_mean(name, NAMES))
        if importlib.util.find_spec(name) is None:
            raise UnsupportedError(
                f"tracking with {name} needs its package", fix=f"pip install 'weft[{name}]'", code="C18"
            )
    if not _NAMED.fullmatch(project):
        raise ConfigError(
            f"a project cannot be named {project!r}",
            where="--project",
            fix="use letters, digits, '_', '.' and '-', 64 at most, a letter or digit first",
        )
    return Trackers(tuple(found), project, root)


def opened(
    name: str, project: str, folder: Path, settings: Settings, before: str | None
) -> "tuple[GeneralTracker, str]":
    """A run in a tracker, new or taken up again, and the tracker's own name of it.

    Args:
        name: of the tracker.
        project: of the run.
        folder: named as the run; for files of TensorBoard.
        settings: the run's configuration.
        before: the tracker's own name of the run, if it knows the run.
    """
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # which accelerate's log wants
    run = folder.name
    where: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "tensorboard": ((run,), {"logging_dir": folder.parent}),
        "trackio": (
            (project,),
            {"name": run, "resume": "allow", "config": dict(settings), "embed": False} | _NO_METERS,
        ),
        "wandb": (
            (project,),
            {"name": run, "id": run, "resume": "allow", "config": dict(settings), "reinit": "create_new"},
        ),
        "mlflow": ((project,), {"run_name": run, "run_id": before}),
    }
    given, options = where[name]
    tracker = LOGGER_TYPE_TO_CLASS[name](*given, **options)
    tracker.start()
    if before is None and "config" not in options:
        tracker.store_init_configuration(dict(settings))
    return tracker, tracker.tracker.info.run_id if name == "mlflow" else run


_NO_METERS = {"auto_log_gpu": False, "auto_log_cpu": False}  # of this process, which trains nothing
