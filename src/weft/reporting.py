"""The result table of an experiment: for the terminal, for documents, for programs, and in plain sentences.

Every number comes from finished run folders. What is missing shows as an em dash, and no average is made
of some of the targets. Loads without torch; pages with plots are made by `report_html`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import fmean
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from weft import config, storage
from weft.runs import Run

if TYPE_CHECKING:  # weft.experiments loads torch
    from weft.experiments import Cell, Plan

DASH = "—"
WIDTH, TARGETS_ACROSS, HEAD, LABEL = 80, 3, 12, 16
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Entry:
    """The scores of one row of the table on one target.

    Attributes:
        row: the row's label.
        target: the target task.
        metric: the target's main metric, in percent.
        seeds: seeds whose score is there; one for what does not train, as its score has no seed.
        scores: the score of each of them.
        mean: of the scores; none while a run is missing.
        half: half the width of the 95 % interval of the mean over seeds; none for a single score.
        written: mean score of freely written answers, if they were asked for.
        rows: test rows.
        parameters: trained parameters per task.
        seconds: mean time of training.
        runs: the evaluations' ids, finished or not.
        missing: how many of them are not finished.
        undefined: how many scores are left out because the metric is undefined.
        dtype: number format of the base model's weights.
    """

    row: str
    target: str
    metric: str
    seeds: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    mean: float | None = None
    half: float | None = None
    written: float | None = None
    rows: int | None = None
    parameters: float | None = None
    seconds: float | None = None
    runs: tuple[str, ...] = ()
    missing: int = 0
    undefined: int = 0
    dtype: str | None = None


@dataclass(frozen=True)
class Line:
    """One line of the table: a row's entries, and what they come to over all targets.

    Attributes:
        label: the row's label.
        kind: `scratch` and `transfer` for prompt tuning by its start, else the method's name.
        entries: one for each target, in the experiment's order.
        scores: average over targets of each seed that has a score on all of them.
        mean: of `scores`; none if a target is missing.
        half: half the width of its 95 % interval.
        parameters: trained parameters per task.
        seconds: mean time of training one target.
        trains: whether the method trains anything.
    """

    label: str
    kind: str
    entries: tuple[Entry, ...]
    scores: tuple[float, ...]
    mean: float | None
    half: float | None
    parameters: float | None
    seconds: float | None
    trains: bool


def collect(plan: "Plan", root: Path) -> list[Entry]:
    """Scores of a plan's finished runs: one entry for each row and target."""
    metrics = {task.name: task.metrics[0] for job in plan.jobs for task in job.config.tasks}
    groups: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in plan.cells:  # what does not train has one run for all seeds
        groups.setdefault((cell.row, cell.target), {}).setdefault(cell.run, cell)
    return [_entry(list(group.values()), metrics[target], root) for (_, target), group in groups.items()]


def _entry(cells: "list[Cell]", metric: str, root: Path) -> Entry:
    row, target = cells[0].row, cells[0].target
    done = [cell for cell in cells if Run(root / cell.run).done]
    found = [Run(root / cell.run).result()["scores"][target] for cell in done]
    # by name: result.json is sorted, so the first metric in it need not be the one that decides
    pairs = [(cell.seed, one["metrics"][metric]) for cell, one in zip(done, found, strict=True)]
    scores = {seed: float(score) for seed, score in pairs if score is not None}
    written = [one["written"][metric] for one in found if one.get("written")]
    trained = [Run(root / cell.trained) for cell in cells if cell.trained]
    results = [run.result() for run in trained if run.done]
    whole = len(done) == len(cells)
    return Entry(
        row,
        target,
        metric,
        seeds=tuple(scores),
        scores=tuple(scores.values()),
        mean=_mean(scores.values()) if whole else None,
        half=interval(list(scores.values())) if whole else None,
        written=_mean(written) if whole else None,
        rows=found[0]["rows"] if found else None,
        parameters=_mean(result["parameters_per_task"] for result in results),
        seconds=_mean(result["seconds"] for result in results),
        runs=tuple(cell.run for cell in cells),
        missing=len(cells) - len(done),
        undefined=len(done) - len(scores),
        dtype=storage.read_json(root / done[0].run / "env.json")["dtype"] if done else None,
    )


def _mean(values: Any) -> float | None:
    """Mean of the values that are there; none without any."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def interval(scores: Sequence[float]) -> float | None:
    """Half the width of the 95 % t interval of a mean; none for fewer than two scores."""
    from scipy.stats import t  # takes a second to import

    n = len(scores)
    if n < 2:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(scores, ddof=1) / np.sqrt(n))


def lines(entries: list[Entry], plan: "Plan") -> list[Line]:
    """The table, line by line, in the experiment's order."""
    by_place = {(entry.row, entry.target): entry for entry in entries}
    return [
        _line(row, tuple(by_place[row.label, target] for target in plan.experiment.targets))
        for row in plan.experiment.rows
    ]


def _line(row: config.Entry, entries: tuple[Entry, ...]) -> Line:
    """Seeds are averaged over targets first: the interval is that of the average."""
    by_seed = [dict(zip(entry.seeds, entry.scores, strict=True)) for entry in entries]
    seeds = [seed for seed in by_seed[0] if all(seed in scores for scores in by_seed)]
    whole = all(entry.mean is not None for entry in entries)
    scores = tuple(fmean(scores[seed] for scores in by_seed) for seed in seeds) if whole else ()
    parameters = _mean(entry.parameters for entry in entries)
    seconds = _mean(entry.seconds for entry in entries)
    trains = row.optim is not None
    return Line(row.label, _kind(row), entries, scores, _mean(scores), interval(scores), parameters, seconds, trains)


def _kind(row: config.Entry) -> str:
    if isinstance(row.method, config.PromptTuningConfig):
        return "scratch" if row.method.start == "fresh" else "transfer"
    return row.method.name


def score_text(mean: float | None, half: float | None, joint: str = " ± ") -> str:
    """`71.5 ± 2.3`, or an em dash."""
    if mean is None:
        return DASH
    return f"{mean:.1f}" if half is None else f"{mean:.1f}{joint}{half:.1f}"


def cost_texts(line: Line) -> tuple[str, str]:
    """Trained parameters per task, and seconds of training one target."""
    if not line.trains:
        return "none", "none"
    return (
        DASH if line.parameters is None else f"{line.parameters:,.0f}",
        DASH if line.seconds is None else f"{line.seconds:,.1f}",
    )


def table_text(entries: list[Entry], plan: "Plan") -> str:
    """The table for a terminal of 80 columns, three targets side by side, and what it says below."""
    table, targets = lines(entries, plan), plan.experiment.targets
    parts = [range(i, min(i + TARGETS_ACROSS, len(targets))) for i in range(0, len(targets), TARGETS_ACROSS)]
    blocks = [_block(table, targets, part, last=part is parts[-1]) for part in parts]
    return "\n\n".join([*blocks, *(fill(note, WIDTH) for note in notes(entries, plan))]) + "\n"


def _block(table: list[Line], targets: Sequence[str], part: range, *, last: bool) -> str:
    """Some targets of the table; averages and costs stand with the last ones."""
    heads = ["method", *(targets[i] for i in part)] + (["average", "parameters per task", "seconds"] if last else [])
    head = ["\n".join(wrap(text, HEAD)) for text in heads]
    for joint in (" ± ", "\n± "):  # on two lines where one is too wide
        body = [_row(line, part, joint, last) for line in table]
        widths = [max(_width(row[i]) for row in [head, *body]) for i in range(1, len(head))]
        if LABEL + sum(widths) + 2 * len(widths) <= WIDTH:
            break
    return _render(head, body)


def _row(line: Line, part: range, joint: str, last: bool) -> list[str]:
    cells = [score_text(line.entries[i].mean, line.entries[i].half, joint) for i in part]
    end = [score_text(line.mean, line.half, joint), *cost_texts(line)] if last else []
    return [line.label, *cells, *end]


def _width(cell: str) -> int:
    return max(len(part) for part in cell.split("\n"))


def _render(head: list[str], body: list[list[str]]) -> str:
    """Cells as a rich table; the labels take what width is left, on several lines where they must."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for i, text in enumerate(head):
        table.add_column(Text(text), justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    out = StringIO()
    Console(file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().split("\n"))
