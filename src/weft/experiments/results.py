"""What an experiment came to: the scores of its finished run folders. Loads without torch.

Every number comes from there. Where a run is missing there is no mean.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft import storage
from weft.experiments import config, paired
from weft.experiments.entries import Entry, interval, mean_of
from weft.runs import Run

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Cell, Plan

SHOWN = ("averages", "further", "paper", "reference")  # settings of the table alone, which no check looks at


def checks_path(root: Path, experiment: config.Experiment) -> Path:
    """Where `weft run` keeps what its checks found; another experiment of that name has another file."""
    settings = storage.sha256_json(experiment.model_dump(mode="json", exclude={"folder", *SHOWN}))
    return root / ".experiments" / f"{experiment.name}-{settings[:12]}.json"


def checks(plan: "Plan", root: Path) -> dict[str, Any]:
    """What the checks before the runs found: `warnings`, `rows`, `leaks`, `shared`; empty before a run."""
    path = checks_path(root, plan.experiment)
    return dict(storage.read_json(path)) if path.is_file() else {}


def collect(plan: "Plan", root: Path) -> list[Entry]:
    """Scores of a plan's finished runs: one entry for each row and target."""
    tasks = {task.name: task for job in plan.jobs for task in job.config.tasks}
    further = plan.experiment.further
    groups: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in plan.cells:  # what does not train has one run for all seeds
        groups.setdefault((cell.row, cell.target), {}).setdefault(cell.run, cell)
    known = checks(plan, root)
    entries = [
        replace(
            _entry(list(group.values()), tasks[target].metrics[0], further.get(target, ()), root),
            open=tasks[target].labels is None,
            leaked=known.get("leaks", {}).get(target, {}).get("rows"),
            shared=known.get("shared", {}).get(target),
        )
        for (_, target), group in groups.items()
    ]
    return paired.compared(entries, plan, root)


def _entry(cells: "list[Cell]", metric: str, further: Sequence[str], root: Path) -> Entry:
    row, target = cells[0].row, cells[0].target
    found = {cell.seed: run.scores(target, metric) for cell in cells if (run := Run(root / cell.run)).done}
    others = {name: [_or_zero(one["metrics"][name]) for one in found.values()] for name in further}
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
        mean=mean_of(scores.values()) if whole else None,
        half=interval(tuple(scores.values())) if whole else None,
        others={name: (mean_of(one), interval(one)) for name, one in others.items()} if whole else {},
        written=mean_of(map(_or_zero, written)) if whole else None,
        rows=next((one["rows"] for one in found.values()), None),
        parameters=mean_of(result["parameters_per_task"] for result in results),
        seconds=mean_of(run.seconds() / len(one["rows"]) for run, one in zip(trained, results, strict=True)),
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


def _env(cells: "list[Cell]", root: Path, name: str) -> Any:
    """What the first finished run's `env.json` says; an experiment's runs on one machine agree."""
    done = [root / cell.run for cell in cells if Run(root / cell.run).done]
    return Run(done[0]).env().get(name) if done else None
