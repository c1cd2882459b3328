"""The command line: one function a verb, and no logic of its own."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from weft.config import NAME, AdaptRun, EvaluateRun, Experiment, SourceRun, Split, TeacherRun
from weft.config_files import describe, load_config, origins, parse_overrides, read_yaml, to_yaml
from weft.errors import ConfigError, Stopped, WeftError, did_you_mean
from weft.stopping import Stop

if TYPE_CHECKING:
    from weft.experiments import Plan
    from weft.validation import Checked
    from weft.workspace import Workspace

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


def _overrides(sets: list[str] | None, base: str | None, deterministic: bool = False) -> dict[str, object]:
    flags = {
        **({"base.model": base} if base else {}),
        **({"base.deterministic": True} if deterministic else {}),
    }
    return {**parse_overrides(sets or []), **flags}


def _data_root(data: Path | None) -> Path | None:
    """The folder of task data: as given, or the variable WEFT_DATA."""
    return data or (Path(os.environ["WEFT_DATA"]) if os.environ.get("WEFT_DATA") else None)


@contextmanager
def _workspace(
    runs: Path, data: Path | None, *, quiet: bool = False, keep_texts: bool = True
) -> "Iterator[Workspace]":
    from weft.progress import Progress
    from weft.workspace import Workspace

    root = _data_root(data)
    workspace = Workspace(runs, root, Progress(quiet=quiet), keep_texts=keep_texts)
    try:
        with workspace.stop.watched():
            yield workspace
    finally:
        workspace.progress.close()


def _name_in(experiment: Path) -> str:
    """The name that an experiment's file gives; its faults are told later, all together."""
    name = read_yaml(experiment).get("name")
    return name if isinstance(name, str) and re.fullmatch(NAME, name) else "unnamed"


def _validate(checked: "Checked") -> None:
    """Show the warnings of a pass, and raise its errors.

    Raises:
        WeftError: all errors together.
    """
    for one in checked.findings.warnings:
        print(one, file=sys.stderr)
    checked.findings.raise_errors()


def _plan(path: Path, overrides: dict[str, object], workspace: "Workspace") -> "Plan":
    from weft import experiments

    experiment = load_config(path, Experiment, overrides)
    return experiments.plan(experiment, experiments.specs_of(experiment), workspace.run_id)


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
) -> None:
    """Run an experiment whole: teachers, source, adaptation, scores, table, report.

    What is finished is not run again. The last line is the path of the report.
    """
    import time

    from weft import storage

    overrides = _overrides(set_, base, deterministic)
    held = nullcontext() if dry_run else storage.locked(runs / ".experiments" / _name_in(experiment))
    with held, _workspace(runs, data, quiet=quiet) as workspace:  # held first: loading torch takes seconds
        from weft import launching, report_html, reporting, validation

        checked = validation.check_file(experiment, overrides, workspace)
        _validate(checked)
        plan = _plan(experiment, overrides, workspace)
        if dry_run:
            print(launching.describe(plan, workspace))
            return
        checked.save(runs, plan.experiment)
        start = time.monotonic()
        launching.launch(plan, workspace)
        entries = reporting.collect(plan, runs)
        print(reporting.table_text(entries, plan))
        for sentence in reporting.verdict(entries, plan):
            print(sentence)
        path = report or runs / f"{plan.experiment.name}-report.html"
        report_html.write_report(plan, runs, path, time.monotonic() - start)
        print(f"\nreport: {path.resolve()}")


@app.command
def validate(
    experiment: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None
) -> None:
    """Check an experiment's settings, data and base model, all at once, and train nothing.

    Exit code 0 with warnings or without; else that of the first error.
    """
    from weft import validation

    with _workspace(runs, data, quiet=True) as workspace:
        checked = validation.check_file(experiment, _overrides(set_, base), workspace)
    print("\n".join([*validation.row_lines(checked), str(checked.findings)]))
    if checked.findings.errors:
        raise SystemExit(checked.findings.errors[0].exit_code)


def _stage(
    kind: type[TeacherRun] | type[SourceRun] | type[AdaptRun],
    config: Path,
    workspace: "Workspace",
    overrides: dict[str, object],
    dry: bool,
) -> None:
    """Run one stage from its own configuration file."""
    from weft import experiments, stages, validation

    configs = experiments.load_run(config, kind, overrides)
    _validate(validation.check_runs(configs, workspace))
    for one in configs:
        if dry:
            print(to_yaml(one), end="")
        else:
            print(stages.perform(one, workspace).path)


@app.command
def teachers(
    config: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None,
    deterministic: Deterministic = False, dry_run: DryRun = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train one plain soft prompt for each task in CONFIG (keys: weft config TeacherRun)."""
    with _workspace(runs, data, quiet=quiet) as workspace:
        _stage(TeacherRun, config, workspace, _overrides(set_, base, deterministic), dry_run)


@app.command
def source(
    config: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None,
    deterministic: Deterministic = False, dry_run: DryRun = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Distil teachers into one shared prompt with task factors (keys: weft config SourceRun)."""
    with _workspace(runs, data, quiet=quiet) as workspace:
        _stage(SourceRun, config, workspace, _overrides(set_, base, deterministic), dry_run)


@app.command
def adapt(
    config: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None,
    deterministic: Deterministic = False, dry_run: DryRun = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train a method on the target tasks in CONFIG (keys: weft config AdaptRun)."""
    with _workspace(runs, data, quiet=quiet) as workspace:
        _stage(AdaptRun, config, workspace, _overrides(set_, base, deterministic), dry_run)


@app.command
def evaluate(
    run: str, *, split: Split = "test", rows: int | None = None, runs: Runs = RUNS, data: Data = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Answer and score rows of RUN's tasks; prints the scores and the folder with the answers."""
    from weft import stages
    from weft.runs import find

    with _workspace(runs, data, quiet=quiet) as workspace:
        parent = find(runs, run)
        trained = parent.config()
        limits = trained.limits.model_copy(update={"test_rows": rows})
        config = EvaluateRun(
            base=trained.base, prompt=trained.prompt, limits=limits, tasks=trained.tasks, seed=trained.seed,
            run=parent.id, split=split,
        )  # fmt: skip
        scored = stages.perform(config, workspace)
        for task, scores in scored.result()["scores"].items():
            print(task, json.dumps(scores))
        print(scored.path)


@app.command
def predict(
    *names: str,
    runs: Runs = RUNS,
    data: Data = None,
    generate: Annotated[
        bool, Parameter(negative="", help="also write freely where answers are closed")
    ] = False,
    out: Annotated[Path | None, Parameter(help="JSON-lines file; else the answers are printed")] = None,
) -> None:
    """Answer the rows of a file: weft predict RUN... FILE (CSV, TSV, JSONL or Parquet).

    A row with a column 'task' is answered for that task, one without for every task of the runs.
    """
    from weft import predictor, storage
    from weft.tasks.files import read_rows

    if len(names) < 2:
        raise ConfigError("predict needs one or more runs, and a file", fix="weft predict RUN... FILE")
    rows = read_rows(Path(names[-1]))
    with _workspace(runs, data, quiet=True, keep_texts=False) as workspace:
        model = predictor.load(*names[:-1], workspace=workspace)
        found = [
            json.dumps(one.as_dict(), ensure_ascii=False) for one in model.predict(rows, generate=generate)
        ]
    if out is None:
        print("\n".join(found))
        return
    storage.write_text(out, "\n".join(found) + "\n")
    print(out)


@app.command
def table(
    experiment: Path, *, runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None,
    form: Annotated[Literal["text", "markdown", "csv"], Parameter(name="--format")] = "text",
) -> None:  # fmt: skip
    """Print an experiment's table from the runs that are finished."""
    from weft import reporting

    with _workspace(runs, data, quiet=True) as workspace:
        plan = _plan(experiment, _overrides(set_, base), workspace)
        entries = reporting.collect(plan, runs)
        if form == "csv":
            print(reporting.table_csv(entries), end="")
            return
        print(
            reporting.table_text(entries, plan) if form == "text" else reporting.table_markdown(entries, plan)
        )


@app.command
def report(
    experiment: Path, out: Path | None = None, *, runs: Runs = RUNS, data: Data = None, base: Base = None,
    set_: Sets = None,
) -> None:  # fmt: skip
    """Write an experiment's HTML report from the runs that are finished."""
    from weft import report_html

    with _workspace(runs, data, quiet=True) as workspace:
        plan = _plan(experiment, _overrides(set_, base), workspace)
        path = out or runs / f"{plan.experiment.name}-report.html"
        report_html.write_report(plan, runs, path, None)
        print(path.resolve())


@app.command
def export(
    run: str, task: str, out: Path, *, to: Literal["peft"] = "peft", runs: Runs = RUNS, data: Data = None
) -> None:
    """Write one task's prompt as an adapter that stock PEFT loads (prefix prompts only)."""
    from weft import interop

    with _workspace(runs, data, quiet=True) as workspace:
        print({"peft": interop.to_peft}[to](run, task, out, workspace))


@app.command
def tasks(*paths: Path, data: Data = None) -> None:
    """List the tasks that files or folders declare; without them those beside, or else the built-in ones."""
    from weft.tasks import BUILTIN, find_specs, summary

    beside = Path() if any(Path().glob("*.yaml")) else BUILTIN
    for spec in find_specs(paths or (beside,)).values():
        print(summary(spec, _data_root(data)))


@app.command
def config(
    kind: str = "Experiment",
    *,
    explain: Annotated[Path | None, Parameter(help="an experiment file: where each value comes from")] = None,
    set_: Sets = None,
) -> None:
    """Print every key of a configuration, with default and meaning."""
    from weft import config as module
    from weft.config import Config

    kinds = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Config)
    }
    if kind not in kinds:
        raise ConfigError(f"there is no configuration {kind!r}", fix=did_you_mean(kind, kinds))
    overrides = parse_overrides(set_ or [])
    print(describe(kinds[kind]) if explain is None else origins(explain, kinds[kind], overrides))


@app.command
def bench(
    *names: str,
    rounds: Annotated[int, Parameter(help="how often each side is timed")] = 5,
    out: Annotated[Path, Parameter(help="folder of bench.json; what it holds of others stays")] = Path(
        "bench"
    ),
    data: Data = None,
    quick: Annotated[bool, Parameter(negative="", help="tiny shapes: to see that it runs")] = False,
    write_docs: Annotated[bool, Parameter(negative="", help="print docs/performance.md anew")] = False,
) -> None:
    """Time weft beside PEFT on this machine: all benchmarks of a clone, or those named (benchmarks/)."""
    import subprocess

    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "__main__.py").is_file():
        raise ConfigError(
            "the benchmarks are not part of the installed package",
            where=str(root / "benchmarks"),
            fix="clone the repository, run scripts/setup there, and then .venv/bin/weft bench",
        )
    command = [sys.executable, "-m", "benchmarks", *names, f"--rounds={rounds}", f"--out={out.absolute()}"]
    command += [f"--data={folder.absolute()}"] if (folder := _data_root(data)) else []
    command += ["--quick"] * quick + ["--write-docs"] * write_docs
    if code := subprocess.run(command, cwd=root).returncode:
        raise SystemExit(code)


@app.command
def doctor(path: Path | None = None, *, runs: Runs = RUNS, data: Data = None, base: Base = None) -> None:
    """Say what this machine has; with PATH, check a run folder, or every run in a folder."""
    from weft import doctor as checks
    from weft.config import BaseConfig
    from weft.errors import ArtifactError

    if path is None:
        root = _data_root(data)
        for name, finding in checks.machine(BaseConfig(model=base or "smollm2"), root, runs):
            print(f"{name:14} {finding}")
        return
    found = checks.check(path)
    for name, faults in found.items():
        print(f"{name}: {'; '.join(faults) or 'whole'}")
    wrong = {name: faults for name, faults in found.items() if faults}
    if wrong:
        first = "; ".join(next(iter(wrong.values())))
        raise ArtifactError(f"{len(wrong)} of {len(found)} runs: {first}", where=str(path))


def main() -> None:
    """Entry point: what a user can act on is one message; `--debug` keeps the traceback."""
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        with Stop().watched():
            app(arguments, exit_on_error=False)
    except CycloptsError:
        raise SystemExit(2) from None  # cyclopts has said what is wrong
    except (KeyboardInterrupt, Stopped) as stop:
        print("stopped; what is finished is kept, and the same command goes on", file=sys.stderr)
        raise SystemExit(getattr(stop, "exit_code", 130)) from None
    except BrokenPipeError:  # nobody reads on; training that was cut short is no success
        raise SystemExit(141) from None
    except Exception as error:
        if debug:
            raise
        with suppress(OSError):  # the disk under standard error may be the one that is full
            print(f"error: {error if isinstance(error, WeftError) else _unforeseen(error)}", file=sys.stderr)
        raise SystemExit(getattr(error, "exit_code", 5 if isinstance(error, OSError) else 1)) from None


def _unforeseen(error: Exception) -> str:
    """What to say of an error that weft should have foreseen, or that the system has."""
    if isinstance(error, OSError):
        return f"{error}\n  fix:   see to the disk and the permissions, and run the same command again"
    return f"{type(error).__name__}: {error}\n  fix:   this is a fault of weft itself; --debug shows where"
