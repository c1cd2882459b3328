"""Commands of single stages: teachers, source, adapt."""

from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.app import (
    RUNS,
    Base,
    Data,
    Deterministic,
    DryRun,
    Project,
    Quiet,
    Runs,
    Sets,
    Track,
    app,
    overrides_of,
    shared_workspace,
    show_findings,
)
from weft.config.describe import to_yaml
from weft.runs.config import AdaptRun, SourceRun, TeacherRun

if TYPE_CHECKING:
    from weft.runs.workspace import Workspace


def _stage(
    kind: type[TeacherRun] | type[SourceRun] | type[AdaptRun],
    config: Path,
    workspace: "Workspace",
    overrides: dict[str, object],
    dry: bool,
    track: list[str] | None,
    project: str | None,
) -> None:
    """Run one stage from its own configuration file."""
    from weft import stages, tracking
    from weft.experiments import stage_files, validation
    from weft.interop import peft_adapter

    shown = track if workspace.group.leads and not dry else None
    trackers = tracking.asked(shown, project or tracking.PROJECT, workspace.root)
    configs = stage_files.load_run(config, kind, overrides)
    workspace.group.led(lambda: show_findings(validation.check_runs(configs, workspace)))
    for line in peft_adapter.note(configs, workspace) if not dry else ():
        workspace.progress.say(line)
    with tracking.followed(trackers, configs, workspace):
        for one in configs:
            said = to_yaml(one).rstrip("\n") if dry else stages.perform(one, workspace).path
            if workspace.group.leads:
                print(said)


@app.command
def teachers(
    config: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None,
    deterministic: Deterministic = False, dry_run: DryRun = False, quiet: Quiet = False,
    track: Track = None, project: Project = None,
) -> None:  # fmt: skip
    """Train one plain soft prompt for each task in CONFIG (keys: weft config TeacherRun)."""
    with shared_workspace(runs, data, quiet=quiet) as workspace:
        _stage(
            TeacherRun, config, workspace, overrides_of(set_, base, deterministic), dry_run, track, project
        )


@app.command
def source(
    config: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None,
    deterministic: Deterministic = False, dry_run: DryRun = False, quiet: Quiet = False,
    track: Track = None, project: Project = None,
) -> None:  # fmt: skip
    """Distil teachers into one shared prompt with task factors (keys: weft config SourceRun)."""
    with shared_workspace(runs, data, quiet=quiet) as workspace:
        _stage(SourceRun, config, workspace, overrides_of(set_, base, deterministic), dry_run, track, project)


@app.command
def adapt(
    config: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None,
    deterministic: Deterministic = False, dry_run: DryRun = False, quiet: Quiet = False,
    track: Track = None, project: Project = None,
) -> None:  # fmt: skip
    """Train a method on the target tasks in CONFIG (keys: weft config AdaptRun)."""
    with shared_workspace(runs, data, quiet=quiet) as workspace:
        _stage(AdaptRun, config, workspace, overrides_of(set_, base, deterministic), dry_run, track, project)
