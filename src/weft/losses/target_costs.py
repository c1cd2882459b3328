"""Whether teachers' targets are kept or made anew: what each costs, and the choice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from weft.config.training import DistillConfig
from weft.data.batch import Batch
from weft.losses.targets import TeacherTargets, examples_of
from weft.models.tuned import TunedModel
from weft.storage.page_store import PageStore

WINDOW, WINDOW_BYTES = 64, 256 << 20  # steps whose targets are made together, and what they may take
PASS_SHARE = 1.2  # of a row's own cost: rows that fill up a pass, and padding
WRITE_BYTES, READ_BYTES = 100e6, 500e6  # a second, of targets with their SHA-256; conservative
FLOPS = {"cpu": 250e9}  # a second, of a pass without gradient
FLOPS_ELSEWHERE = 100e12


@dataclass(frozen=True)
class Costs:
    """What the choice rests on, whether targets are made for every use or kept.

    Attributes:
        uses: how often an example comes in the run, in the mean.
        rows: how many different examples the run uses.
        row_bytes: of an example's targets.
        row_flops: of the teacher's pass over an example, in a step.
        flops: of the device, a second.
    """

    uses: float
    rows: float
    row_bytes: int
    row_flops: float
    flops: float = FLOPS["cpu"]

    @property
    def live(self) -> float:
        """Seconds of one use of targets that are made for it."""
        return PASS_SHARE * self.row_flops / self.flops

    @property
    def kept(self) -> float:
        """Seconds of one use of kept targets: made once, written once, read at each use."""
        once = self.live + self.row_bytes / WRITE_BYTES
        return once / max(1.0, self.uses) + self.row_bytes / READ_BYTES


def plan(asked: Literal["auto", "live", "kept"], costs: Costs, max_bytes: int) -> Literal["live", "kept"]:
    """Whether targets are kept: as asked; else where that is cheaper and they fit the budget."""
    if asked != "auto":
        return asked
    fits = costs.rows * costs.row_bytes <= max_bytes
    return "kept" if fits and costs.kept < costs.live else "live"


def window(batch_rows: int, row_bytes: int) -> int:
    """For how many steps targets are made at once: many, as far as they fit into memory."""
    return max(1, min(WINDOW, WINDOW_BYTES // (batch_rows * row_bytes)))


def costs_of(targets: TeacherTargets, batch: Batch, rows: float, draws: int) -> Costs:
    """Costs of a run that draws so many rows, from one batch of them.

    Args:
        targets: computes those of the batch, which are then kept.
        batch: of the run.
        rows: how many different examples the run uses.
        draws: how many it uses in all.
    """
    backbone = targets.teacher.backbone
    batch = batch.to(backbone.device)
    backbone.prepare(batch.sources)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        targets.teacher(batch, None, targets.hidden)
    targets.prepare([batch])
    entries = [
        targets.store.get(key) or targets._coming[key] for key in map(targets._key, examples_of(batch))
    ]
    size = sum(one.nbytes for entry in entries for one in entry.values()) // len(entries)
    flops = FLOPS.get(backbone.device.type, FLOPS_ELSEWHERE)
    row_flops = counter.get_total_flops() / len(batch.sources)
    return Costs(draws / rows, rows, size, row_flops, flops)


def targets_of(
    teacher: TunedModel,
    distill: DistillConfig,
    batch: Batch,
    rows: float,
    draws: int,
    store: Callable[[int], PageStore],
) -> tuple[TeacherTargets, int]:
    """A run's targets, kept where that pays, and for how many steps they are best made at once.

    Args:
        teacher: prompts for all tasks of the student, in its order.
        distill: of the run.
        batch: one of its batches.
        rows: how many different examples it uses.
        draws: how many it uses in all.
        store: opens the store, given its bytes.
    """
    at_once = TeacherTargets(teacher, distill, PageStore(None, 0, lambda text: None))
    costs = costs_of(at_once, batch, rows, draws)
    steps = window(len(batch.sources), costs.row_bytes)
    if plan(distill.targets, costs, distill.targets_mb << 20) == "live":
        return at_once, steps
    return TeacherTargets(teacher, distill, store(distill.targets_mb << 20)), steps
