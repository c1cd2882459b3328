"""The program, and what its commands share."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from weft.config.files import parse_overrides

if TYPE_CHECKING:
    from weft.experiments.jobs import Plan
    from weft.experiments.validation import Checked
    from weft.runs.places import Places
    from weft.runs.workspace import Workspace

app = App(
    name="weft",
    help="Multitask prompt tuning: one frozen model, one shared prompt, two small vectors for each task.",
    version_flags=["--version"],
)
Sets = Annotated[
    list[str] | None, Parameter(name="--set", help="change one key, such as source.optim.steps=500")
]
Runs = Annotated[Path, Parameter(help="folder of runs")]
Data = Annotated[Path | None, Parameter(help="folder of task data; else the variable WEFT_DATA")]
Base = Annotated[str | None, Parameter(help="base model: smollm2, pocket, a folder, or a hub id")]
EncodersHere = Annotated[
    list[str] | None,
    Parameter(
        name="--encoder", help="where an encoder that the run reads with lies now; several: give it again"
    ),
]
DryRun = Annotated[bool, Parameter(negative="", help="say what would be done, and stop")]
Deterministic = Annotated[
    bool, Parameter(negative="", help="float32, eager attention, whole batches: nothing is measured")
]
Track = Annotated[
    list[str] | None,
    Parameter(
        negative="",
        help="show it in a tracker while it runs: tensorboard, trackio, wandb, mlflow; several: with commas",
    ),
]
Project = Annotated[str | None, Parameter(help="of trackers; else the experiment's name, or weft")]
Quiet = Annotated[bool, Parameter(negative="", help="show warnings and results only")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="print JSON, for programs")]
RUNS = Path("runs")


def overrides_of(sets: list[str] | None, base: str | None, deterministic: bool = False) -> dict[str, object]:
    flags = {
        **({"base.model": base_of(base)} if base else {}),
        **({"base.deterministic": True} if deterministic else {}),
    }
    return {**parse_overrides(sets or []), **flags}


def base_of(base: str | None) -> str | None:
    """What --base names: a folder with its whole path, since files have their own folders."""
    if not base:
        return None
    from weft.config.model import BaseConfig
    from weft.models.base_folder import located

    return located(BaseConfig(model=base), Path()).model


def data_root_of(data: Path | None) -> Path | None:
    """The folder of task data: as given, or the variable WEFT_DATA."""
    return data or (Path(os.environ["WEFT_DATA"]) if os.environ.get("WEFT_DATA") else None)


@contextmanager
def open_workspace(
    runs: Path,
    data: Path | None,
    *,
    quiet: bool = False,
    keep_texts: bool = True,
    places: "Places | None" = None,
) -> "Iterator[Workspace]":
    from weft.parallel.launched import check_alone
    from weft.progress import Progress
    from weft.runs.places import Places
    from weft.runs.workspace import Workspace

    check_alone("this command")
    root, known = data_root_of(data), places or Places()
    workspace = Workspace(runs, root, Progress(quiet=quiet), keep_texts=keep_texts, places=known)
    try:
        with workspace.stop.watched():
            yield workspace
    finally:
        workspace.progress.close()


@contextmanager
def shared_workspace(runs: Path, data: Path | None, *, quiet: bool = False) -> "Iterator[Workspace]":
    """A workspace in which all processes that torchrun or accelerate started work together.

    What is shown and said is the first one's.
    """
    from weft.parallel.launched import started_together

    if started_together() == 1:
        with open_workspace(runs, data, quiet=quiet) as workspace:
            yield workspace
        return
    from weft.parallel.joining import joined
    from weft.progress import Progress
    from weft.runs.workspace import Workspace

    with ExitStack() as stack:
        group = stack.enter_context(joined())
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        shown = Progress(quiet=quiet) if group.leads else Progress(stream=nowhere, quiet=True)
        stack.callback(shown.close)
        workspace = Workspace(runs, data_root_of(data), shown, group=group)
        stack.enter_context(workspace.stop.watched())
        yield workspace


def places_of(base: str | None, data: Path | None, encoders: list[str] | None = None) -> "Places":
    """Where a finished run's models and rows lie, as --base, --encoder and --data say."""
    from weft.runs.places import Places

    return Places(base_of(base), data, tuple(base_of(one) or one for one in encoders or ()))


def show_findings(checked: "Checked") -> None:
    """Show the warnings of a pass, and raise its errors.

    Raises:
        WeftError: all errors together.
    """
    for one in checked.findings.warnings:
        print(one, file=sys.stderr)
    checked.findings.raise_errors()


def plan_of(path: Path, overrides: dict[str, object], workspace: "Workspace") -> "Plan":
    from weft.experiments import jobs

    experiment = jobs.load_experiment(path, overrides)
    return jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
