"""Commands that answer: evaluate, predict, export."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from weft.cli.app import (
    RUNS,
    AsJson,
    Base,
    Data,
    EncodersHere,
    Project,
    Quiet,
    Runs,
    Sets,
    Track,
    app,
    open_workspace,
    places_of,
    show_findings,
)
from weft.config.base import Split
from weft.config.decoding import GREEDY, Decoding
from weft.config.files import changed, parse_overrides
from weft.errors import ConfigError, DataError
from weft.runs.config import EvaluateRun
from weft.text_table import screen_width

Beams = Annotated[int, Parameter(help="beginnings kept in the search of written answers; 1: greedy")]
Sample = Annotated[
    float,
    Parameter(help="draw written answers at this temperature, a row's from its text and --seed; 0: do not"),
]
TopP = Annotated[float, Parameter(help="draw among the likeliest tokens with this probability together")]
Seed = Annotated[int, Parameter(help="of draws")]

STREAMS = (Path("-"), Path("/dev/stdout"), Path("/dev/stderr"))


@app.command
def evaluate(
    run: str, file: Path | None = None, *, split: Split = "test",
    task: Annotated[str | None, Parameter(help="the one task that is scored, on all rows of FILE")] = None,
    rows: Annotated[int | None, Parameter(help="score so many rows, always the same ones; else all")] = None,
    beams: Beams = 1, sample: Sample = 0.0, top_p: TopP = 1.0, seed: Seed = 0,
    runs: Runs = RUNS, data: Data = None, base: Base = None, encoder: EncodersHere = None, set_: Sets = None,
    quiet: Quiet = False, as_json: AsJson = False, track: Track = None, project: Project = None,
) -> None:  # fmt: skip
    """Answer and score rows of RUN's tasks; prints tables, and the folder with the answers in the last line.

    --json prints one object instead: `run`, `split`, `folder`, and under `tasks` the same figures of each.
    With FILE (of any format that tasks have) its rows, in the columns of the task; for a run of several tasks
    a column 'task' says which one a row is of. --data takes the tasks' own files from another folder.
    Keys for --set: weft config EvaluateRun. A table's evaluation has the experiment's limits.test_rows.
    """
    from weft import stages, tracking
    from weft.cli import figures_text
    from weft.evaluation.figures import figures
    from weft.experiments import validation
    from weft.runs import find, home
    from weft.tasks.one_file import scored_in

    parent, places = find(runs, run), places_of(base, None if file else data, encoder)
    with open_workspace(home(parent, runs), data, quiet=quiet, places=places) as workspace:
        trackers = tracking.asked(track, project or tracking.PROJECT, workspace.root)
        places.check_rows(parent.config())
        trained = workspace.config_of(parent)
        specs = scored_in(trained.tasks, file, task, split)
        whole = EvaluateRun(
            base=trained.base, prompt=trained.prompt,
            limits=trained.limits.of([spec.name for spec in specs], "test_rows", "target_rows"), tasks=specs,
            seed=trained.seed, run=parent.id, split=split, decoding=decoding_of(beams, sample, top_p, seed),
        )  # fmt: skip
        config = changed(whole, {"limits.test_rows": rows, **parse_overrides(set_ or [])})
        show_findings(validation.check_evaluation(config, workspace))
        with tracking.followed(trackers, [config], workspace):
            scored = stages.perform(config, workspace)
        lines = scored.lines("predictions.jsonl")
        found = [figures(task, lines) for task in workspace.tasks(config)]
    if as_json:
        about = {"run": config.run, "split": config.split, "folder": str(scored.path)}
        tasks = {one.task: one.as_dict() for one in found}
        print(json.dumps({**about, "tasks": tasks}, ensure_ascii=False, allow_nan=False))
    else:
        print(f"{figures_text.text(found, screen_width())}\n\n{scored.path}")


@app.command
def predict(
    *names: Annotated[str, Parameter(allow_leading_hyphen=True)],  # one is standard input
    runs: Runs = RUNS,
    data: Data = None,
    base: Base = None,
    encoder: EncodersHere = None,
    task: Annotated[str | None, Parameter(help="the one task that all rows are answered for")] = None,
    generate: Annotated[
        bool, Parameter(negative="", help="also write freely where answers are closed")
    ] = False,
    beams: Beams = 1,
    sample: Sample = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        Parameter(help="file of the answers: JSON lines, or CSV if it ends so; else they are printed"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer the rows of a file: weft predict RUN... FILE (CSV, TSV, JSON, JSONL or Parquet).

    FILE may be - for standard input, which is JSON lines. The 'label' of an answer is its value in the task's
    files. A terminal shows a table, its rows counted from 1; --json, a pipe or a file get JSON lines, `row`
    from 0.
    A row with a column 'task' is answered for that task, one without for every task of the runs. The column
    chooses nothing where there is one task, or a text shows it.
    """
    from weft import storage
    from weft.checks.findings import Finding
    from weft.cli import predictions_text
    from weft.serving import predictor
    from weft.serving.doubts import doubts
    from weft.tasks.files import read_rows

    unknown = [name for name in names if name.startswith("-") and name != "-"]
    if unknown:
        raise ConfigError(f"there is no option {unknown[0]!r}", fix="see weft predict --help")
    if len(names) < 2:
        raise ConfigError("predict needs one or more runs, and a file", fix="weft predict RUN... FILE")
    if out is not None:
        predictions_text.check_ending(out)
    check_out(out, Path(names[-1]))
    decoding = decoding_of(beams, sample, top_p, seed)
    rows = read_rows(Path(names[-1]))
    places = places_of(base, data, encoder)
    with open_workspace(runs, data, quiet=True, keep_texts=False, places=places) as workspace:
        model = predictor.load(*names[:-1], workspace=workspace)
        found = model.predict(rows, generate=generate, task=task, decoding=decoding)
    if out is not None:
        as_csv = predictions_text.is_csv(out)
        storage.write_text(
            out, predictions_text.csv_text(found) if as_csv else predictions_text.json_lines(found)
        )
        print(out)
    elif as_json or not sys.stdout.isatty():
        print(predictions_text.json_lines(found), end="")
    else:
        texts = {name: task.source for name, task in model.tasks.items()}
        print(predictions_text.table(found, rows, texts, screen_width()))
    for fault in doubts(found, names[-1]):
        print(Finding("warning", fault), file=sys.stderr)
    check_answered(names[-1], [(one.row, one.error) for one in found if one.error])


def decoding_of(beams: int, sample: float, top_p: float, seed: int) -> Decoding:
    """How answers are written, as the options say.

    Raises:
        ConfigError: if they do not go together.
    """
    return changed(GREEDY, {"num_beams": beams, "temperature": sample, "top_p": top_p, "seed": seed})


def check_out(out: Path | None, file: Path) -> None:
    """Refuse to write the answers over the rows, or in the place of a folder or a device.

    Raises:
        ConfigError: naming the file.
    """
    if out in STREAMS or (out is not None and out.exists() and not out.is_file()):
        fix = "name a file; without --out the answers are printed"
        raise ConfigError("--out is not an ordinary file", where=str(out), fix=fix)
    if out is not None and out.exists() and file.exists() and out.samefile(file):
        raise ConfigError(
            "--out is the file with the rows, which the answers would replace",
            where=str(out),
            fix="name another file",
        )


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
    run: str, task: str, out: Path, *, to: Literal["peft", "numpy"] = "peft", runs: Runs = RUNS,
    data: Data = None, base: Base = None,
) -> None:  # fmt: skip
    """Write one task's prompt for other programs.

    peft: an adapter that stock PEFT loads (prompts before the text alone); with '*' as TASK, one adapter of
    all tasks of a run with a shared prompt. numpy: the prompt as an array, and how to use it.
    """
    from weft.interop import peft_adapter, prompts

    with open_workspace(runs, data, quiet=True, places=places_of(base, data)) as workspace:
        if task == "*" and to == "peft":
            print(peft_adapter.to_peft_multitask(run, out, workspace))
        else:
            forms = {"peft": peft_adapter.to_peft, "numpy": prompts.to_numpy}
            print(forms[to](run, task, out, workspace))
