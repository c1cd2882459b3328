"""Commands that answer: evaluate, predict, export."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from weft.cli.app import RUNS, Data, Quiet, Runs, Sets, app, open_workspace, show_findings
from weft.config.base import Split
from weft.config.files import changed, parse_overrides
from weft.errors import ConfigError, DataError
from weft.runs.config import EvaluateRun


@app.command
def evaluate(
    run: str, *, split: Split = "test",
    rows: Annotated[int | None, Parameter(help="score so many rows, always the same ones; else all")] = None,
    runs: Runs = RUNS, data: Data = None, set_: Sets = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Answer and score rows of RUN's tasks; prints the scores and the folder with the answers.

    Keys for --set: weft config EvaluateRun. A table's evaluation has the experiment's limits.test_rows.
    """
    from weft import stages
    from weft.experiments import validation
    from weft.runs import find

    with open_workspace(runs, data, quiet=quiet) as workspace:
        parent = find(runs, run)
        trained = parent.config()
        whole = EvaluateRun(
            base=trained.base, prompt=trained.prompt, limits=trained.limits, tasks=trained.tasks,
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
    generate: Annotated[
        bool, Parameter(negative="", help="also write freely where answers are closed")
    ] = False,
    out: Annotated[Path | None, Parameter(help="JSON-lines file; else the answers are printed")] = None,
) -> None:
    """Answer the rows of a file: weft predict RUN... FILE (CSV, TSV, JSONL or Parquet).

    A row with a column 'task' is answered for that task, one without for every task of the runs.
    """
    from weft import storage
    from weft.checks.findings import Finding
    from weft.serving import predictor
    from weft.serving.doubts import doubts
    from weft.tasks.files import read_rows

    if len(names) < 2:
        raise ConfigError("predict needs one or more runs, and a file", fix="weft predict RUN... FILE")
    rows = read_rows(Path(names[-1]))
    with open_workspace(runs, data, quiet=True, keep_texts=False) as workspace:
        model = predictor.load(*names[:-1], workspace=workspace)
        found = model.predict(rows, generate=generate)
    lines = [json.dumps(one.as_dict(), ensure_ascii=False) for one in found]
    if out is None:
        print("\n".join(lines))
    else:
        storage.write_text(out, "\n".join(lines) + "\n")
        print(out)
    for fault in doubts(found, names[-1]):
        print(Finding("warning", fault), file=sys.stderr)
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
    run: str, task: str, out: Path, *, to: Literal["peft"] = "peft", runs: Runs = RUNS, data: Data = None
) -> None:
    """Write one task's prompt as an adapter that stock PEFT loads (prefix prompts only)."""
    from weft.interop import peft_adapter

    with open_workspace(runs, data, quiet=True) as workspace:
        print({"peft": peft_adapter.to_peft}[to](run, task, out, workspace))
