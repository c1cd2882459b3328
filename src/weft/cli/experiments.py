"""Commands on whole experiments: run, plan, validate, table, report."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from weft.cli.app import (
    RUNS,
    AsJson,
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
    open_workspace,
    overrides_of,
    plan_of,
    shared_workspace,
    show_findings,
)
from weft.config.base import NAME
from weft.config.files import read_yaml
from weft.errors import ConfigError
from weft.parallel.launched import check_alone, is_first

if TYPE_CHECKING:
    from weft.experiments.executors import Executor, Kind
    from weft.experiments.validation import Checked


def _name_in(experiment: Path) -> str:
    """The name that an experiment's file gives; its faults are told later, all together."""
    name = read_yaml(experiment).get("name")
    return name if isinstance(name, str) and re.fullmatch(NAME, name) else "unnamed"


@app.command
def run(
    experiment: Path,
    *,
    runs: Runs = RUNS,
    data: Data = None,
    base: Base = None,
    set_: Sets = None,
    report: Annotated[Path | None, Parameter(help="where the HTML report goes")] = None,
    deterministic: Deterministic = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    workers: Annotated[int, Parameter(help="runs at once, each in a process of its own")] = 1,
    executor: Annotated[
        Literal["local", "ray", "slurm"], Parameter(help="who runs them: see docs/how-to/scale.md")
    ] = "local",
    option: Annotated[
        list[str] | None, Parameter(help="of Ray or Slurm, NAME=VALUE; several: give it again")
    ] = None,
    track: Track = None,
    project: Project = None,
) -> None:
    """Run an experiment whole: teachers, source, adaptation, scores, table, report.

    What is finished is not run again. The last line is the path of the report.
    """
    import time

    from weft import storage, tracking

    overrides, writes = overrides_of(set_, base, deterministic), is_first() and not dry_run
    trackers = tracking.asked(track if writes else None, project or _name_in(experiment), runs)
    held = storage.locked(runs / ".experiments" / _name_in(experiment)) if writes else nullcontext()
    if workers > 1 or executor != "local":
        check_alone("--workers")
    with (
        held,
        shared_workspace(runs, data, quiet=quiet) as workspace,
    ):  # held first: loading torch takes seconds
        from weft.experiments import execution, tables, validation
        from weft.experiments.report import html_page
        from weft.interop import peft_adapter

        def checked() -> "Checked":
            found = validation.check_file(experiment, overrides, workspace)
            show_findings(found)
            return found

        found = workspace.group.led(checked)
        plan = plan_of(experiment, overrides, workspace)
        if dry_run:
            workspace.group.led(lambda: print(execution.describe(plan, workspace)))
            return
        if writes:
            found.save(runs, plan.experiment)
        configs = [job.config for job in plan.jobs]
        for line in peft_adapter.note(configs, workspace):
            workspace.progress.say(line)
        start = time.monotonic()
        followed = tracking.followed(trackers, configs, workspace)
        with _executor(executor, workers, runs, option) as beside, followed:
            execution.launch(plan, workspace, beside)
        if not writes:
            return
        entries = tables.collect(plan, runs)
        print(tables.table_text(entries, plan))
        for sentence in tables.verdict(entries, plan):
            print(fill(sentence, tables.WIDTH, break_on_hyphens=False))
        path = report or runs / f"{plan.experiment.name}-report.html"
        html_page.write_report(plan, runs, path, time.monotonic() - start)
        print(f"\nreport: {path.resolve()}")


@app.command
def plan(
    experiment: Path,
    *,
    runs: Runs = RUNS,
    data: Data = None,
    base: Base = None,
    set_: Sets = None,
    workers: Annotated[int, Parameter(help="runs at once")] = 1,
    machine: Annotated[
        Path | None, Parameter(help="file of another machine, which weft plan made there; none: this one")
    ] = None,
    measure: Annotated[bool, Parameter(negative="", help="measure this machine again")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what an experiment costs before it runs: operations, seconds, memory and disk of every run.

    This machine is measured once for each base model, in about a minute; --workers: how long so many take.
    """
    from weft.cli import costs_text
    from weft.experiments.costs import measuring
    from weft.experiments.costs.plan import costs
    from weft.text_table import screen_width

    _check_workers(workers)
    with open_workspace(runs, data, quiet=as_json) as workspace:
        planned = plan_of(experiment, overrides_of(set_, base), workspace)
        configs = [job.config for job in planned.jobs]
        known, measured, path = measuring.known(configs, workspace, machine, again=measure)
        found = costs(planned, workspace, known, measured, workers)
    print(json.dumps(found.as_dict()) if as_json else costs_text.text(found, path, screen_width()))


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise ConfigError(f"{workers} runs at once", where="--workers", fix="give 1 or more", code="C06")


@contextmanager
def _executor(
    kind: "Kind", workers: int, root: Path, options: list[str] | None
) -> "Iterator[Executor | None]":
    """Who runs several runs beside each other; none, where this process runs one after the other."""
    from weft.experiments.executors import executor

    _check_workers(workers)
    if kind == "local" and workers == 1:
        yield None
        return
    given = dict(one.partition("=")[::2] for one in options or ())
    found = executor(kind, workers, root.resolve(), given)
    try:
        yield found
    finally:
        found.close()


@app.command
def validate(
    experiment: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None
) -> None:
    """Check an experiment's settings, data and base model, all at once, and train nothing.

    Exit code 0 with warnings or without; else that of the first error.
    """
    from weft.experiments import validation

    with open_workspace(runs, data, quiet=True) as workspace:
        checked = validation.check_file(experiment, overrides_of(set_, base), workspace)
    print("\n".join([*validation.row_lines(checked), str(checked.findings)]))
    if checked.findings.errors:
        raise SystemExit(checked.findings.errors[0].exit_code)


@app.command
def table(
    experiment: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None,
    form: Annotated[Literal["text", "markdown", "csv"], Parameter(name="--format")] = "text",
) -> None:  # fmt: skip
    """Print an experiment's table from the runs that are finished."""
    from weft.experiments import tables

    with open_workspace(runs, data, quiet=True) as workspace:
        plan = plan_of(experiment, overrides_of(set_, base), workspace)
        entries = tables.collect(plan, runs)
        if form == "csv":
            print(tables.table_csv(entries), end="")
            return
        print(tables.table_text(entries, plan) if form == "text" else tables.table_markdown(entries, plan))


@app.command
def report(
    experiment: Path, out: Path | None = None, *, runs: Runs = RUNS, data: Data = None, base: Base = None,
    set_: Sets = None,
) -> None:  # fmt: skip
    """Write an experiment's HTML report from the runs that are finished."""
    from weft.experiments.report import html_page

    with open_workspace(runs, data, quiet=True) as workspace:
        plan = plan_of(experiment, overrides_of(set_, base), workspace)
        path = out or runs / f"{plan.experiment.name}-report.html"
        html_page.write_report(plan, runs, path, None)
        print(path.resolve())
