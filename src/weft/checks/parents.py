"""Whether the finished runs that a run starts from are there, hold what it needs, and fit it."""

from collections.abc import Iterable
from functools import partial

from weft import runs
from weft.checks.findings import Findings
from weft.errors import ArtifactError, ConfigError, did_you_mean
from weft.methods import Method
from weft.methods.method import Need
from weft.runs import Run
from weft.runs.config import AdaptRun, AnyRun, SourceRun
from weft.runs.parents import check_fit
from weft.runs.workspace import Workspace

NEEDS: dict[Need, str] = {  # how to get what a method starts from
    "teachers": "run 'weft teachers', and name its runs: teachers: {TASK: RUN}",
    "source": "run 'weft source', and name its run: source: RUN",
}


def check_parents(config: AnyRun, workspace: Workspace, found: Findings) -> None:
    """C12 to C16: the finished runs that a run starts from."""
    if isinstance(config, SourceRun) and config.teachers:
        for name in (spec.name for spec in config.tasks if spec.name not in config.teachers):
            found.error(
                ConfigError(
                    f"task {name!r} has no teacher",
                    where="teachers",
                    fix="run 'weft teachers' for it",
                    code="C12",
                )
            )
    if isinstance(config, AdaptRun):
        found.attempt(partial(_check_start, config, workspace))
    for task, name in _parents_of(config):
        found.attempt(partial(_check_parent, config, task, name, workspace))


def _parents_of(config: AnyRun) -> Iterable[tuple[str | None, str]]:
    """The runs that a configuration names, those of teachers with their task."""
    if isinstance(config, SourceRun | AdaptRun):
        yield from config.teachers.items()
    if isinstance(config, AdaptRun) and config.source is not None:
        yield None, config.source


def _check_start(config: AdaptRun, workspace: Workspace) -> None:
    """C12: what the method starts from must be named, and one of the prompts that there are."""
    method, start = config.method, getattr(config.method, "start", None)
    named = {"teachers": bool(config.teachers), "source": config.source is not None}
    missing = sorted(need for need in method.needs if not named[need])
    if missing:
        raise ConfigError(
            f"{method.title}{'' if start is None else f' (start: {start})'} starts from finished runs, "
            f"and none is named as {' or '.join(missing)}",
            where=", ".join(missing),
            fix="; ".join(NEEDS[need] for need in missing),
            code="C12",
        )
    if method.starts is None or start in method.starts:
        return
    source = config.source if "source" in method.needs else None
    tasks = runs.find(workspace.root, source).config().tasks if source is not None else ()
    known = [spec.name for spec in tasks] or list(config.teachers)
    if start not in known:
        raise ConfigError(
            f"there is no prompt {start!r} to start from",
            where="method.start",
            fix=did_you_mean(str(start), [*known, *method.starts]),
            code="C12",
        )


def _check_parent(config: AnyRun, task: str | None, name: str, workspace: Workspace) -> None:
    run = runs.find(workspace.root, name)
    parent = run.config()
    _check_kind(run, parent.made_by, task)
    if task is not None and task not in {spec.name for spec in parent.tasks}:
        raise ConfigError(
            f"the run {run.id!r} has no prompt for {task!r}",
            where="teachers",
            fix=f"it has {', '.join(spec.name for spec in parent.tasks)}",
            code="C12",
        )
    if parent.prompt.length != config.prompt.length:
        raise ConfigError(
            f"the prompts of {run.id!r} have {parent.prompt.length} tokens, and this run's "
            f"{config.prompt.length}",
            where="prompt.length",
            fix="set the same length, or train the parent again",
            code="C15",
        )
    check_fit(run, config, workspace)
    run.saved()  # its prompts are those that it wrote


def _check_kind(run: Run, made_by: Method | None, task: str | None) -> None:
    """C12: a teacher has one prompt for all texts, and a source stage a shared prompt with factors."""
    keeps = made_by.keeps if made_by is not None else "none"
    if task is None and keeps != "bank":
        raise ArtifactError(
            f"{run.id!r} is no source stage: it holds no shared prompt",
            where="source",
            fix="name a run of 'weft source'",
            code="C12",
        )
    if keeps not in ("soft", "bank") and not (made_by is not None and made_by.shares_batches):
        raise ArtifactError(
            f"{run.id!r} holds no prompt that is one for all texts, so it cannot teach or start another",
            where="teachers",
            fix="name a run of 'weft teachers', or of a method with one prompt for all texts",
            code="C12",
        )
