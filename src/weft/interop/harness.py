"""lm-evaluation-harness on a task of a run: its tasks found before weights load, its results kept."""

import json
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from weft import runs, storage
from weft.config.base import Config
from weft.errors import ArtifactError, ConfigError, DataError, UnsupportedError, did_you_mean
from weft.interop.continuations import Prompted
from weft.models.tuned import TunedModel
from weft.progress import Progress
from weft.runs import Run, parents
from weft.runs.config import AnyRun
from weft.runs.workspace import Workspace

KEPT = (
    "results",
    "groups",
    "group_subtasks",
    "versions",
    "n-shot",
    "n-samples",
    "higher_is_better",
    "configs",
)
UNSAFE = "the harness would run programs that the model writes, which weft does not"


class HarnessConfig(Config):
    """What the harness is to do."""

    tasks: tuple[str, ...] = Field((), description="names of its tasks, groups or tags")
    include_path: Path | None = Field(None, description="a folder with task files of one's own")
    limit: int | None = Field(None, gt=0, description="first rows of each task; none: all")
    num_fewshot: int | None = Field(None, ge=0, description="examples before each row; none: as tasks say")
    batch_size: int = Field(16, gt=0, description="texts read at once")


def evaluate(
    name: str, task: str, asked: HarnessConfig, workspace: Workspace, *, frozen: bool = False
) -> dict[str, Any]:
    """Results of the harness's tasks under the prompt of a run's task.

    Args:
        name: a run's id or folder.
        task: one of its tasks.
        asked: the harness's tasks.
        workspace: gives the model.
        frozen: leave the prompt (or changed weights) out: the base model as it is, to compare with.

    Raises:
        UnsupportedError: without lm_eval; for a run that writes no text, or a task that needs more than text.
        ConfigError: for tasks that the harness does not know.
        DataError: if a task's rows cannot be had.
        ArtifactError: as `parents.load`, or if the run has no such task.
    """
    _check_installed()
    run = runs.find(workspace.root, name)
    config = workspace.config_of(run)
    _check_run(run, config, task, frozen)
    manager, found = _tasks_of(asked)  # with their rows, before weights load
    model = _frozen(run, config, workspace) if frozen else parents.tuned(run, workspace)
    prompted = Prompted(model, task, asked.batch_size, _shown(workspace.progress))
    told = _scored(prompted, asked, manager, found)
    about = {
        "run": run.id,
        "task": task,
        "frozen": frozen,
        "base": workspace.base(config).origin,
        "base_hash": workspace.base(config).hash,
        "position": workspace.position(config),
        "prompt_tokens": prompted.prompt_tokens,
        "chat": config.base.chat,
        "limit": asked.limit,
        "num_fewshot": asked.num_fewshot,
    }
    versions = {**runs.environment()["versions"], "lm_eval": version("lm_eval")}
    return {**about, "packages": versions, **{key: told[key] for key in KEPT if key in told}}


def _scored(prompted: Prompted, asked: HarnessConfig, manager: Any, tasks: list[Any]) -> dict[str, Any]:
    """What the harness says of its tasks."""
    import lm_eval

    from weft.interop.harness_model import TaskLM

    lm = TaskLM(prompted)
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=lm,
        tasks=tasks,
        task_manager=manager,
        limit=asked.limit,
        num_fewshot=asked.num_fewshot,
        batch_size=asked.batch_size,
        log_samples=False,
        apply_chat_template=lm.chats,
    )
    return found


def _shown(progress: Progress) -> Callable[[float], None]:
    """Shows a person what share of the harness's requests of one kind is done."""
    progress.begin("lm-eval", 0.0)
    return lambda share: progress.step(share, f"{100 * share:.0f}%")


def write(folder: Path, found: dict[str, Any]) -> Path:
    """Keep results in a file of their own, named after run, task and time."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    path = folder / f"{found['run']}-{found['task']}{'-frozen' * found['frozen']}-{stamp}.json"
    storage.write_text(path, json.dumps(found, indent=2, ensure_ascii=False, default=str))
    return path


def lines(found: dict[str, Any]) -> list[list[str]]:
    """Task, metric, value and standard error of every score, as cells of a table."""
    rows = []
    for name, scores in {**found["results"], **found.get("groups", {})}.items():
        for key, value in scores.items():
            metric, _, filtered = key.partition(",")
            if filtered and not metric.endswith("_stderr"):
                error = scores.get(f"{metric}_stderr,{filtered}")
                label = metric if filtered == "none" else f"{metric} ({filtered})"
                rows.append([name, label, _number(value), _number(error)])
    return rows


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value in (None, "N/A") else str(value)


def _check_installed() -> None:
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError:
        raise UnsupportedError(
            "lm-evaluation-harness is not installed (package lm_eval)",
            fix="pip install 'weft[lm-eval]'",
            code="C18",
        ) from None


def _check_run(run: Run, config: AnyRun, task: str, frozen: bool) -> None:
    """Refuse what has no likelihood of a text, before any weights load."""
    method = config.made_by
    if method is not None and not (frozen or method.groups or method.keeps in ("soft", "bank")):
        raise UnsupportedError(
            f"the method {method.title} trains no prompt or weights, by which texts would be likelier",
            where=str(run.path),
            fix="name a run of prompts or of trained weights",
            code="C08",
        )
    names = [spec.name for spec in config.tasks]
    if task not in names:
        raise ArtifactError(
            f"the run has no task {task!r}", where=str(run.path), fix=did_you_mean(task, names), code="C12"
        )


def _frozen(run: Run, config: AnyRun, workspace: Workspace) -> TunedModel:
    """The run's base model as it is."""
    parents.check_fit(run, None, workspace)
    names = tuple(spec.name for spec in config.tasks)
    return TunedModel(workspace.backbone(config, like=run.env()), None, {}, names)


def _tasks_of(asked: HarnessConfig) -> tuple[Any, list[Any]]:
    """The harness's list of tasks, and those that are asked for with their rows.

    Raises:
        ConfigError: for a name that it does not know, or a folder that is not there.
        DataError: if rows cannot be had.
        UnsupportedError: for tasks that run programs, or show more than text.
    """
    from lm_eval.tasks import TaskManager

    if asked.include_path is not None and not asked.include_path.is_dir():
        raise ConfigError("there is no such folder", where=f"--include-path {asked.include_path}")
    manager = TaskManager(include_path=str(asked.include_path) if asked.include_path else None)
    unknown = [name for name in asked.tasks if name not in manager.all_tasks]
    if unknown or not asked.tasks:
        raise ConfigError(
            f"the harness has no task {', '.join(unknown) or 'without a name'}",
            where="--tasks",
            fix=did_you_mean(unknown[0], manager.all_tasks) if unknown else "name one or more",
        )
    return manager, [one for name in asked.tasks for one in _loaded(manager, name)]


def _loaded(manager: Any, name: str) -> Sequence[Any]:
    """A task of the harness, a group of them, or those of a tag, with their rows."""
    try:
        found = manager.load([name])
    except Exception as error:  # the harness and what it reads rows with raise what their parts raise
        cause = (str(error).splitlines() or [""])[0][:300]
        raise DataError(
            f"the rows of the harness's task cannot be had: {type(error).__name__}: {cause}",
            where=f"--tasks {name}",
            fix="its data set is fetched from the hub by its name, and HF_HUB_OFFLINE=1 allows only what was "
            "fetched before: see to the network, or name local files in a task file under --include-path",
            code="C24",
        ) from None
    for one in found["tasks"].values():
        if getattr(one, "UNSAFE_CODE", False) or getattr(one, "MULTIMODAL", False):
            told = UNSAFE if getattr(one, "UNSAFE_CODE", False) else "the task shows more than text"
            raise UnsupportedError(told, where=f"--tasks {name}", fix="leave it out", code="C08")
    groups = found["groups"]
    return [groups[name]] if name in groups else list(found["tasks"].values())
