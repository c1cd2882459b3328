"""Whether the finished runs that a run starts from fit it."""

from collections.abc import Iterable
from functools import partial

from weft import runs
from weft.checks.findings import Findings
from weft.errors import ConfigError
from weft.runs.config import AdaptRun, AnyRun, SourceRun
from weft.runs.workspace import Workspace


def check_parents(config: AnyRun, workspace: Workspace, found: Findings) -> None:
    """C12, C13, C15, C16: the finished runs that a run starts from."""
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
    for task, name in _parents_of(config):
        found.attempt(partial(_check_parent, config, task, name, workspace))


def _parents_of(config: AnyRun) -> Iterable[tuple[str | None, str]]:
    """The runs that a configuration names, those of teachers with their task."""
    if isinstance(config, SourceRun | AdaptRun):
        yield from config.teachers.items()
    if isinstance(config, AdaptRun) and config.source is not None:
        yield None, config.source


def _check_parent(config: AnyRun, task: str | None, name: str, workspace: Workspace) -> None:
    run = runs.find(workspace.root, name)
    parent = run.config()
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
    trained_on, here = str(runs.noted(run.path).get("base_hash")), workspace.base(config).hash
    if trained_on != here:
        raise ConfigError(
            f"the run {run.id!r} was trained on another base model "
            f"(hash {trained_on[:12]}…, this is {here[:12]}…)",
            where="base.model",
            fix="name the same base model, or train the parent again",
            code="C13",
        )
