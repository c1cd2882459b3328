"""What an experiment costs on a machine: every run, and so many workers."""

from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

from weft.experiments import execution
from weft.experiments.costs.learners import Learners
from weft.experiments.costs.machine import Machine, Measured
from weft.experiments.costs.schedule import Item, Schedule, schedule
from weft.experiments.costs.sizes import Sizes, sizes_of
from weft.experiments.costs.texts import Reader
from weft.experiments.costs.work import Work, Works
from weft.experiments.jobs import Job, Plan
from weft.models import load_tokenizer, outline_backbone
from weft.runs.config import EvaluateRun
from weft.runs.workspace import Workspace

BYTES = {"float32": 4, "bfloat16": 2}
PACKED = 2  # copies more of the weights, where products are packed


@dataclass(frozen=True)
class RunCost:
    """What a run costs.

    Attributes:
        id: its name.
        label: what it is.
        stage: its stage.
        batch: number of its order; runs of one order train in one batch.
        together: how many they are.
        operations: floating-point operations.
        seconds: on one worker; of several in a batch, its share.
        disk: bytes that stay.
        checkpoints: bytes that pass.
        memory: bytes at most.
        fits: whether it fits a classifier, of which only the readings are counted.
    """

    id: str
    label: str
    stage: str
    batch: int
    together: int
    operations: float
    seconds: float
    disk: float
    checkpoints: float
    memory: float
    fits: bool


@dataclass(frozen=True)
class Costs:
    """What an experiment costs.

    Attributes:
        runs: those that are not finished, in their order.
        done: how many are.
        machine: on which.
        measured: its base model.
        schedule: of orders on workers.
        workers: how many.
    """

    runs: tuple[RunCost, ...]
    done: int
    machine: Machine
    measured: Measured
    schedule: Schedule
    workers: int

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        path = [one.id for one in self.runs if one.batch in set(self.schedule.path)]
        times = {"makespan": self.schedule.makespan, "work": self.schedule.work, "path": path}
        times |= {"path_seconds": self.schedule.path_seconds, "busy": self.schedule.workers}
        about = {"host": self.machine.host, "threads": self.machine.threads, **self.measured.choices}
        plan = {"runs": [asdict(one) for one in self.runs], "done": self.done, "workers": self.workers}
        return {**plan, **times, "machine": about}

    @cached_property
    def orders(self) -> int:
        """How many orders the runs are."""
        return len({one.batch for one in self.runs})


def costs(plan: Plan, workspace: Workspace, machine: Machine, measured: Measured, workers: int) -> Costs:
    """Of the runs of an experiment that are not finished.

    Args:
        plan: the runs.
        workspace: the folder of runs, and the tasks.
        machine: on which they shall run.
        measured: the base model there.
        workers: how many run at once.
    """
    missing = [job for job in plan.jobs if not workspace.run(job.config).done]
    groups = execution.groups(missing, workspace, machine.part_tokens)
    works = _works(plan, workspace, machine)
    found, items, place = list[RunCost](), list[Item](), dict[str, int]()
    for number, group in enumerate(groups):
        place |= {job.id: number for job in group}
        every = [
            _cost(*pair, number, len(group), works, measured)
            for pair in zip(group, works.of(group), strict=True)
        ]
        needs = {place[need] for job in group for need in job.needs if need in place}
        found += every
        items.append(Item(sum(one.seconds for one in every), tuple(sorted(needs))))
    start = machine.start + measured.load
    return Costs(
        tuple(found),
        len(plan.jobs) - len(missing),
        machine,
        measured,
        schedule(items, workers, start),
        workers,
    )


def _works(plan: Plan, workspace: Workspace, machine: Machine) -> Works:
    first = plan.jobs[0].config
    folder, position = workspace.base(first), workspace.position(first)
    tokenizer = load_tokenizer(folder, chat=first.base.chat)
    outline = outline_backbone(folder, tokenizer, position)
    learners = Learners(plan, workspace, lambda: outline_backbone(folder, tokenizer, position))

    @cache
    def encoder(name: str) -> Sizes:
        beside = workspace.encoders.folder(name, None)
        return sizes_of(outline_backbone(beside, load_tokenizer(beside), "prefix").lm)

    return Works(
        sizes_of(outline.lm),
        Reader(workspace, outline),
        learners,
        machine.part_tokens,
        machine.read_tokens,
        encoder,
    )


def _cost(job: Job, work: Work, batch: int, together: int, works: Works, measured: Measured) -> RunCost:
    times = measured.times(work.learner.own)
    seconds = sum((one.times * times.seconds(one.kind, one.operations) for one in work.passes), 0.0)
    seconds += sum((one.shapes * times.fresh(one.kind) for one in work.passes), 0.0)
    seconds += times.evaluate if isinstance(job.config, EvaluateRun) else times.train
    dtype, packed = measured.choices.get("dtype", ""), measured.choices.get("products") == "packed"
    each = BYTES["float32"] if work.learner.own else BYTES.get(dtype, 4) * (1 + PACKED * packed)
    return RunCost(
        job.id, job.label, job.config.stage, batch, together,
        work.operations, seconds,
        work.disk(measured.files, measured.line), work.checkpoints,
        work.memory(float(works.sizes.weights * each), measured.kept), work.fits,
    )  # fmt: skip
