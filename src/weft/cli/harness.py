"""The command that runs lm-evaluation-harness."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.cli.app import RUNS, Base, Quiet, Runs, app, open_workspace, places_of

OUT = Path("lm-eval")


@app.command(name="lm-eval")
def lm_eval(
    run: str, task: str, *,
    tasks: Annotated[str, Parameter(help="the harness's tasks, groups or tags, with commas between")],
    include_path: Annotated[Path | None, Parameter(help="folder with task files of your own")] = None,
    limit: Annotated[int | None, Parameter(help="score the first rows of each task; else all")] = None,
    num_fewshot: Annotated[int | None, Parameter(help="examples before each row; else as tasks say")] = None,
    batch_size: Annotated[int, Parameter(help="texts read at once")] = 16,
    frozen: Annotated[bool, Parameter(negative="", help="leave the prompt out, to compare")] = False,
    out: Annotated[Path, Parameter(help="folder of the results, a JSON file each time")] = OUT,
    runs: Runs = RUNS, base: Base = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Score lm-evaluation-harness's tasks with the model under the prompt of one of RUN's tasks.

    Needs the package lm_eval (weft[lm-eval]). Texts are the harness's own, without TASK's template; the
    prompt stands where it was trained. Rows of the harness's tasks come from the hub, or from files that a
    task under --include-path names. Prints a table, and the file with the results in the last line.
    """
    from weft.config.files import changed
    from weft.interop import harness
    from weft.text_table import render, screen_width

    names = tuple(filter(None, (name.strip() for name in tasks.split(","))))
    given = {"limit": limit, "num_fewshot": num_fewshot, "batch_size": batch_size}
    asked = changed(harness.HarnessConfig(tasks=names, include_path=include_path), given)
    with open_workspace(runs, None, quiet=quiet, places=places_of(base, None)) as workspace:
        found = harness.evaluate(run, task, asked, workspace, frozen=frozen)
    path = harness.write(out, found)
    table = render(("task", "metric", "value", "stderr"), harness.lines(found), "<<>>", most=screen_width())
    print(f"{table}\n\n{path}")
