"""Tasks: data with a text form, an answer parser and metrics. Loads without torch."""

from collections.abc import Iterable
from pathlib import Path

from weft.config import TaskSpec
from weft.errors import ConfigError, Faults, WeftError, did_you_mean, raise_all
from weft.tasks.local import from_spec, load_spec
from weft.tasks.task import Example, Row, Task

__all__ = ["Example", "Row", "Task", "find_specs", "from_spec", "load_spec", "select"]


def find_specs(paths: Iterable[Path]) -> dict[str, TaskSpec]:
    """All tasks declared in the named YAML files and folders, by name.

    Raises:
        ConfigError: if a path is missing, declares nothing, or two files declare one name.
    """
    found: dict[str, TaskSpec] = {}
    faults: list[WeftError] = []
    for path in paths:
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not files:
            raise ConfigError("the folder has no task files (*.yaml)", where=str(path))
        for file in files:
            try:
                spec = load_spec(file)
            except Faults as several:
                faults += several.faults
                continue
            except ConfigError as fault:
                faults.append(fault)
                continue
            if spec.name in found:
                faults.append(
                    ConfigError(f"task {spec.name!r} is declared twice", where=str(file), code="D24")
                )
            found[spec.name] = spec
    raise_all(faults)
    return found


def select(specs: dict[str, TaskSpec], names: Iterable[str]) -> list[TaskSpec]:
    """The named tasks, in the order of the names.

    Raises:
        ConfigError: naming the nearest known task, for a name that is not declared.
    """
    names = list(names)
    unknown = [name for name in names if name not in specs]
    if unknown:
        raise ConfigError(f"there is no task {unknown[0]!r}", fix=did_you_mean(unknown[0], specs), code="C12")
    return [specs[name] for name in names]
