"""Running an experiment's jobs: what is missing, in order, with its share of the work and what came out."""

from weft import stages
from weft.config import AnyRun, EvaluateRun, SourceRun, Split
from weft.errors import Faults, ResourceError, WeftError
from weft.experiments import Job, Plan
from weft.progress import duration
from weft.runs import Run
from weft.workspace import Workspace


def units(config: AnyRun, workspace: Workspace) -> float:
    """A run's share of the work: rows that pass through the model, a training row counting three."""
    if isinstance(config, EvaluateRun):
        if config.run is None and config.method is not None and config.method.name == "majority":
            return 1.0
        return 1.5 * _rows(config, workspace, config.split, config.limits.test_rows)
    passes = 4.0 if isinstance(config, SourceRun) and config.teachers else 3.0
    dev = 0.0
    if config.optim.eval_every:
        rows = _rows(config, workspace, "dev", config.limits.dev_rows)
        dev = config.optim.steps / config.optim.eval_every * rows
    return config.optim.steps * config.optim.batch_size * passes + dev


def _rows(config: AnyRun, workspace: Workspace, split: Split, limit: int | None) -> int:
    """How many rows of a split a run reads, over its tasks."""
    counts = [len(task.load(split)) for task in workspace.tasks(config)]
    return sum(min(count, limit or count) for count in counts)


def launch(plan: Plan, workspace: Workspace) -> None:
    """Run what is missing, tier after tier. A run that fails stops those that need it, and no others.

    Raises:
        ResourceError: at once: a full disk or a folder in use would stop every other run as well.
        WeftError: at the end, if runs failed: all their errors together.
    """
    progress = workspace.progress
    progress.total = sum(
        units(job.config, workspace) for job in plan.jobs if not workspace.run(job.config).done
    )
    failed: dict[str, WeftError] = {}
    lost: list[str] = []
    for job in plan.jobs:
        workspace.stop.check()
        if (run := workspace.run(job.config)).done:
            run.tidy()
            continue
        if any(parent in failed or parent in lost for parent in job.needs):
            lost.append(job.id)
            progress.total -= units(job.config, workspace)
        else:
            _run_job(job, workspace, failed)
    progress.close()
    workspace.check_frozen()
    for name, error in failed.items():
        progress.warn(f"{name} failed: {error}")
    if lost:
        progress.warn(
            f"{len(lost)} runs wait for those that failed; the same command runs only what is missing"
        )
    if failed:
        raise next(iter(failed.values())) if len(failed) == 1 else Faults(failed.values())


def _run_job(job: Job, workspace: Workspace, failed: dict[str, WeftError]) -> None:
    workspace.progress.begin(f"{job.config.stage} > {job.label}", units(job.config, workspace))
    try:
        run = stages.perform(job.config, workspace)
    except WeftError as error:
        if isinstance(error, ResourceError) and error.code != "R17":  # too little memory is a run's own fault
            for name, earlier in failed.items():
                workspace.progress.warn(f"{name} failed: {earlier}")
            raise
        failed[job.id] = error
        workspace.progress.end("FAILED")
        return
    workspace.progress.end(_outcome(job.config, run))


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
    return f"{result['steps']} steps in {run.seconds():.0f} s{dev}"


def describe(plan: Plan, workspace: Workspace) -> str:
    """What an experiment would do: its jobs, what is done already, parameters and memory."""
    done = {job.id for job in plan.jobs if workspace.run(job.config).done}
    missing = [job for job in plan.jobs if job.id not in done]
    first = plan.jobs[0].config
    base, length = workspace.base(first), plan.experiment.prompt.length
    weights = sum(file.stat().st_size for file in base.path.glob("*.safetensors"))
    kept = plan.experiment.base.text_cache_mb if workspace.position(first) == "suffix" else 0
    rows = sum(units(job.config, workspace) for job in missing)
    factors = plan.experiment.source.factors.rank * (length + base.width)
    return "\n".join(
        [
            *(f"{'done  ' if job.id in done else 'to do '} {job.id}" for job in plan.jobs),
            f"{len(plan.jobs)} runs, {len(missing)} to do",
            f"base      {base.name} ({base.origin}), {base.family}, D = {base.width}",
            f"numbers   prompt {length} x {base.width} = {length * base.width:,}, factors {factors:,}",
            f"memory    {weights / 1e9:.1f} GB of weights, up to {kept / 1e3:.1f} GB of texts, and the step",
            f"work      {rows:,.0f} rows; {_time_of(missing, weights, length, workspace)}",
        ]
    )


def _time_of(jobs: list[Job], weights: int, length: int, workspace: Workspace) -> str:
    """A rough time: two operations per weight and token, at half the measured matrix rate."""
    if not jobs:
        return "nothing to wait for"
    config = jobs[0].config
    rate = workspace.gflops() * 1e9 / 2
    texts = 0 if workspace.position(config) == "suffix" else config.limits.source_tokens / 4
    tokens = length + 2 + texts
    rows = sum(units(job.config, workspace) for job in jobs)
    seconds = rows * tokens * 2 * (weights / 4) / rate
    return f"about {duration(seconds)} at half of this machine's {workspace.gflops():,.0f} GFLOP/s"
