"""Running an experiment's jobs: what is missing, in order, with its share of the work and what came out."""

from collections.abc import Sequence

from weft import stages
from weft.config.base import Split
from weft.config.training import RowCap
from weft.errors import Faults, ResourceError, WeftError
from weft.experiments.executors import Executor
from weft.experiments.jobs import Job, Plan
from weft.experiments.spreading import Spreading
from weft.progress import duration
from weft.runs import Run
from weft.runs.config import AnyRun, EvaluateRun, SourceRun
from weft.runs.workspace import TEXTS, Workspace
from weft.training.runner import LONE

MOST = 16  # runs in one batch: as many folders are held open


def units(config: AnyRun, workspace: Workspace) -> float:
    """A run's share of the work: rows that pass through the model, a training row counting three."""
    if isinstance(config, EvaluateRun):
        if config.method is not None and config.method.asks_rows:
            return 1.0
        return 1.5 * _rows(config, workspace, config.split, "test_rows")
    if config.optim is None:
        return 1.0
    passes = 4.0 if isinstance(config, SourceRun) and config.teachers else 3.0
    dev = 0.0
    if config.optim.eval_every:
        rows = _rows(config, workspace, "dev", "dev_rows")
        dev = config.optim.steps / config.optim.eval_every * rows
    return config.optim.steps * config.optim.batch_size * passes + dev


def _rows(config: AnyRun, workspace: Workspace, split: Split, cap: RowCap) -> int:
    """How many rows of a split a run reads, over its tasks."""
    counts = {task.name: len(task.load(split)) for task in workspace.tasks(config)}
    return sum(min(count, config.limits.rows(name, cap) or count) for name, count in counts.items())


def launch(plan: Plan, workspace: Workspace, executor: Executor | None = None) -> None:
    """Run what is missing, tier after tier. A run that fails stops those that need it, and no others.

    Args:
        plan: the runs.
        workspace: where.
        executor: runs several beside each other; none: one after the other, in this process.

    Raises:
        ResourceError: at once: a full disk or a folder in use would stop every other run as well.
        WeftError: at the end, if runs failed: all their errors together.
    """
    progress, missing = workspace.progress, _missing(plan, workspace)
    progress.total = sum(units(job.config, workspace) for job in missing)
    failed: dict[str, WeftError] = {}
    every = groups(missing, workspace)
    lost = (
        _one_by_one(every, workspace, failed)
        if executor is None
        else _spread(every, workspace, executor, failed)
    )
    progress.close()
    workspace.check_frozen()
    _tell(failed, workspace)
    if lost:
        progress.warn(
            f"{len(lost)} runs wait for those that failed; the same command runs only what is missing"
        )
    if failed:
        raise next(iter(failed.values())) if len(failed) == 1 else Faults(failed.values())


def _one_by_one(every: list[list[Job]], workspace: Workspace, failed: dict[str, WeftError]) -> set[str]:
    """Groups in this process; gives the runs that wait for those that failed."""
    lost: set[str] = set()
    for group in every:
        workspace.stop.check()
        without = {job.id for job in group if any(need in failed or need in lost for need in job.needs)}
        lost |= without
        workspace.progress.total -= sum(units(job.config, workspace) for job in group if job.id in without)
        _run([job for job in group if job.id not in without], workspace, failed)
    return lost


def _spread(
    every: list[list[Job]], workspace: Workspace, executor: Executor, failed: dict[str, WeftError]
) -> set[str]:
    """Groups on several workers; gives likewise."""
    workspace.progress.begin(f"{executor.slots} at once", 0.0)

    def told(job: Job, fault: WeftError | None) -> None:
        if fault is not None:
            failed[job.id] = fault
        text = "FAILED" if fault is not None else _outcome(job.config, workspace.run(job.config))
        workspace.progress.end(f"{job.config.stage} > {job.label}", units(job.config, workspace), text)

    return Spreading(every, workspace, executor, told).run()


def _missing(plan: Plan, workspace: Workspace) -> list[Job]:
    """The jobs that are not finished; what finished ones have left behind is cleared away."""
    runs = {job.id: workspace.run(job.config) for job in plan.jobs}
    for run in runs.values():
        run.tidy()
    return [job for job in plan.jobs if not runs[job.id].done]


def groups(jobs: Sequence[Job], workspace: Workspace, room: int | None = None) -> list[list[Job]]:
    """Jobs in the order in which they run, those together that train in one batch.

    Runs that were begun together stay together, so that they end with the same bits. Others meet where they
    share the frozen model and the step of one leaves room on the device.

    Args:
        jobs: in an order in which they can run.
        workspace: where.
        room: tokens of a step that fill the device; none: of this machine's.
    """
    known = {job.id: workspace.company(job.config) for job in jobs}
    begun, room = set[str]().union(*known.values()), room or workspace.machine.part_tokens
    found: list[list[Job]] = []
    for job in jobs:
        begun_with = known[job.id] or job.id in begun
        home = next((group for group in reversed(found) if begun_with and _belongs(job, group, known)), None)
        if home is None and found and _fits(job, found[-1], known, workspace, room):
            home = found[-1]
        if home is None:
            found.append([job])
        else:
            home.append(job)
    return found


def _belongs(job: Job, group: list[Job], known: dict[str, set[str]]) -> bool:
    """Whether a job was begun together with those of a group."""
    return any(job.id in known[one.id] or one.id in known[job.id] for one in group)


def _fits(job: Job, group: list[Job], known: dict[str, set[str]], workspace: Workspace, room: int) -> bool:
    """Whether a job that was not begun may join a group of others that were not."""
    every = [*group, job]
    if any(known[one.id] for one in every) or not all(stages.can_share(one.config) for one in every):
        return False
    first, last = group[0].config, job.config
    alike = (first.stage, first.base, first.prompt.length) == (last.stage, last.base, last.prompt.length)
    place = workspace.position(first) == workspace.position(last)
    if not (alike and place and len(every) <= MOST):
        return False
    return sum(stages.step_tokens(one.config, workspace) for one in every) <= room


def _run(group: list[Job], workspace: Workspace, failed: dict[str, WeftError]) -> None:
    """Run the jobs of a group, and note which of them failed."""
    if not group:
        return
    jobs = {job.id: job for job in group}
    label = group[0].label if len(group) == 1 else f"{len(group)} together"
    work = sum(units(job.config, workspace) for job in group)
    workspace.progress.begin(f"{group[0].config.stage} > {label}", work)
    try:
        for name, outcome in stages.perform_together([job.config for job in group], workspace):
            job = jobs.pop(name)
            if isinstance(outcome, WeftError):
                failed[name] = outcome
            if not workspace.group.leads:
                continue
            text = "FAILED" if isinstance(outcome, WeftError) else _outcome(job.config, outcome)
            workspace.progress.end(f"{job.config.stage} > {job.label}", units(job.config, workspace), text)
    except ResourceError as error:
        if error.code != LONE or workspace.group.size > 1:
            _tell(failed, workspace)
            raise
        failed |= dict.fromkeys(jobs, error)


def _tell(failed: dict[str, WeftError], workspace: Workspace) -> None:
    for name, error in failed.items():
        workspace.progress.warn(f"{name} failed: {error}")


def _outcome(config: AnyRun, run: Run) -> str:
    """What came out of a run, in a few words."""
    result = run.result()
    if isinstance(config, EvaluateRun):
        found = [
            (spec.metrics[0], result["scores"][spec.name]["metrics"][spec.metrics[0]])
            for spec in config.tasks
        ]
        return ", ".join(f"{name} {'undefined' if v is None else f'{v:.1f}'}" for name, v in found)
    dev = "" if result.get("dev") is None else f", dev {result['dev']:.1f} at step {result['best_step']}"
    if not result["steps"]:
        return f"fitted in {run.seconds():.1f} s"
    return f"{result['steps']} steps in {run.seconds():.0f} s{dev}"


def describe(plan: Plan, workspace: Workspace) -> str:
    """What an experiment would do: its jobs, what is done already, parameters and memory."""
    done = {job.id for job in plan.jobs if workspace.run(job.config).done}
    missing = [job for job in plan.jobs if job.id not in done]
    first = plan.jobs[0].config
    base, length = workspace.base(first), plan.experiment.prompt.length
    kept = plan.experiment.base.text_cache_mb if workspace.position(first) == "suffix" else 0
    rows = sum(units(job.config, workspace) for job in missing)
    stage = plan.experiment.source
    factors = stage.factors.rank * (length + base.width) if stage else 0
    return "\n".join(
        [
            *(f"{'done  ' if job.id in done else 'to do '} {job.id}" for job in plan.jobs),
            f"{len(plan.jobs)} runs, {len(missing)} to do",
            f"base      {base.name} ({base.origin}), {base.family}, D = {base.width}",
            f"numbers   prompt {length} x {base.width} = {length * base.width:,}, factors {factors:,}",
            f"memory    {base.bytes / 1e9:.1f} GB of weights, and the step",
            f"disk      up to {kept / 1e3:.1f} GB of texts in {workspace.root / TEXTS}, mapped into memory",
            f"work      {rows:,.0f} rows; {_time_of(missing, base.bytes, length, workspace)}",
        ]
    )


def _time_of(jobs: list[Job], weights: int, length: int, workspace: Workspace) -> str:
    """A rough time: two operations per weight and token, at half the measured matrix rate."""
    if not jobs:
        return "nothing to wait for"
    config = jobs[0].config
    rate = workspace.gflops() * 1e9 / 2
    texts = 0 if workspace.position(config) == "suffix" else max(config.source_tokens) / 4
    tokens = length + 2 + texts
    rows = sum(units(job.config, workspace) for job in jobs)
    seconds = rows * tokens * 2 * (weights / 4) / rate
    return f"about {duration(seconds)} at half of this machine's {workspace.gflops():,.0f} GFLOP/s"
