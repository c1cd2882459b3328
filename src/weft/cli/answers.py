"""Commands that answer: evaluate, predict, export."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from weft.cli.app import RUNS, Base, Data, Quiet, Runs, Sets, app, open_workspace, places_of, show_findings
from weft.config.base import Split
from weft.config.files import changed, parse_overrides
from weft.errors import ConfigError, DataError
from weft.runs.config import EvaluateRun


@app.command
def evaluate(
    run: str, file: Path | None = None, *, split: Split = "test",
    task: Annotated[str | None, Parameter(help="the one task that is scored, on all rows of FILE")] = None,
    rows: Annotated[int | None, Parameter(help="score so many rows, always the same ones; else all")] = None,
    runs: Runs = RUNS, data: Data = None, base: Base = None, set_: Sets = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Answer and score rows of RUN's tasks; prints the scores and the folder with the answers.

    With FILE (CSV, TSV, JSONL or Parquet) its rows, in the columns of the task; for a run of several tasks a
    column 'task' says which one a row is of. --data takes the tasks' own files from another folder.
    Keys for --set: weft config EvaluateRun. A table's evaluation has the experiment's limits.test_rows.
    """
    from weft import stages
    from weft.experiments import validation
    from weft.runs import find, home
    from weft.tasks.one_file import scored_in

    parent, places = find(runs, run), places_of(base, None if file else data)
    with open_workspace(home(parent, runs), data, quiet=quiet, places=places) as workspace:
        places.check_rows(parent.config())
        trained = workspace.config_of(parent)
        whole = EvaluateRun(
            base=trained.base, prompt=trained.prompt, limits=trained.limits,
            tasks=scored_in(trained.tasks, file, task, split),
            seed=trained.seed, run=parent.id, split=split,
        )  # fmt: skip
        config = changed(whole, {"limits.test_rows": rows, **parse_overrides(set_ or [])})
        show_findings(validation.check_evaluation(config, workspace))
        scored = stages.perform(config, workspace)
        for task, scores in scored.result()["scores"].items():
            print(task, json.dumps(scores))
        print(scored.path)


@app.command
def predict(
    *names: str,
    runs: Runs = RUNS,
    data: Data = None,
    base: Base = None,
    task: Annotated[str | None, Parameter(help="the one task that all rows are answered for")] = None,
    generate: Annotated[
        bool, Parameter(negative="", help="also write freely where answers are closed")
    ] = False,
    out: Annotated[Path | None, Parameter(help="JSON-lines file; else the answers are printed")] = None,
) -> None:
    """Answer the rows of a file: weft predict RUN... FILE (CSV, TSV, JSONL or Parquet).

    A row with a column 'task' is answered for that task, one without for every task of the runs. The column
    chooses nothing where there is one task, or a text shows it.
    """
    from weft import storage
    from weft.serving import predictor
    from weft.tasks.files import read_rows

    if len(names) < 2:
        raise ConfigError("predict needs one or more runs, and a file", fix="weft predict RUN... FILE")
    rows = read_rows(Path(names[-1]))
    with open_workspace(runs, data, quiet=True, keep_texts=False, places=places_of(base, data)) as workspace:
        model = predictor.load(*names[:-1], workspace=workspace)
        found = model.predict(rows, generate=generate, task=task)
    lines = [json.dumps(one.as_dict(), ensure_ascii=False) for one in found]
    if out is None:
        print("\n".join(lines))
    else:
        storage.write_text(out, "\n".join(lines) + "\n")
        print(out)
    check_answered(names[-1], [(one.row, one.error) for one in found if one.error])


def check_answered(file: str, faults: list[tuple[int, str]]) -> None:
    """Refuse, after all answers are out, rows that have none.

    Raises:
        DataError: with the first of them.
    """
    if faults:
        raise DataError(
            f"{len(faults)} answers are missing; the first: {faults[0][1]}",
            where=f"{file}, rows {', '.join(str(row + 1) for row, _ in faults[:5])}",
            fix="each of these rows says why in its 'error'; the others are answered",
            code="D02",
        )


@app.command
def export(
    run: str, task: str, out: Path, *, to: Literal["peft"] = "peft", runs: Runs = RUNS, data: Data = None,
    base: Base = None,
) -> None:  # fmt: skip
    """Write one task's prompt as an adapter that stock PEFT loads (prefix prompts only)."""
    from weft.interop import peft_adapter

    with open_workspace(runs, data, quiet=True, places=places_of(base, data)) as workspace:
        print({"peft": peft_adapter.to_peft}[to](run, task, out, workspace))
