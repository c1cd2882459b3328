"""What `weft tasks` shows: the tasks with their rows, sources and licences, and how answers are spread."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from weft.config.base import Split
from weft.config.task import TaskSpec
from weft.tasks import BUILTIN, from_spec
from weft.tasks.spread import Spread, spread
from weft.text_table import filled, fitted, plain, render, shorten

DASH = "—"
CLOSED, OPEN, LONG = 20, 5, 40  # closed and open answers that are listed, and columns of one
FIRST = ("glue", "superglue", "mrqa", "others", "nlg")  # the paper's benchmarks
SPLITS: tuple[Split, ...] = get_args(Split)
HEAD, ALIGN = (*SPLITS, "metric", "answers", "data"), "<>>><><"


def listing(specs: Sequence[TaskSpec], root: Path | None, most: int) -> str:
    """The tasks by benchmark; of each, a line with its rows, and one with its source.

    Args:
        specs: the tasks.
        root: the data folder; rows are counted where it has all files of a task.
        most: columns of the screen.
    """
    groups: dict[str, list[TaskSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.benchmark, []).append(spec)
    order = sorted(groups, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return "\n\n".join(_table(name or "task", groups[name], root, most) for name in order)


def _table(name: str, specs: Sequence[TaskSpec], root: Path | None, most: int) -> str:
    head = (name, *HEAD)
    body = fitted(head, [_row(spec, root) for spec in specs], most)
    lines = render(head, body, ALIGN, most=most).split("\n")
    top, rest = lines[: -len(specs)], lines[-len(specs) :]
    for line, spec in zip(rest, specs, strict=True):
        top += [line, *_source(spec, most)]
    return "\n".join(top)


def _row(spec: TaskSpec, root: Path | None) -> list[str]:
    task, there = from_spec(spec, root), at_hand(spec, root)
    rows = [f"{len(task.load(split)):,}" if there and split in task.splits else DASH for split in SPLITS]
    answers = str(len(task.choices)) if task.choices else "open"
    return [spec.name, *rows, task.main_metric, answers, "at hand" if there else "not here"]


def _source(spec: TaskSpec, most: int) -> list[str]:
    """Where the rows are besides, and under which licence; indented."""
    hub = f"{spec.hub.path} {spec.hub.name or ''}".strip() if spec.hub else ""
    parts = [f"hub: {hub}{' (not tried)' if spec.folder == str(BUILTIN) else ''}"] if hub else []
    parts += [f"licence: {spec.licence}"] if spec.licence else []
    text = filled("; ".join(parts), most - 2)
    return [f"  {line}" for line in text.split("\n") if line]


def at_hand(spec: TaskSpec, root: Path | None) -> bool:
    """Whether a task has files, and all of them are there."""
    folder = root if spec.in_data_root else Path(spec.folder)
    files = spec.files.values()
    return folder is not None and bool(files) and all((folder / file).is_file() for file in files)


def answers(spec: TaskSpec, root: Path | None, most: int) -> str:
    """How the answers of one task are spread in each split, and what the commonest one scores."""
    if not at_hand(spec, root):
        return f"{spec.name}: its rows are not here"
    task = from_spec(spec, root)
    found = {split: spread(task, split) for split in task.splits}
    head = (spec.name, *found)
    every = list(dict.fromkeys(one for each in found.values() for one in each.counts))
    shown = every[: CLOSED if task.choices else OPEN]
    body = [[_short(one), *(f"{each.counts.get(one, 0):,}" for each in found.values())] for one in shown]
    if len(every) > len(shown):
        body.append([f"… {len(every) - len(shown):,} more", *(DASH for _ in found)])
    body += [[f"always the commonest: {name}", *_scores(name, [*found.values()])] for name in task.metrics]
    return render(head, fitted(head, body, most), "<" + ">" * len(found), most=most)


def _scores(name: str, found: Sequence[Spread]) -> list[str]:
    values = [one.scores[name] for one in found]
    return [DASH if value is None else f"{value:.1f}" for value in values]


def _short(answer: str) -> str:
    return shorten(plain(answer), LONG) or "(empty)"
