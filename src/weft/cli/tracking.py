"""Trackers: what a command's runs are followed by, and a command for runs that are finished."""

import sys
from contextlib import redirect_stdout
from typing import Annotated

from cyclopts import Parameter

from weft.cli.app import RUNS, Project, Runs, app
from weft.errors import ConfigError, ResourceError, WeftError

To = Annotated[
    list[str], Parameter(negative="", help="tensorboard, trackio, wandb, mlflow; several: with commas")
]


@app.command
def track(*names: str, to: To, project: Project = None, runs: Runs = RUNS) -> None:
    """Tell trackers of finished runs: weft track RUN... --to tensorboard.

    What a tracker was told of a run before is not told again. How far it was is noted under RUNS/.trackers;
    remove a run's folder there to have all of it told once more.
    """
    from weft import tracking
    from weft.runs import find

    trackers = tracking.asked(to, project or tracking.PROJECT, runs)
    if not names or not trackers.names:
        raise ConfigError("track needs runs and a tracker", fix="weft track RUN... --to tensorboard")
    found = [find(runs, name) for name in names]
    for run in found:
        for name in trackers.names:
            try:
                with redirect_stdout(sys.stderr):
                    steps = tracking.Telling(run, name, trackers).tell()
            except WeftError:
                raise
            except Exception as error:
                raise ResourceError(
                    f"{name} did not take it: {tracking.reason(error)}",
                    where=run.id,
                    fix="see to it, and run the same command again: it goes on from there",
                ) from error
            print(f"{run.id}  {name}: {'told before' if steps is None else f'{steps} steps'}")
