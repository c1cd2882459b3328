"""An experiment: which runs it takes, in which order, and running those that are missing.

`plan` is pure: an experiment and a way to name runs give a list of jobs. Dependencies are four tiers
(teachers, source, adapt, evaluate), run one after the other; what is finished is not run again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weft import stages
from weft.config import (
    AdaptRun,
    AnyRun,
    Entry,
    EvaluateRun,
    Experiment,
    PromptConfig,
    SourceRun,
    TaskSpec,
    TeacherRun,
)
from weft.errors import Faults, WeftError
from weft.tasks import find_specs, select
from weft.workspace import Workspace

Namer = Callable[[AnyRun], str]


@dataclass(frozen=True)
class Job:
    """One run of an experiment.

    Attributes:
        id: the run's name.
        config: its configuration, naming its parents by their ids.
        needs: the parents' ids.
        label: what it is, for people.
    """

    id: str
    config: AnyRun
    needs: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Cell:
    """One score of the result table: which evaluation it comes from."""

    row: str
    target: str
    seed: int
    run: str
    trained: str | None


@dataclass(frozen=True)
class Plan:
    """The jobs of an experiment in an order in which they can run, and the cells of its table."""

    experiment: Experiment
    jobs: tuple[Job, ...]
    cells: tuple[Cell, ...]
    source: str
    teachers: dict[str, str]


def specs_of(experiment: Experiment) -> dict[str, TaskSpec]:
    """The tasks that an experiment's task files declare.

    Raises:
        ConfigError: with every fault of the files.
    """
    return find_specs(Path(experiment.folder) / path for path in experiment.tasks)


def plan(experiment: Experiment, specs: dict[str, TaskSpec], name: Namer) -> Plan:
    """All runs of an experiment.

    Args:
        experiment: the experiment.
        specs: declared tasks.
        name: gives a configuration its run id.

    Raises:
        ConfigError: for a task that is not declared.
    """
    sources, targets = select(specs, experiment.sources), select(specs, experiment.targets)
    jobs: dict[str, Job] = {}

    def add(config: AnyRun, label: str, needs: tuple[str, ...] = ()) -> str:
        run = name(config)
        jobs.setdefault(run, Job(run, config, needs, label))
        return run

    teachers = {spec.name: add(_teacher(experiment, spec), f"teacher {spec.name}") for spec in sources}
    source = add(_source(experiment, sources, teachers), "source", tuple(teachers.values()))
    cells = []
    for spec in targets:
        for entry in experiment.rows:
            for seed in experiment.seeds:
                label = f"{spec.name} · {entry.label} · seed {seed}"
                trained = None
                if entry.optim is not None:
                    config = _adapt(experiment, entry, spec, seed, source, teachers)
                    needs = (config.source,) if config.source else tuple(config.teachers.values())
                    trained = add(config, label, needs)
                scored = _evaluation(experiment, entry, spec, seed, trained)
                run = add(scored, f"{label} · test", (trained,) if trained else ())
                cells.append(Cell(entry.label, spec.name, seed, run, trained))
    order = {"teachers": 0, "source": 1, "adapt": 2, "evaluate": 3}
    ordered = sorted(jobs.values(), key=lambda job: order[job.config.stage])
    return Plan(experiment, tuple(ordered), tuple(cells), source, teachers)


def _teacher(experiment: Experiment, spec: TaskSpec) -> TeacherRun:
    prompt = experiment.prompt
    return TeacherRun(
        base=experiment.base, prompt=prompt, limits=_training_limits(experiment), tasks=(spec,), optim=experiment.teachers.optim
    )


def _source(experiment: Experiment, specs: list[TaskSpec], teachers: dict[str, str]) -> SourceRun:
    stage = experiment.source
    prompt = experiment.prompt
    if stage.init is not None:
        text = prompt.init_text if stage.init == "text" else ""
        prompt = PromptConfig(length=prompt.length, position=prompt.position, init=stage.init, init_text=text)
    return SourceRun(
        base=experiment.base,
        prompt=prompt,
        limits=_training_limits(experiment),
        tasks=tuple(specs),
        teachers=teachers if stage.distill.weight > 0 else {},
        factors=stage.factors,
        distill=stage.distill,
        sampling=stage.sampling,
        optim=stage.optim,
    )


def _adapt(
    experiment: Experiment, entry: Entry, spec: TaskSpec, seed: int, source: str, teachers: dict[str, str]
) -> AdaptRun:
    method = entry.method
    transfers = method.name == "prompt_tuning" and method.start != "fresh"
    return AdaptRun.model_validate(
        {
            "base": experiment.base,
            "prompt": experiment.prompt,
            "limits": _training_limits(experiment),
            "tasks": (spec,),
            "seed": seed,
            "method": method,
            "source": source if method.name == "mpt" else None,
            "teachers": teachers if transfers else {},
            "shots": entry.shots or experiment.shots,
            "optim": entry.optim,
        }
    )


def _evaluation(
    experiment: Experiment, entry: Entry, spec: TaskSpec, seed: int, trained: str | None
) -> EvaluateRun:
    """Scores of what was trained. What is not trained has one score for all seeds."""
    return EvaluateRun(
        base=experiment.base,
        prompt=experiment.prompt,
        limits=experiment.limits,
        tasks=(spec,),
        seed=seed if trained else 0,
        run=trained,
        method=None if trained else entry.method,
        batch_size=experiment.eval_batch,
        generate=experiment.generate,
    )


def _training_limits(experiment: Experiment) -> object:
    """Limits without the cap on test rows, which cannot change what is trained."""
    return experiment.limits.model_copy(update={"test_rows": None})


def units(config: AnyRun) -> float:
    """A run's share of the work: rows that pass through the model, a training row counting three."""
    if isinstance(config, EvaluateRun):
        if config.run is None and config.method is not None and config.method.name == "majority":
            return 1.0
        return 2.0 * (config.limits.test_rows or 500)
    passes = 4.0 if isinstance(config, SourceRun) and config.teachers else 3.0
    dev = 0.0
    if config.optim.eval_every:
        dev = config.optim.steps / config.optim.eval_every * (config.limits.dev_rows or 500) * len(config.tasks)
    return config.optim.steps * config.optim.batch_size * passes + 1.5 * dev


def launch(plan: Plan, workspace: Workspace) -> None:
    """Run what is missing, tier after tier. A run that fails stops those that need it, and no others.

    Raises:
        WeftError: at the end, if runs failed: all their errors together.
    """
    progress = workspace.progress
    progress.total = sum(units(job.config) for job in plan.jobs if not workspace.run(job.config).done)
    failed: dict[str, WeftError] = {}
    lost: list[str] = []
    for job in plan.jobs:
        if any(parent in failed or parent in lost for parent in job.needs):
            lost.append(job.id)
            progress.total -= units(job.config)
        elif not workspace.run(job.config).done:
            _run_job(job, workspace, failed)
    progress.close()
    workspace.check_frozen()
    for name, error in failed.items():
        progress.warn(f"{name} failed: {error}")
    if lost:
        progress.warn(f"{len(lost)} runs wait for those that failed; the same command runs only what is missing")
    if failed:
        raise next(iter(failed.values())) if len(failed) == 1 else Faults(failed.values())


def _run_job(job: Job, workspace: Workspace, failed: dict[str, WeftError]) -> None:
    workspace.progress.begin(f"{job.config.stage} > {job.label}", units(job.config))
    try:
        run = stages.perform(job.config, workspace)
    except WeftError as error:
        failed[job.id] = error
        workspace.progress.end("FAILED")
        return
    workspace.progress.end(_outcome(run.result()))


def _outcome(result: dict[str, object]) -> str:
    """What came out of a run, in a few words."""
    scores = result.get("scores")
    if isinstance(scores, dict):
        metrics = [next(iter(one["metrics"].items())) for one in scores.values()]
        return ", ".join(f"{name} {value:.1f}" if value is not None else f"{name} undefined" for name, value in metrics)
    dev = f", dev {result['dev']:.1f} at step {result['best_step']}" if result.get("dev") is not None else ""
    return f"{result['steps']} steps in {result['seconds']:.0f} s{dev}"
