"""The program, and what its commands share."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from weft.config.files import load_config, parse_overrides
from weft.experiments.config import Experiment

if TYPE_CHECKING:
    from weft.experiments.jobs import Plan
    from weft.experiments.validation import Checked
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
DryRun = Annotated[bool, Parameter(negative="", help="say what would be done, and stop")]
Deterministic = Annotated[
    bool, Parameter(negative="", help="float32, eager attention, whole batches: nothing is measured")
]
Quiet = Annotated[bool, Parameter(negative="", help="show warnings and results only")]
RUNS = Path("runs")


def overrides_of(sets: list[str] | None, base: str | None, deterministic: bool = False) -> dict[str, object]:
    flags = {
        **({"base.model": base} if base else {}),
        **({"base.deterministic": True} if deterministic else {}),
    }
    return {**parse_overrides(sets or []), **flags}


def data_root_of(data: Path | None) -> Path | None:
    """The folder of task data: as given, or the variable WEFT_DATA."""
    return data or (Path(os.environ["WEFT_DATA"]) if os.environ.get("WEFT_DATA") else None)


@contextmanager
def open_workspace(
    runs: Path, data: Path | None, *, quiet: bool = False, keep_texts: bool = True
) -> "Iterator[Workspace]":
    from weft.progress import Progress
    from weft.runs.workspace import Workspace

    root = data_root_of(data)
    workspace = Workspace(runs, root, Progress(quiet=quiet), keep_texts=keep_texts)
    try:
        with workspace.stop.watched():
            yield workspace
    finally:
        workspace.progress.close()


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

    experiment = load_config(path, Experiment, overrides)
    return jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
