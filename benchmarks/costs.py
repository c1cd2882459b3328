"""What `weft plan` says a run takes, beside what it took: a small experiment on the demo's tasks.

    .venv/bin/python -m benchmarks.costs [--rounds 3] [--base pocket] [--clock wall]

Every round measures the machine anew, as `weft plan` does for a machine that it does not know, and then
runs the experiment in an empty folder, order by order, so that plan and runs meet the same neighbours.
`--clock cpu` takes the processor's time of this process on both sides, which neighbours change less.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import torch
from cyclopts import App

from benchmarks.__main__ import quiet
from weft import stages
from weft.errors import WeftError
from weft.experiments import execution, jobs
from weft.experiments.config import Experiment
from weft.experiments.costs import measuring
from weft.experiments.costs.plan import costs
from weft.runs.workspace import Workspace

DEMO = Path(__file__).parents[1] / "demo/tasks"
WITHIN = 0.25
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
app = App(name="benchmarks.costs", result_action="return_value")


class Order(NamedTuple):
    """Runs of one batch, or one run: what it is, its seconds as planned and as taken, whether it fits a head.

    Of those the plan counts the readings alone.
    """

    name: str
    planned: float
    taken: float
    fits: bool

    @property
    def ratio(self) -> float:
        """Taken by planned."""
        return self.taken / self.planned


@app.default
def compare(
    *, rounds: int = 3, base: str = "pocket", clock: Literal["wall", "cpu"] = "wall", threads: int = 1
) -> None:
    """Print seconds of every order, as planned and as taken, and how many are within 25 %.

    Args:
        rounds: how often all of it is done.
        base: base model.
        clock: time that passed, or that of the processor.
        threads: of products.
    """
    torch.set_num_threads(threads)
    quiet()
    found: dict[str, list[Order]] = defaultdict(list)
    for number in range(rounds):
        with TemporaryDirectory() as folder:
            for order in _round(base, Path(folder), CLOCKS[clock]):
                found[order.name].append(order)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    counted = [orders for orders in found.values() if not orders[0].fits]
    ratios = [one.ratio for orders in counted for one in orders]
    print(f"{'order':52s} {'planned':>8s} {'taken':>8s} {'taken / planned':>22s}")
    for name, orders in found.items():
        _show(name, orders)
    whole = [
        sum(orders[number].taken for orders in counted) / sum(orders[number].planned for orders in counted)
        for number in range(rounds)
    ]
    near = sum(abs(ratio - 1) <= WITHIN for ratio in ratios)
    medians = [median(one.ratio for one in orders) for orders in counted]
    good = sum(abs(ratio - 1) <= WITHIN for ratio in medians)
    print(f"within 25 %: {good} of {len(medians)} orders by their median, {near} of {len(ratios)} in all")
    print(f"all of a round: {median(whole):.2f} ({min(whole):.2f} to {max(whole):.2f}) of the plan")
    print("+: it fits a head as well, which no plan counts; left out of both lines above")


def _show(name: str, orders: Sequence[Order]) -> None:
    ratios = [one.ratio for one in orders]
    spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    planned, taken = (median(some) for some in zip(*(one[1:3] for one in orders), strict=True))
    mark = "+" if orders[0].fits else ""
    print(f"{name[:50]:50s} {mark:1s} {planned:8.2f} {taken:8.2f} {spread:>22s}")


def _round(base: str, root: Path, clock: Callable[[], float]) -> list[Order]:
    """A measurement of the machine, and the experiment's orders."""
    workspace = Workspace(root)
    experiment = _experiment(base)
    plan = jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
    configs = [job.config for job in plan.jobs]
    frozen, own = measuring.representative(configs)
    measured = measuring.base(frozen, workspace, own, clock=clock)
    planned = costs(plan, workspace, measuring.machine(), measured, 1)
    workspace.backbone(frozen)  # which a worker loads once
    found = []
    for number, group in enumerate(execution.groups(plan.jobs, workspace)):
        own = [run for run in planned.runs if run.batch == number]
        began = clock()
        for name, outcome in stages.perform_together([job.config for job in group], workspace):
            if isinstance(outcome, WeftError):
                raise outcome
            assert name in {run.id for run in own}
        taken = clock() - began
        name = f"{own[0].stage} > {own[0].label}" + f" and {len(own) - 1} more" * (len(own) > 1)
        found.append(Order(name, sum(run.seconds for run in own), taken, own[0].fits))
    return found


def _experiment(base: str) -> Experiment:
    """Teachers, a source stage, prompt methods, a method of added weights and full fine-tuning."""

    def optim(*groups: str, steps: int, rate: float = 0.1) -> dict[str, object]:
        return {"lr": dict.fromkeys(groups, rate), "steps": steps, "batch_size": 12}

    bank = ("shared", "factors")
    settings = {
        "name": "costs",
        "base": {"model": base},
        "prompt": {"length": 6},
        "limits": {"source_tokens": 128, "test_rows": 60},
        "tasks": [str(DEMO)],
        "sources": ["sentiment", "topic", "question"],
        "targets": ["urgency", "banking"],
        "shots": 16,
        "seeds": [0],
        "teachers": {"optim": {**optim("prompt", steps=24), "eval_every": 12}},
        "source": {"optim": optim(*bank, steps=24)},
        "rows": [
            {"label": "frozen model", "method": {"name": "no_prompt"}},
            {"label": "sentence embeddings", "method": {"name": "sentence_embeddings"}},
            {"label": "weft", "method": {"name": "weft"}},
            {
                "label": "prompt tuning",
                "method": {"name": "prompt_tuning"},
                "optim": optim("prompt", steps=24),
            },
            {
                "label": "MPT nearest",
                "method": {"name": "mpt", "start": "nearest"},
                "optim": optim(*bank, steps=24),
            },
            {"label": "LoRA", "method": {"name": "lora"}, "optim": optim("lora", steps=12, rate=1e-3)},
            {"label": "full", "method": {"name": "full"}, "optim": optim("model", steps=6, rate=1e-4)},
        ],
    }
    return Experiment.model_validate(settings)


if __name__ == "__main__":
    app()
