"""An experiment: which runs it takes, in which order, and running those that are missing.

`plan` is pure: an experiment and a way to name runs give a list of jobs. Dependencies are four tiers
(teachers, source, adapt, evaluate), run one after the other; what is finished is not run again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from weft.config.files import load_config
from weft.config.task import TaskSpec
from weft.config.training import LimitsConfig, PromptConfig, RowCap
from weft.errors import ConfigError
from weft.experiments.config import Entry, Experiment
from weft.methods import Method
from weft.models.base_folder import located, whole_path
from weft.runs import bundled
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, SourceRun, TeacherRun
from weft.tasks import named, select

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
    """The jobs of an experiment in an order in which they can run, and the cells of its table.

    Attributes:
        source: the run of the source stage: the experiment's own, that which comes with weft, or none; of
            several seeds' the first. Rows with settings of their own have others.
        teachers: those of its tasks.
    """

    experiment: Experiment
    jobs: tuple[Job, ...]
    cells: tuple[Cell, ...]
    source: str
    teachers: dict[str, str]


def load_experiment(path: Path, overrides: dict[str, object]) -> Experiment:
    """An experiment from its file; relative folders of models lie beside it.

    Raises:
        ConfigError: with every fault of the file.
    """
    found = load_config(path, Experiment, overrides)
    rows = tuple(row.model_copy(update=placed(row.method, path)) for row in found.rows)
    return found.model_copy(update={"base": located(found.base, path.parent), "rows": rows})


def placed(method: Method, path: Path) -> dict[str, Method]:
    """The method of a file, with encoders whose relative folders lie beside it."""
    return {"method": method.renamed(lambda name: whole_path(name, path.parent))}


def specs_of(experiment: Experiment) -> dict[str, TaskSpec]:
    """The tasks that an experiment's task files declare, with answers and held-out rows as it says.

    Raises:
        ConfigError: with every fault of the files.
    """
    specs = named(experiment.tasks, Path(experiment.folder))
    if experiment.holdout_draw is not None:
        specs = {name: spec.drawn(experiment.holdout_draw) for name, spec in specs.items()}
    changed = {} if experiment.answers is None else {"answers": experiment.answers}
    return {name: spec.model_copy(update=changed) for name, spec in specs.items()}


def plan(experiment: Experiment, specs: dict[str, TaskSpec], name: Namer) -> Plan:
    """All runs of an experiment.

    Args:
        experiment: the experiment.
        specs: declared tasks.
        name: gives a configuration its run id.

    Raises:
        ConfigError: for a task that is not declared.
    """
    targets = select(specs, experiment.targets)
    _check_further(experiment, targets)
    jobs: dict[str, Job] = {}

    def add(config: AnyRun, label: str, needs: tuple[str, ...] = ()) -> str:
        run = name(config)
        jobs.setdefault(run, Job(run, config, needs, label))
        return run

    def start(own: Experiment, seed: int, of: str = "") -> tuple[str, dict[str, str]]:
        """Source stage and teachers, from which targets of that seed start."""
        if not own.sources:
            needed = any(entry.method.needs for entry in own.rows)
            return bundled.start(own.base.model) if needed else ("", {})
        sources, at = select(specs, own.sources), seed if own.vary_sources else 0
        end = of + (f" · seed {at}" if own.vary_sources else "")
        teachers = {spec.name: add(_teacher(own, spec, at), f"teacher {spec.name}{end}") for spec in sources}
        stage = _source(own, sources, teachers, at)
        return add(stage, f"source{end}", tuple(teachers.values())), teachers

    source, teachers = start(experiment, experiment.seeds[0])
    cells = []
    for entry, seed, group in _trainings(experiment, targets):
        label = f"{'+'.join(spec.name for spec in group)} · {entry.label} · seed {seed}"
        own, trained = experiment.of(entry), None
        if entry.method.learns:
            of = f" of {entry.label}" if entry.settings else ""
            known = start(own, seed, of) if entry.method.needs else ("", dict[str, str]())
            config = _adapt(own, entry, group, seed, *known)
            needs = (config.source,) if config.source else tuple(config.teachers.values())
            trained = add(config, label, needs if own.sources else ())
        for spec in group:
            scored = _evaluation(own, entry, spec, seed, trained)
            run = add(
                scored,
                f"{spec.name} · {entry.label} · seed {seed} · {experiment.split}",
                (trained,) if trained else (),
            )
            cells.append(Cell(entry.label, spec.name, seed, run, trained))
    order = {"teachers": 0, "source": 1, "adapt": 2, "evaluate": 3}
    ordered = sorted(jobs.values(), key=lambda job: order[job.config.stage])
    return Plan(experiment, tuple(ordered), tuple(cells), source, teachers)


def _check_further(experiment: Experiment, targets: list[TaskSpec]) -> None:
    """Refuse a further metric that a target is not scored by.

    Raises:
        ConfigError: naming the metrics that it has.
    """
    for spec in targets:
        for name in experiment.further.get(spec.name, ()):
            if name not in spec.metrics:
                raise ConfigError(
                    f"task {spec.name!r} is not scored by {name!r}",
                    where=f"further ({spec.name})",
                    fix=f"it has {', '.join(spec.metrics)}; others are named under 'metrics' of the task",
                    code="C18",
                )


def _trainings(
    experiment: Experiment, targets: list[TaskSpec]
) -> Iterator[tuple[Entry, int, tuple[TaskSpec, ...]]]:
    """What is trained: every target alone, or those of a group together, for every row and seed."""
    for entry in experiment.rows:
        able = [spec for spec in targets if spec.labels is not None or not entry.method.closed_only]
        for group in _groups(experiment, able) if entry.group else [(spec,) for spec in able]:
            for seed in experiment.seeds:
                yield entry, seed, group


def _groups(experiment: Experiment, targets: list[TaskSpec]) -> list[tuple[TaskSpec, ...]]:
    """The named groups, and alone each target that is in none; without names, all targets are one group."""
    if not experiment.groups:
        return [tuple(targets)] if targets else []
    groups = list(experiment.groups.values())
    together = [tuple(spec for spec in targets if spec.name in names) for names in groups]
    alone = [(spec,) for spec in targets if not any(spec.name in names for names in groups)]
    return [group for group in (*together, *alone) if group]  # a target that is not declared is left out


def _teacher(experiment: Experiment, spec: TaskSpec, seed: int) -> TeacherRun:
    prompt, stage = experiment.prompt, experiment.teachers
    assert stage is not None
    return TeacherRun(
        base=experiment.base,
        prompt=prompt,
        limits=_limits(experiment, (spec,), "test_rows", "target_rows"),
        tasks=(spec,),
        seed=seed,
        optim=stage.optim,
    )


def _source(experiment: Experiment, specs: list[TaskSpec], teachers: dict[str, str], seed: int) -> SourceRun:
    stage = experiment.source
    assert stage is not None
    prompt = experiment.prompt
    if stage.init is not None:
        text = prompt.init_text if stage.init == "text" else ""
        prompt = PromptConfig(length=prompt.length, position=prompt.position, init=stage.init, init_text=text)
    return SourceRun(
        base=experiment.base,
        prompt=prompt,
        limits=_limits(experiment, specs, "test_rows", "target_rows"),
        tasks=tuple(specs),
        seed=seed,
        teachers=teachers if stage.distill.weight > 0 or prompt.init == "teachers" else {},
        factors=stage.factors,
        distill=stage.distill,
        sampling=stage.sampling,
        optim=stage.optim,
    )


def _adapt(
    experiment: Experiment,
    entry: Entry,
    group: tuple[TaskSpec, ...],
    seed: int,
    source: str,
    teachers: dict[str, str],
) -> AdaptRun:
    needs, (shots, shots_total) = entry.method.needs, experiment.shots_of(entry)
    return AdaptRun.model_validate(
        {
            "base": experiment.base,
            "prompt": experiment.prompt,
            "limits": _limits(experiment, group, "test_rows"),
            "tasks": group,
            "seed": seed,
            "method": entry.method,
            "source": source if "source" in needs else None,
            "teachers": teachers if "teachers" in needs else {},
            "shots": shots,
            "shots_total": shots_total,
            "optim": experiment.optim_of(entry, [spec.name for spec in group]),
        }
    )


def _evaluation(
    experiment: Experiment, entry: Entry, spec: TaskSpec, seed: int, trained: str | None
) -> EvaluateRun:
    """Scores of what was trained. What is not trained has one score for all seeds."""
    return EvaluateRun(
        base=experiment.base,
        prompt=experiment.prompt,
        limits=_limits(experiment, (spec,), "target_rows"),
        tasks=(spec,),
        seed=seed if trained else 0,
        run=trained,
        method=None if trained else entry.method,
        split=experiment.split,
        batch_size=experiment.eval_batch,
        generate=experiment.generate,
        decoding=experiment.decoding,
    )


def _limits(experiment: Experiment, specs: Sequence[TaskSpec], *unread: RowCap) -> LimitsConfig:
    """Limits of some tasks, without caps on rows that are not read: of test rows in training, as one."""
    return experiment.limits.of([spec.name for spec in specs], *unread)
