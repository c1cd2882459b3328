"""The result table of an experiment: for the terminal, for documents, for programs, and as a page.

What is missing shows as an em dash. Loads without torch.
"""

import csv
from collections.abc import Sequence
from io import StringIO
from itertools import chain
from textwrap import fill, wrap
from typing import TYPE_CHECKING

from weft.experiments.differences import differences
from weft.experiments.entries import DASH, OPEN, Entry
from weft.experiments.lines import Line, lines
from weft.experiments.notes import notes
from weft.experiments.published import published
from weft.experiments.results import collect
from weft.experiments.small_tables import SmallTable, further
from weft.experiments.verdict import verdict
from weft.text_table import columns, render

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan

__all__ = ["Entry", "collect", "table_csv", "table_markdown", "table_text", "verdict"]

WIDTH, ACROSS, LABEL = 80, 3, 12
LAYOUTS = ((" ± ", 12, 2), (" ± ", 12, 1), ("\n± ", 8, 1))  # joint, width of heads, gap: the first that fits
COSTS = ("parameters per task", "seconds")


def heads(table: Sequence[Line]) -> list[str]:
    """Names of all columns but the first: targets, averages, costs."""
    line = table[0]
    return [*(one.head for one in line.entries), *(one.head for one in line.averages), *COSTS]


def cost_texts(line: Line, joint: str = " / ") -> tuple[str, str]:
    """Trained parameters per task, two numbers or from least to most, and seconds of training one target."""
    if not line.trains:
        return "none", "none"
    known = dict.fromkeys(one.parameters for one in line.entries if one.parameters is not None)
    counts = [f"{count:,.0f}" for count in known]
    if len(counts) > 2:
        counts = [f"{min(known):,.0f} to", f"{max(known):,.0f}"]
        joint = joint if joint == "\n" else " "
    return joint.join(counts) or DASH, DASH if line.seconds is None else f"{line.seconds:,.1f}"


def table_text(entries: Sequence[Entry], plan: "Plan") -> str:
    """The table for a terminal of 80 columns, three targets side by side; small tables and notes below it."""
    table, printed = lines(entries, plan), _printed(plan)
    blocks = [_block(table, printed, part) for part in _parts(table)]
    for one in small_tables(table, plan):
        aligned = "<" + ">" * (len(one.head) - 1)
        blocks.append(f"{one.title}:\n\n{render(one.head, one.rows, aligned, most=WIDTH)}")
    below = [fill(note, WIDTH, break_on_hyphens=False) for note in notes(entries, plan)]
    return "\n\n".join([*blocks, "\n".join(below)]) + "\n"


def small_tables(table: Sequence[Line], plan: "Plan") -> list[SmallTable]:
    """Below the table: further metrics that are asked for, and distances from the reference row."""
    return [*further(table, plan), *differences(table, plan)]


def _parts(table: Sequence[Line]) -> list[range]:
    """Columns that stand side by side; a lone average and the costs beside the last targets."""
    targets, every = len(table[0].entries), len(heads(table))
    starts = [*range(0, targets, ACROSS)]
    if len(table[0].averages) > 1:
        starts += range(targets, every - len(COSTS), ACROSS)
    return [range(a, b) for a, b in zip(starts, [*starts[1:], every], strict=True)]


def _printed(plan: "Plan") -> list[tuple[str, list[str]]]:
    """Labels and cells of published rows."""
    return [(row.label, row.cells(plan.experiment)) for row in published(plan.experiment)]


def _block(table: Sequence[Line], printed: Sequence[tuple[str, list[str]]], part: range) -> str:
    """Some columns of the table."""
    names = ["method", *(heads(table)[i] for i in part)]
    for joint, width, gap in LAYOUTS:
        head = ["\n".join(wrap(name, width)) for name in names]
        rows = [*((line.label, _cells(line, joint)) for line in table), *printed]
        body = [[label, *(cells[i] for i in part)] for label, cells in rows]
        widths = [max(columns(row[i]) for row in [head, *body]) for i in range(1, len(head))]
        if LABEL + sum(widths) + gap * len(widths) <= WIDTH:
            break
    return render(head, body, "<" + ">" * len(widths), most=WIDTH, gap=gap)


def _cells(line: Line, joint: str) -> list[str]:
    """A line's cells under `heads`."""
    scores = [*(one.text(joint) for one in line.entries), *(one.text(joint) for one in line.averages)]
    return [*scores, *cost_texts(line, "\n")]


def table_markdown(entries: Sequence[Entry], plan: "Plan") -> str:
    """The table for documents, with a footnote; with the scores of written answers if they are asked for."""
    experiment, table = plan.experiment, lines(entries, plan)
    written = experiment.generate
    names = [(one.head, f"{one.head}, written") if written else (one.head,) for one in table[0].entries]
    head = ["method", *chain(*names), *heads(table)[len(names) :]]
    rows = [_markdown_cells(line, written=written) for line in table]
    for label, cells in _printed(plan):
        scores = [(cell, OPEN) if written else (cell,) for cell in cells[: len(names)]]
        rows.append([label, *chain(*scores), *cells[len(names) :]])
    tables = [markdown_table(head, rows)]
    for one in small_tables(table, plan):
        tables += [f"{one.title}:", markdown_table(one.head, one.rows)]
    said = [*notes(entries, plan), *_silent(entries, plan)]
    source = f" Source run: `{plan.source}`." if plan.source else ""
    below = f"[^{experiment.name}]: {' '.join(said)}{source}"
    return "\n\n".join([f"Experiment **{experiment.name}**[^{experiment.name}]", *tables, below]) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for documents; the first column is of words, the others of numbers."""
    rules = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(_markdown_row(row) for row in [head, rules, *rows])


def _markdown_cells(line: Line, *, written: bool) -> list[str]:
    scores = [(one.text(), one.written_text) if written else (one.text(),) for one in line.entries]
    return [line.label, *chain(*scores), *(one.text() for one in line.averages), *cost_texts(line)]


def _silent(entries: Sequence[Entry], plan: "Plan") -> list[str]:
    """Rows that write no answers where others do."""
    rows = dict.fromkeys(entry.row for entry in entries if entry.silent)
    return [f"{OPEN} {', '.join(rows)}: no written answers."] if plan.experiment.generate and rows else []


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


CSV_FIELDS = (
    *("row", "target", "metric", "mean", "half", "written", "rows", "parameters", "seconds"),
    *("missing", "undefined", "undefined_written", "constant", "seeds", "scores", "runs"),
)
DIFFERENCE = ("difference", "low", "high", "p")


def table_csv(entries: Sequence[Entry]) -> str:
    """One line for each row and target, unrounded; what is missing is empty, lists are spaced.

    `undefined` is how many of the scores are 0 because the metric is undefined, `constant` how many are of
    one answer for all rows; the last four fields are the difference from the reference row.
    """
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*CSV_FIELDS, *DIFFERENCE))
    for entry in entries:
        gap = entry.against and (entry.against.mean, entry.against.low, entry.against.high, entry.against.p)
        writer.writerow(
            (*(_csv_value(getattr(entry, field)) for field in CSV_FIELDS), *(gap or [""] * len(DIFFERENCE)))
        )
    return out.getvalue()


def _csv_value(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, tuple) else value
