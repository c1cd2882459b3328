"""The result table of an experiment: for the terminal, for documents, for programs, and as a page.

What is missing shows as an em dash. Loads without torch.
"""

import csv
from collections.abc import Sequence
from io import StringIO
from itertools import chain
from textwrap import fill, wrap
from typing import TYPE_CHECKING

from weft.config.decoding import GREEDY
from weft.experiments import config
from weft.experiments.results import DASH, OPEN, SEEN, ZERO, Entry, Line, collect, lines
from weft.experiments.verdict import verdict
from weft.text_table import columns, render

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan

__all__ = ["Entry", "collect", "table_csv", "table_markdown", "table_text", "verdict"]

WIDTH, TARGETS_ACROSS, LABEL = 80, 3, 12
LAYOUTS = ((" ± ", 12, 2), (" ± ", 12, 1), ("\n± ", 8, 1))  # joint, width of heads, gap: the first that fits
SUMMARY = ("average", "parameters per task", "seconds")


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
    """The table for a terminal of 80 columns, three targets side by side, and notes below it."""
    table, count = lines(entries, plan), len(plan.experiment.targets)
    parts = [range(i, min(i + TARGETS_ACROSS, count)) for i in range(0, count, TARGETS_ACROSS)]
    blocks = [_block(table, part, last=part is parts[-1]) for part in parts]
    below = [fill(note, WIDTH, break_on_hyphens=False) for note in notes(entries, plan)]
    return "\n\n".join([*blocks, "\n".join(below)]) + "\n"


def _block(table: list[Line], part: range, *, last: bool) -> str:
    """Some targets of the table; averages and costs stand with the last ones."""
    names = ["method", *(table[0].entries[i].head for i in part), *(SUMMARY if last else ())]
    for joint, width, gap in LAYOUTS:
        head = ["\n".join(wrap(name, width)) for name in names]
        body = [_cells(line, part, joint, last) for line in table]
        widths = [max(columns(row[i]) for row in [head, *body]) for i in range(1, len(head))]
        if LABEL + sum(widths) + gap * len(widths) <= WIDTH:
            break
    return render(head, body, "<" + ">" * len(widths), most=WIDTH, gap=gap)


def _cells(line: Line, part: range, joint: str, last: bool) -> list[str]:
    cells = [line.entries[i].text(joint) for i in part]
    end = [line.text(joint), *cost_texts(line, "\n")] if last else []
    return [line.label, *cells, *end]


def notes(entries: Sequence[Entry], plan: "Plan") -> list[str]:
    """What a reader of the table must know."""
    experiment = plan.experiment
    model = [experiment.base.model, *(entry.dtype for entry in entries if entry.dtype)]
    varied = "the rows drawn and the training" if _draws(plan) else "the training"
    said = [
        f"Scores: {_metrics(entries)} in percent, {_spread(plan)}.",
        f"Scored rows ({experiment.split}): {_tested(entries)}. "
        f"Training rows of targets: {_shots(entries, plan)}.",
        f"Base model: {', '.join(dict.fromkeys(model))}. 'seconds' is the training of one target.",
        f"Seeds vary {varied} of targets; the source stage is trained once.",
    ]
    return (
        said
        + _decoded(plan)
        + _grouped(plan)
        + _caps(plan)
        + _allowed(plan)
        + _seen(entries)
        + _overlaps(entries)
        + _gaps(entries)
        + _open(entries, plan)
    )


def _decoded(plan: "Plan") -> list[str]:
    decoding = plan.experiment.decoding
    return [] if decoding == GREEDY else [f"Written answers: {decoding.words}."]


def _metrics(entries: Sequence[Entry]) -> str:
    """`accuracy`, or each target's metric where they differ."""
    names = {entry.target: entry.metric for entry in entries}
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return ", ".join(f"{target} {metric}" for target, metric in names.items())


def _spread(plan: "Plan") -> str:
    seeds = plan.experiment.seeds
    if len(seeds) == 1:
        return f"seed {seeds[0]} alone, so without an interval"
    return f"mean ± 95 % t interval over seeds {', '.join(map(str, seeds))}"


def _tested(entries: Sequence[Entry]) -> str:
    rows = {entry.target: DASH for entry in entries}
    rows |= {entry.target: f"{entry.rows:,}" for entry in entries if entry.rows is not None}
    return ", ".join(f"{target} {count}" for target, count in rows.items())


def _draws(plan: "Plan") -> bool:
    """Whether targets train on drawn rows."""
    experiment = plan.experiment
    return any(any(experiment.shots_of(row)) for row in experiment.rows)


def _shots(entries: Sequence[Entry], plan: "Plan") -> str:
    """Training rows as the experiment says, and as rows of the table say for themselves."""
    own = [row for row in plan.experiment.rows if row.shots or row.shots_total]
    plain = [one for one in entries if one.row not in {row.label for row in own}]
    said = [_drawn(plan.experiment, plain, plan)]
    said += [
        f"{row.label} {_drawn(row, [one for one in entries if one.row == row.label], plan)}" for row in own
    ]
    return ", ".join(said)


def _drawn(asked: config.Entry | config.Experiment, entries: Sequence[Entry], plan: "Plan") -> str:
    """`16 per answer` or `16 in total`; `up to 16`, and how many there were, where a target has fewer."""
    shots, total = asked.shots or 0, asked.shots_total or 0
    if not shots and not total:
        return "all"
    answers = {task.name: len(task.choices or "1") for job in plan.jobs for task in job.config.tasks}
    count = f"{total} in total" if total else f"{shots} per answer"
    fewer = {
        one.target: one.trained
        for one in entries
        if one.trained is not None and one.trained < (total or shots * answers[one.target])
    }
    there = ", ".join(f"{target} {rows:,} rows" for target, rows in fewer.items())
    return f"up to {count} ({there})" if fewer else count


def _grouped(plan: "Plan") -> list[str]:
    """The named groups of targets, and the rows that train each of them in one run."""
    experiment = plan.experiment
    labels = [row.label for row in experiment.rows if row.group]
    groups = [f"{name} ({', '.join(targets)})" for name, targets in experiment.groups.items()]
    return [f"Trained in one run by {', '.join(labels)}: {'; '.join(groups)}."] if labels and groups else []


def _caps(plan: "Plan") -> list[str]:
    limits = plan.experiment.limits
    caps = {
        "training rows of a source": limits.train_rows,
        "dev rows": limits.dev_rows,
        "scored rows of a target": limits.test_rows,
    }
    said = [f"at most {rows:,} {what}" for what, rows in caps.items() if rows is not None]
    return [f"Capped: {', '.join(said)}."] if said else []


def _allowed(plan: "Plan") -> list[str]:
    """Faults of the data that the experiment allows, and targets that are sources too."""
    experiment = plan.experiment
    both = [name for name in experiment.targets if name in {*experiment.sources, *plan.teachers}]
    allowed = [f"Allowed in the data: {', '.join(experiment.allow)}."] if experiment.allow else []
    return allowed + ([f"Targets that are also sources: {', '.join(both)}."] if both else [])


def _seen(entries: Sequence[Entry]) -> list[str]:
    """Targets that the base model was trained on before."""
    names = dict.fromkeys(entry.target for entry in entries if entry.seen)
    if not names:
        return []
    return [f"{SEEN} The base model was trained on data of {', '.join(names)} before: left out of averages."]


def _overlaps(entries: Sequence[Entry]) -> list[str]:
    """Scored rows that are in training rows, whole or with one sentence."""
    whole = {one.target: one.leaked for one in entries if one.leaked}
    part = {one.target: one.shared for one in entries if one.shared}
    kinds = {"are whole in training rows": whole, "share a sentence with training rows": part}
    return [
        f"Scored rows that {kind}: {', '.join(f'{target} {count:,}' for target, count in counts.items())}."
        for kind, counts in kinds.items()
        if counts
    ]


def _gaps(entries: Sequence[Entry]) -> list[str]:
    """What is not there: unfinished runs and undefined scores."""
    missing = sum(entry.missing for entry in entries)
    said = [
        f"{DASH} marks what is not finished ({missing} missing evaluations); an average needs every target."
    ]
    return (said if missing else []) + _undefined(entries)


def _open(entries: Sequence[Entry], plan: "Plan") -> list[str]:
    """Targets of open answers, which a classifier has no score on."""
    unable = [one.target for line in lines(entries, plan) for one in line.entries if one.unable]
    targets = ", ".join(dict.fromkeys(unable))
    said = f"{OPEN} The answers of {targets} are open, and a classifier needs closed ones; it has no average."
    return [said] if unable else []


def _undefined(entries: Sequence[Entry]) -> list[str]:
    """Scores that count as 0."""
    zeros = [
        f"{one.row} on {one.target}{kind} ({count} of {len(one.scores)} seeds)"
        for one in entries
        for kind, count in (("", one.undefined), (", written", one.undefined_written))
        if count and one.mean is not None
    ]
    return [f"{ZERO} Counts as 0 where the metric is undefined: {'; '.join(zeros)}."] if zeros else []


def table_markdown(entries: Sequence[Entry], plan: "Plan") -> str:
    """The table for documents, with a footnote; with the scores of written answers if they are asked for."""
    experiment, table = plan.experiment, lines(entries, plan)
    names = [entry.head for entry in table[0].entries]
    heads = [(name, f"{name}, written") if experiment.generate else (name,) for name in names]
    head = ["method", *chain(*heads), *SUMMARY]
    rules = ["---", *["---:"] * (len(head) - 1)]
    cells = [_markdown_cells(line, written=experiment.generate) for line in table]
    rows = [_markdown_row(row) for row in [head, rules, *cells]]
    said = [*notes(entries, plan), *_silent(entries, plan)]
    source = f" Source run: `{plan.source}`." if plan.source else ""
    below = [f"[^{experiment.name}]: {' '.join(said)}{source}"]
    return "\n".join([f"Experiment **{experiment.name}**[^{experiment.name}]", "", *rows, "", *below]) + "\n"


def _markdown_cells(line: Line, *, written: bool) -> list[str]:
    scores = [(one.text(), one.written_text) if written else (one.text(),) for one in line.entries]
    return [line.label, *chain(*scores), line.text(), *cost_texts(line)]


def _silent(entries: Sequence[Entry], plan: "Plan") -> list[str]:
    """Rows that write no answers where others do."""
    rows = dict.fromkeys(entry.row for entry in entries if entry.silent)
    return [f"{OPEN} {', '.join(rows)}: no written answers."] if plan.experiment.generate and rows else []


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


CSV_FIELDS = (
    *("row", "target", "metric", "mean", "half", "written", "rows", "parameters", "seconds"),
    *("missing", "undefined", "undefined_written", "seeds", "scores", "runs"),
)


def table_csv(entries: Sequence[Entry]) -> str:
    """One line for each row and target, unrounded; what is missing is empty, lists are spaced.

    `undefined` is how many of the scores are 0 because the metric is undefined.
    """
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for entry in entries:
        writer.writerow(_csv_value(getattr(entry, field)) for field in CSV_FIELDS)
    return out.getvalue()


def _csv_value(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, tuple) else value
