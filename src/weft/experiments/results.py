"""What an experiment came to: scores with intervals, averages over targets, and the best of them.

Every number comes from finished run folders. Where one is missing there is no mean, and no average is made
of some of the targets. Loads without torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from weft import storage
from weft.experiments import config
from weft.runs import Run

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Cell, Plan

DASH, SEEN, ZERO, OPEN = "—", "†", "‡", "·"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Entry:
    """The scores of one row of the table on one target.

    Attributes:
        row: the row's label.
        target: the target task.
        metric: the target's main metric, in percent.
        seeds: seeds whose score is there; only the first for what does not train, whose one run serves all.
        scores: the score of each of them; 0 where the metric is undefined, as in published tables.
        mean: of the scores; none while a run is missing.
        half: half the width of the 95 % interval of the mean over seeds; none for a single score.
        written: mean score of freely written answers, if they were asked for.
        rows: test rows.
        parameters: trained parameters per task.
        seconds: mean time of training, a group's shared out over its targets.
        runs: the evaluations' ids, finished or not.
        missing: how many of them are not finished.
        undefined: how many scores are 0 because the metric is undefined.
        undefined_written: the same of freely written answers.
        trained: training rows, the least of the seeds'.
        dtype: number format of the base model's weights.
        leaked: scored rows whose whole input is in training rows; none if that was not counted.
        shared: scored rows that share a sentence, and no more, with training rows.
        seen: whether the base model was trained on the target's data before, so that it is in no average.
        unable: whether the target's answers are open, and the method answers closed ones alone.
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
    undefined_written: int = 0
    trained: int | None = None
    dtype: str | None = None
    leaked: int | None = None
    shared: int | None = None
    seen: bool = False
    unable: bool = False

    @property
    def silent(self) -> bool:
        """Whether all runs are there, and none of them wrote answers."""
        return self.mean is not None and self.written is None

    @property
    def head(self) -> str:
        """The target's name over its column, with a mark where it was seen."""
        return f"{self.target} {SEEN}" if self.seen else self.target

    def text(self, joint: str = " ± ") -> str:
        """The score with its interval, with a mark where a seed's is undefined."""
        if self.unable:
            return OPEN
        return score_text(self.mean, self.half, joint, marked=self.undefined > 0)

    @property
    def written_text(self) -> str:
        """The score of freely written answers, with the same mark; a dot where the method writes none."""
        if self.unable or self.silent:
            return OPEN
        return score_text(self.written, None, marked=self.undefined_written > 0)


@dataclass(frozen=True)
class Line:
    """One line of the table: a row's entries, and what they come to over all targets.

    Attributes:
        label: the row's label.
        kind: what the field calls the method.
        keeps: kind of file that the method leaves: of MPT a `bank`, of what tunes plain prompts `soft` ones.
        trains: whether the method learns from rows.
        entries: one for each target, in the experiment's order.
        scores: average over the targets that were not seen, for each seed that has a score on all of them.
        mean: of `scores`; none if a target is missing, or all were seen.
        half: half the width of its 95 % interval.
        parameters: trained parameters per task, the mean over targets.
        seconds: mean time of training one target.
    """

    label: str
    kind: str
    keeps: str
    trains: bool
    entries: tuple[Entry, ...]
    scores: tuple[float, ...]
    mean: float | None
    half: float | None
    parameters: float | None
    seconds: float | None

    @property
    def shares(self) -> bool:
        """Whether the method is MPT: a shared prompt with task factors."""
        return self.keeps == "bank"

    def text(self, joint: str = " ± ") -> str:
        """The average with its interval, with a mark where it holds a score that is undefined."""
        marked = any(entry.undefined for entry in self.entries if not entry.seen)
        return score_text(self.mean, self.half, joint, marked=marked)


def checks_path(root: Path, experiment: config.Experiment) -> Path:
    """Where `weft run` keeps what its checks found; another experiment of that name has another file."""
    settings = storage.sha256_json(experiment.model_dump(mode="json", exclude={"folder"}))
    return root / ".experiments" / f"{experiment.name}-{settings[:12]}.json"


def checks(plan: "Plan", root: Path) -> dict[str, Any]:
    """What the checks before the runs found: `warnings`, `rows`, `leaks`, `shared`; empty before a run."""
    path = checks_path(root, plan.experiment)
    return dict(storage.read_json(path)) if path.is_file() else {}


def collect(plan: "Plan", root: Path) -> list[Entry]:
    """Scores of a plan's finished runs: one entry for each row and target."""
    metrics = {task.name: task.metrics[0] for job in plan.jobs for task in job.config.tasks}
    groups: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in plan.cells:  # what does not train has one run for all seeds
        groups.setdefault((cell.row, cell.target), {}).setdefault(cell.run, cell)
    known = checks(plan, root)
    return [
        replace(
            _entry(list(group.values()), metrics[target], root),
            leaked=known.get("leaks", {}).get(target, {}).get("rows"),
            shared=known.get("shared", {}).get(target),
        )
        for (_, target), group in groups.items()
    ]


def _entry(cells: "list[Cell]", metric: str, root: Path) -> Entry:
    row, target = cells[0].row, cells[0].target
    found = {cell.seed: run.scores(target, metric) for cell in cells if (run := Run(root / cell.run)).done}
    # by name: result.json is written with sorted keys, so its first metric need not be the one that decides
    known = {seed: one["metrics"][metric] for seed, one in found.items()}
    scores = {seed: _or_zero(score) for seed, score in known.items()}
    written = [one["written"][metric] for one in found.values() if one["written"]]
    whole = len(found) == len(cells)
    trained = [run for cell in cells if cell.trained and (run := Run(root / cell.trained)).done]
    results = [run.result() for run in trained]
    return Entry(
        row,
        target,
        metric,
        seeds=tuple(scores),
        scores=tuple(scores.values()),
        mean=_mean(scores.values()) if whole else None,
        half=interval(tuple(scores.values())) if whole else None,
        written=_mean(map(_or_zero, written)) if whole else None,
        rows=next((one["rows"] for one in found.values()), None),
        parameters=_mean(result["parameters_per_task"] for result in results),
        seconds=_mean(run.seconds() / len(one["rows"]) for run, one in zip(trained, results, strict=True)),
        runs=tuple(cell.run for cell in cells),
        missing=len(cells) - len(found),
        undefined=sum(score is None for score in known.values()),
        undefined_written=sum(score is None for score in written),
        trained=min((result["rows"][target]["train"] for result in results), default=None),
        dtype=_env(cells, root, "dtype"),
        seen=target in (_env(cells, root, "seen_in_pretraining") or ()),
    )


def _or_zero(score: float | None) -> float:
    """A score as means count it: an undefined one as 0, for a collapsed seed is no better than chance."""
    return 0.0 if score is None else float(score)


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; none without any."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _env(cells: "list[Cell]", root: Path, name: str) -> Any:
    """What the first finished run's `env.json` says; an experiment's runs on one machine agree."""
    done = [root / cell.run for cell in cells if Run(root / cell.run).done]
    return Run(done[0]).env().get(name) if done else None


def interval(scores: Sequence[float]) -> float | None:
    """Half the width of the 95 % t interval of a mean; none for fewer than two scores."""
    from scipy.stats import t  # takes a second to import

    n = len(scores)
    if n < 2:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(scores, ddof=1) / np.sqrt(n))


def lines(entries: Sequence[Entry], plan: "Plan") -> list[Line]:
    """The table, line by line, in the experiment's order."""
    by_place = {(entry.row, entry.target): entry for entry in entries}
    metrics = {entry.target: entry.metric for entry in entries}
    experiment = plan.experiment
    return [
        _line(
            row,
            [by_place.get((row.label, name)) or _unable(row, name, metrics) for name in experiment.targets],
        )
        for row in experiment.rows
    ]


def _unable(row: config.Entry, target: str, metrics: dict[str, str]) -> Entry:
    """The place of a method that answers closed tasks alone, on a target whose answers are open."""
    return Entry(row.label, target, metrics.get(target, ""), unable=True)


def _line(row: config.Entry, entries: list[Entry]) -> Line:
    """Each seed is averaged over targets first, so that the interval is that of the average."""
    counted = [entry for entry in entries if not entry.seen]
    by_seed = [dict(zip(entry.seeds, entry.scores, strict=True)) for entry in counted]
    seeds = [seed for seed in (by_seed or [{}])[0] if all(seed in scores for scores in by_seed)]
    whole = all(entry.mean is not None for entry in entries)
    scores = tuple(fmean(scores[seed] for scores in by_seed) for seed in seeds) if whole else ()
    return Line(
        row.label,
        row.method.title,
        row.method.keeps,
        row.method.learns,
        tuple(entries),
        scores,
        _mean(scores),
        interval(scores),
        parameters=_mean(entry.parameters for entry in entries),
        seconds=_mean(entry.seconds for entry in entries),
    )


def best(table: Iterable[Line]) -> Line | None:
    """The line with the best average; none if no line is finished."""
    done = [line for line in table if line.mean is not None]
    return max(done, key=lambda line: line.mean or 0.0, default=None)


def best_shared(table: Iterable[Line]) -> Line | None:
    """The best of MPT's lines; see `best`."""
    return best(line for line in table if line.shares)


def score_text(mean: float | None, half: float | None, joint: str = " ± ", *, marked: bool = False) -> str:
    """`71.5 ± 2.3`, with a mark `39.7 ± 85.4 ‡`, or an em dash."""
    if mean is None:
        return DASH
    text = f"{mean:.1f}" if half is None else f"{mean:.1f}{joint}{half:.1f}"
    return f"{text} {ZERO}" if marked else text
