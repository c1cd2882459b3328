"""The runs of a single stage from its own configuration file."""

import re
from pathlib import Path
from typing import TypeVar

from weft.config.files import load_config, overridden, read_yaml
from weft.errors import ConfigError
from weft.experiments.jobs import placed
from weft.models.base_folder import located
from weft.runs import bundled
from weft.runs.config import AdaptRun, RunConfig, TeacherRun
from weft.tasks import named


def _bundled(config: AdaptRun) -> dict[str, object]:
    """The runs that come with weft, as far as the method needs them."""
    source, teachers = bundled.start(config.base.model)
    needs = config.method.needs
    return {
        "source": source if "source" in needs else None,
        "teachers": teachers if "teachers" in needs else {},
    }


R = TypeVar("R", bound=RunConfig)


def load_run(path: Path, kind: type[R], overrides: dict[str, object]) -> list[R]:
    """The runs of a stage's own configuration file, whose `tasks` name task files or folders.

    A file of several teachers gives one run each.

    Raises:
        ConfigError: with every fault of the files.
    """
    overrides = _with_specs(path, overrides)
    config = load_config(path, kind, overrides)
    config = config.model_copy(update={"base": located(config.base, path.parent)})
    if method := getattr(config, "method", None):
        config = config.model_copy(update=placed(method, path))
    if isinstance(config, AdaptRun) and config.source == bundled.NAME:
        config = config.model_copy(update=_bundled(config))
    if isinstance(config, TeacherRun):
        return [
            config.model_copy(update={"tasks": (spec,), "limits": config.limits.of([spec.name])})
            for spec in config.tasks
        ]
    return [config]


def _with_specs(path: Path, overrides: dict[str, object]) -> dict[str, object]:
    """What changes a stage's file: its list of task files gives way to what they declare, then keys of these.

    Raises:
        ConfigError: with every fault of the task files.
    """
    lists = {key for key in overrides if re.fullmatch(r"tasks(\.\d+)?", key)}
    document = overridden(read_yaml(path), {key: overrides[key] for key in lists})
    listed = document.get("tasks") or []
    if not isinstance(listed, list | tuple):
        raise ConfigError(
            "tasks must be a list of task files or folders",
            where=f"{path} (tasks)",
            fix="tasks: [my-task.yaml]",
            code="C02",
        )
    if not all(isinstance(task, str) for task in listed):
        return overrides
    specs = named(map(str, listed), path.parent)
    rest = {key: value for key, value in overrides.items() if key not in lists}
    return {"tasks": [spec.model_dump() for spec in specs.values()], **rest}
