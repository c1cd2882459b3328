"""Commands that tell: tasks, config, bench, doctor."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.cli.app import RUNS, Base, Data, Runs, Sets, app, data_root_of
from weft.config.base import Config
from weft.config.describe import describe, origins
from weft.config.files import parse_overrides
from weft.errors import ConfigError, did_you_mean


@app.command
def tasks(
    *names: str,
    data: Data = None,
    answers: Annotated[
        bool, Parameter(negative="", help="how answers are spread, and what the commonest one scores")
    ] = False,
) -> None:
    """List the tasks that files or folders declare; without them those beside, or else the built-in ones.

    Names are those of an experiment's `tasks:`: files, folders, builtin, or builtin/NAME for one of them.
    """
    from weft.cli import tasks_text
    from weft.tasks import files_in, named
    from weft.text_table import screen_width

    beside = "." if files_in(Path()) else "builtin"
    specs, root, most = list(named(names or (beside,), Path()).values()), data_root_of(data), screen_width()
    if answers:
        print("\n\n".join(tasks_text.answers(spec, root, most) for spec in specs))
    else:
        print(tasks_text.listing(specs, root, most))


@app.command
def config(
    kind: str = "Experiment",
    *,
    explain: Annotated[Path | None, Parameter(help="an experiment file: where each value comes from")] = None,
    set_: Sets = None,
) -> None:
    """Print every key of a configuration, with default and meaning."""
    from weft.experiments.config import Experiment  # which knows all others
    from weft.server.settings import ServeConfig  # but this one

    every: list[type[Config]] = [Experiment, ServeConfig, *_below(Config)]
    kinds = {one.__name__: one for one in every}
    if kind not in kinds:
        raise ConfigError(f"there is no configuration {kind!r}", fix=did_you_mean(kind, kinds))
    overrides = parse_overrides(set_ or [])
    print(describe(kinds[kind]) if explain is None else origins(explain, kinds[kind], overrides))


def _below(kind: type[Config]) -> Iterator[type[Config]]:
    """All classes that are made of one."""
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


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

    root = Path(__file__).parents[3]
    if not (root / "benchmarks" / "__main__.py").is_file():
        raise ConfigError(
            "the benchmarks are not part of the installed package",
            where=str(root / "benchmarks"),
            fix="clone the repository, run scripts/setup there, and then .venv/bin/weft bench",
        )
    command = [sys.executable, "-m", "benchmarks", *names, f"--rounds={rounds}", f"--out={out.absolute()}"]
    command += [f"--data={folder.absolute()}"] if (folder := data_root_of(data)) else []
    command += ["--quick"] * quick + ["--write-docs"] * write_docs
    if code := subprocess.run(command, cwd=root).returncode:
        raise SystemExit(code)


@app.command
def doctor(path: Path | None = None, *, runs: Runs = RUNS, data: Data = None, base: Base = None) -> None:
    """Say what this machine has; with PATH, check a run folder, or every run in a folder."""
    from weft.checks import doctor as checks
    from weft.config.model import BaseConfig
    from weft.errors import ArtifactError

    if path is None:
        root = data_root_of(data)
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
