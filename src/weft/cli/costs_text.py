"""What an experiment costs, as text."""

from collections.abc import Sequence
from pathlib import Path

from weft.experiments.costs.plan import Costs, RunCost
from weft.progress import duration
from weft.text_table import fitted, render

MOST = 60  # runs that are shown one by one
HEAD = ("run", "batch", "FLOP", "seconds", "memory", "disk")
UNITS = ("", "K", "M", "G", "T", "P", "E")


def text(costs: Costs, path: Path, most: int) -> str:
    """Every run, or of many those of a stage together; then all of them on so many workers."""
    shown = [*map(_run, costs.runs)] if len(costs.runs) <= MOST else [*_stages(costs.runs)]
    table = [render(HEAD, fitted(HEAD, shown, most), "<>>>>>", most=most)] if shown else []
    return "\n".join(
        [*table, "", *_sums(costs), f"machine   {costs.machine.describe()}", f"          {path}"]
    )


def _run(run: RunCost) -> list[str]:
    batch = f"{run.batch + 1}: {run.together} together" if run.together > 1 else f"{run.batch + 1}"
    sign = " +" if run.fits else ""
    return [
        f"{run.stage} > {run.label}", batch, amount(run.operations), f"{run.seconds:,.1f}{sign}",
        f"{amount(run.memory)}B", f"{amount(run.disk)}B",
    ]  # fmt: skip


def _stages(runs: Sequence[RunCost]) -> list[list[str]]:
    """Sums of each stage, and the largest memory."""
    found = []
    for stage in dict.fromkeys(run.stage for run in runs):
        own = [run for run in runs if run.stage == stage]
        batches, sign = len({run.batch for run in own}), " +" * any(run.fits for run in own)
        found.append([
            f"{stage} x {len(own):,}", f"{batches:,}", amount(sum(run.operations for run in own)),
            f"{sum(run.seconds for run in own):,.0f}{sign}", f"{amount(max(run.memory for run in own))}B",
            f"{amount(sum(run.disk for run in own))}B",
        ])  # fmt: skip
    return found


def _sums(costs: Costs) -> list[str]:
    runs, plan = costs.runs, costs.schedule
    if not runs:
        return [f"all {costs.done} runs are done"]
    each, passing = sum(run.disk for run in runs), max(run.checkpoints for run in runs)
    longest = [next(run.label for run in runs if run.batch == number) for number in plan.path]
    counted = ["+         of classifiers their readings alone are counted, and not the fitting"]
    return [
        f"runs      {len(runs):,} to do in {costs.orders:,} orders, {costs.done:,} done",
        f"work      {amount(sum(run.operations for run in runs))}FLOP; {duration(plan.work)} of one worker",
        f"memory    {amount(max(run.memory for run in runs))}B of a worker at most",
        f"disk      {amount(each)}B, and checkpoints of up to {amount(passing)}B a run while it trains",
        f"workers   {costs.workers:,}: {duration(plan.makespan)}",
        f"longest   {duration(plan.path_seconds)} with any number of workers: {' > '.join(longest)}",
        *counted * any(run.fits for run in runs),
    ]


def amount(number: float) -> str:
    """A number with the letter of its thousands."""
    place = 0
    while number >= 999.5 and place < len(UNITS) - 1:
        number, place = number / 1000, place + 1
    return f"{number:.3g} {UNITS[place]}" if number < 100 else f"{number:.0f} {UNITS[place]}"
