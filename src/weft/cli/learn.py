"""The command that goes from a file to answers: learn."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from weft.cli.app import RUNS, AsJson, Base, Quiet, Runs, app, base_of, open_workspace, show_findings
from weft.learning.drawing import MOST
from weft.text_table import filled, screen_width

Text = Annotated[
    list[str] | None, Parameter(name="--text", help="column of the text; several: give it again")
]

For = Literal["weft", "peft"]


@app.command
def learn(
    file: Path, *, text: Text = None,
    answer: Annotated[str | None, Parameter(help="column of the answer")] = None,
    name: Annotated[str | None, Parameter(help="of the task; else the file's")] = None,
    from_: Annotated[str | None, Parameter(name="--from", help="earlier run: its rows, and FILE's")] = None,
    for_: Annotated[For, Parameter(name="--for", help="peft: a prompt that PEFT can hold")] = "weft",
    whole: Annotated[bool, Parameter(negative="", help="an answer with ; | or , in it is one")] = False,
    quick: Annotated[bool, Parameter(negative="", help="without source prompts: in less time")] = False,
    folds: Annotated[int, Parameter(help="of the cross-validation")] = 5,
    rows: Annotated[int, Parameter(help="of FILE that are learnt from, at most")] = MOST,
    tokens: Annotated[int | None, Parameter(help="longest text; else the earlier run's, or 256")] = None,
    tasks: Annotated[Path, Parameter(help="folder of the task file that is left")] = Path("tasks"),
    runs: Runs = RUNS, base: Base = None, seed: int = 0, quiet: Quiet = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Learn to answer from FILE (CSV, TSV, JSONL, Parquet): its columns, a task, a run, and how good it is.

    Columns that are not named are found where that is plain. Scores are of rows that were not learnt from.
    Without --from, FILE alone counts; with it, rows of the earlier run that FILE does not have stay.
    """
    with open_workspace(runs, None, quiet=quiet or as_json) as workspace:
        from weft.interop import peft_adapter
        from weft.learning import learn as work
        from weft.learning import verdict

        wish = work.Wish(
            tuple(text or ()),
            answer,
            name,
            base_of(base),
            from_,
            whole=whole,
            peft=for_ == "peft",
            quick=quick,
            folds=folds,
            rows=rows,
            tokens=tokens,
            seed=seed,
        )
        found = work.look(file, wish, runs)
        if not as_json:
            _say(found.said)
        planned, checked = work.learn(found, wish, tasks, workspace)
        show_findings(checked)
        for line in peft_adapter.note([planned.run], workspace, "learn with --for peft"):
            workspace.progress.say(line)
        learned = work.perform(planned, workspace)
        scores = verdict.scored(learned)
    if as_json:
        counts = {"rows": {"read": found.read, "learnt": len(found.rows.rows)}}
        about = {**verdict.as_dict(learned, scores), **counts}
        print(json.dumps(about, ensure_ascii=False, allow_nan=False))
        return
    print(f"\n{verdict.table(scores, screen_width())}\n")
    _say(verdict.sentences(scores))
    print(f"\ntask:     {os.path.relpath(tasks / (found.name + '.yaml'))}")
    print(f"run:      {learned.run.path}")
    print(f"answers:  weft predict {learned.run.path} NEW_FILE")
    if for_ == "peft":
        print(f"adapter:  weft export {learned.run.path} {found.name} FOLDER")


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(filled(line, screen_width()))
