"""Parts of the report's page that come from single runs: losses, prompts, wrong answers, rows, settings."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import chain, islice, zip_longest
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from weft.config.describe import to_yaml
from weft.experiments.entries import DASH, Entry
from weft.experiments.lines import Line, best_shared
from weft.experiments.report import plots as plots
from weft.experiments.results import checks
from weft.runs import Run
from weft.runs.folder import LOG

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.config import Experiment
    from weft.experiments.jobs import Cell, Plan

EXAMPLES, LONGEST_TEXT = 10, 400
TERMS = ("lm", "logits", "hidden")
ROW_COUNTS = {"read": "in the file", "train": "trained on", "cut": "cut", "scored": "scored"}
UNFINISHED = '<p class="dim">The source stage is not finished.</p>'
PROMPTLESS = '<p class="dim">The prompts of these runs are not at hand.</p>'
UNLOGGED = '<p class="dim">The logs of these trainings are not at hand.</p>'


def section(title: str, body: str) -> str:
    """A part of the page with its heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def bullets(items: Iterable[str], *, small: bool = False) -> str:
    """A list of sentences."""
    style = ' class="dim"' if small else ""
    return f"<ul{style}>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table. Cells are HTML already, so that they may hold marks; heads and caption are text."""
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(_table_row(row) for row in rows)
    inside = f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>"
    said = f'<p class="dim">{escape(caption)}</p>' if caption else ""
    return f'<div class="wide"><table>{inside}</table></div>{said}'  # outside, where it need not be scrolled


def _table_row(row: Sequence[str]) -> str:
    return f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n'


def figure(svg: str, caption: str, *, heads: bool = False) -> str:
    """A plot with its caption, which may stand above it as a heading."""
    text = escape(caption)
    if heads:
        return f"<figure><figcaption><b>{text}</b></figcaption>{svg}</figure>"
    return f"<figure>{svg}<figcaption>{text}</figcaption></figure>"


def _number(value: int | float | None, places: int = 0) -> str:
    return DASH if value is None else f"{value:,.{places}f}"


def losses(plan: "Plan", root: Path) -> str:
    """Loss curves of the source stage, by term, and of its teachers."""
    source = Run(root / plan.source)
    if not source.done:
        return UNFINISHED
    log = source.lines(LOG)
    terms = {name: _curve(log, name) for name in TERMS if log and name in log[0]}
    teachers = {name: _curve(run.lines(LOG), "loss") for name, run in _teachers(plan, root).items()}
    stage = plan.experiment.source
    assert stage is not None
    weight = stage.distill.weight
    weighted = (
        f"; the distillation terms, logits and hidden, with their weight {weight:g}" if len(terms) > 1 else ""
    )
    shown = [
        _loss_figure(terms, "source", f"Source stage: cross-entropy of the answers (lm){weighted}."),
        _loss_figure(teachers, "teachers", "Teachers, one for each source task."),
    ]
    return f'<div class="plots">{"".join(shown) or UNLOGGED}</div>'


def _loss_figure(curves: Mapping[str, plots.Curve], name: str, caption: str) -> str:
    """A figure of the curves that have points: runs that are passed on may come without their logs."""
    drawn = {name: curve for name, curve in curves.items() if curve}
    return figure(plots.curves_plot(drawn, name, f"losses: {name}"), caption) if drawn else ""


def _curve(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(line["step"]), float(line[name])) for line in log if name in line]


def _teachers(plan: "Plan", root: Path) -> dict[str, Run]:
    """The finished teachers, by task."""
    return {name: run for name, at in plan.teachers.items() if (run := Run(root / at)).done}


def source_table(plan: "Plan", root: Path) -> str:
    """Dev scores and costs of the teachers, and of the shared prompt that was made of them."""
    found = _teachers(plan, root)
    rows = [_stage_row(f"teacher {name}", run) for name, run in found.items()]
    scores = [run.result()["dev"] for run in found.values()]
    if scores and None not in scores:
        rows.append(["mean of the teachers", _number(fmean(scores), 1), "", "", "", ""])
    source = Run(root / plan.source)
    if source.done:
        rows.append(_stage_row("shared prompt, mean of the tasks", source))
    head = ["", "dev score", "steps", "kept step", "parameters per task", "seconds"]
    return (
        table(head, rows, "Dev score: the main metric on dev rows of the source tasks, in percent.")
        if rows
        else ""
    )


def _stage_row(label: str, run: Run) -> list[str]:
    result = run.result()
    kept = result["best_step"] if result["dev"] is not None else result["steps"]
    counts = [_number(result["steps"]), _number(kept), _number(result["parameters_per_task"])]
    return [escape(label), _number(result["dev"], 1), *counts, _number(run.seconds(), 1)]


def similarity(plan: "Plan", root: Path, lines: Sequence[Line]) -> str:
    """A heat map of how alike the source tasks' prompts are, and those MPT made of them for the targets."""
    if not Run(root / plan.source).done:
        return UNFINISHED
    import torch

    from weft.prompts.bank import compose
    from weft.prompts.similarity import similarity

    own = {row.label for row in plan.experiment.rows if row.settings}  # their sources are others
    row = best_shared(line for line in lines if line.label not in own)
    source = Run(root / plan.source)
    sources = source.result()["tasks"]
    cells = [(cell.target, Run(root / cell.trained)) for cell in _first_cells(plan, row) if cell.trained]
    wanted = [(source, sources), *((run, [target]) for target, run in cells)]  # a group's run has several
    if not all(run.holds_tensors for run, _ in wanted):
        return PROMPTLESS
    parts = [compose(*(run.tensors()[name] for name in ("shared", "u", "v"))) for run, _ in wanted]
    places = [[run.result()["tasks"].index(name) for name in names] for run, names in wanted]
    prompts = torch.cat([part[at] for part, at in zip(parts, places, strict=True)])
    values = similarity(prompts).double().numpy()
    names = [*sources, *(target for target, _ in cells)]
    plot = plots.similarity_plot(values, names, len(sources), "cosine similarity of task prompts")
    return figure(plot, _similarity_caption(row, len(prompts), plan))


def _similarity_caption(row: Line | None, count: int, plan: "Plan") -> str:
    targets = (
        f" and, behind the line, of the targets ({row.label}, seed {plan.experiment.seeds[0]})" if row else ""
    )
    return (
        f"Cosine of the composed prompts of the source tasks{targets}, each as one long vector less the mean "
        f"of all {count}. Prompts that have nothing in common lie near −{1 / (count - 1):.2f}."
    )


def _first_cells(plan: "Plan", row: Line | None) -> "list[Cell]":
    """The cells of a row for the first seed, one for each target, in the experiment's order."""
    seed, order = plan.experiment.seeds[0], plan.experiment.targets
    found = [cell for cell in plan.cells if row is not None and (cell.row, cell.seed) == (row.label, seed)]
    return sorted(found, key=lambda cell: order.index(cell.target))


def examples(plan: "Plan", root: Path, lines: Sequence[Line]) -> str:
    """Rows that the best MPT row answers wrongly: the first ones of each target, in turn."""
    row = best_shared(lines)
    if row is None:
        return '<p class="dim">No MPT row is finished on all targets.</p>'
    answers = [Run(root / cell.run).lines("predictions.jsonl") for cell in _first_cells(plan, row)]
    wrong = [[line for line in one if _is_wrong(line)] for one in answers]
    picked = list(islice((line for line in chain(*zip_longest(*wrong)) if line is not None), EXAMPLES))
    count = f"{sum(map(len, wrong)):,} of {sum(map(len, answers)):,} answers are wrong"
    how = (
        f"{row.label}, seed {plan.experiment.seeds[0]}: {count}. Shown are the first of each target in turn."
    )
    return f'<p class="dim">{escape(how)}</p><ol class="wrong">{"".join(map(_example, picked))}</ol>'


def _is_wrong(line: Mapping[str, Any]) -> bool:
    """Whether an answer equals none of the accepted ones."""
    return line["answer"].strip() not in {one.strip() for one in line["references"]}


def _example(line: Mapping[str, Any]) -> str:
    text = line["text"] if len(line["text"]) <= LONGEST_TEXT else line["text"][:LONGEST_TEXT] + "…"
    share = (line["probabilities"] or {}).get(line["answer"])
    sure = DASH if share is None else f"{100 * share:.1f} %"
    said = (
        f"expected <b>{escape(' / '.join(line['references']))}</b>, answered <b>{escape(line['answer'])}</b>"
    )
    return (
        f'<li><p>{escape(text)}</p><p class="dim">{escape(line["task"])}: {said}, probability {sure}</p></li>'
    )


def rows_used(plan: "Plan", root: Path, entries: Sequence[Entry]) -> str:
    """How many rows each task gave for training and for scores, and how many texts were cut."""
    sources = {name: run.result()["rows"].get(name, {}) for name, run in _teachers(plan, root).items()}
    targets = {name: run.result()["rows"].get(name, {}) for name, run in _adapted(plan, root)}
    scored = {entry.target: {"scored": entry.rows} for entry in entries}
    counts = [(name, "source", sources.get(name, {})) for name in plan.experiment.sources]
    counts += [
        (name, "target", {**targets.get(name, {}), **scored[name]}) for name in plan.experiment.targets
    ]
    keys = [key for key in ROW_COUNTS if any(key in found for _, _, found in counts)]
    rows = [[escape(name), role, *(_number(found.get(key)) for key in keys)] for name, role, found in counts]
    said = f"Cut: training rows whose text has more than {_longest(plan.experiment)} and is read in part."
    used = table(["task", "", *(ROW_COUNTS[key] for key in keys)], rows, said)
    return used + _rows_checked(checks(plan, root).get("rows", {}))


def _longest(experiment: "Experiment") -> str:
    """`256 tokens`, or `256 tokens (multirc 348)` where tasks have limits of their own."""
    limits = experiment.limits
    own = [f"{name} {limits.tokens(name)}" for name, one in limits.tasks.items() if one.source_tokens]
    return f"{limits.source_tokens} tokens" + (f" ({', '.join(own)})" if own else "")


def _rows_checked(counts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """What became of every row that was read: used, or dropped for a reason."""
    rows = [
        [
            escape(f"{name} {split}"),
            *(_number(one[key]) for key in ("read", "used")),
            _dropped(one["dropped"]),
        ]
        + [_number(one[key]) for key in ("taken", "cut")]
        for name, splits in counts.items()
        for split, one in splits.items()
    ]
    said = "Read = used + dropped. Taken: examples left after caps and draws, of all seeds; cut: of those."
    return table(["rows of", "read", "used", "dropped", "taken", "cut"], rows, said) if rows else ""


def _dropped(reasons: Mapping[str, int]) -> str:
    """Rows that give no example, by reason."""
    return ", ".join(f"{_number(count)} ({escape(why)})" for why, count in sorted(reasons.items())) or "0"


def _adapted(plan: "Plan", root: Path) -> Iterator[tuple[str, Run]]:
    """Finished runs of the targets, the first of each last, with as many shots as the experiment says."""
    plain = {row.label for row in plan.experiment.rows if row.shots is None and row.shots_total is None}
    for cell in reversed(plan.cells):
        if cell.trained and cell.row in plain and Run(root / cell.trained).done:
            yield cell.target, Run(root / cell.trained)


def settings(plan: "Plan", root: Path) -> str:
    """The experiment file with all defaults, versions and machine, and the names of all runs."""
    done = [job.id for job in plan.jobs if Run(root / job.id).done]
    env = Run(root / done[0]).env() if done else {}
    known = [[escape(name), escape(_plain(value))] for name, value in sorted(env.items())]
    ids = [[f"<code>{escape(job.id)}</code>", "" if job.id in done else "not finished"] for job in plan.jobs]
    return (
        _details("Settings, with all defaults", f"<pre>{escape(to_yaml(plan.experiment))}</pre>")
        + _details("Versions and machine", table(["", "value"], known))
        + _details(f"Runs ({len(done)} of {len(ids)} finished)", table(["run", ""], ids))
    )


def _plain(value: object) -> str:
    """A value of env.json for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else json.dumps(value).strip('"')


def _details(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"
