"""Tasks: data with a text form, an answer parser and metrics. Loads without torch."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from weft.config.files import read_yaml
from weft.config.task import TaskSpec
from weft.errors import ConfigError, Faults, WeftError, did_you_mean, raise_all
from weft.tasks.local import from_spec, load_spec
from weft.tasks.task import Example, Row, Task

__all__ = [
    "BUILTIN",
    "Example",
    "Row",
    "Task",
    "files_in",
    "find_specs",
    "from_spec",
    "load_spec",
    "named",
    "select",
]

BUILTIN = Path(str(resources.files(__name__) / "builtin"))
OTHERS = {  # keys of experiments and single runs, of which no task has one
    *("tasks", "base", "prompt", "limits", "method", "optim"),
    *("rows", "sources", "targets", "seeds", "stage"),
}


def named(names: Iterable[str], folder: Path) -> dict[str, TaskSpec]:
    """All tasks of a `tasks:` list: `builtin`, `builtin/NAME`, and files and folders beside `folder`.

    Raises:
        ConfigError: if a path is missing, declares nothing, or two files declare one name.
    """
    return find_specs(_path(name, folder) for name in names)


def _path(name: str, folder: Path) -> Path:
    """What an entry of a `tasks:` list stands for."""
    first, _, task = name.partition("/")
    if first != "builtin":
        return folder / name
    path = BUILTIN / f"{task}.yaml" if task else BUILTIN
    if not path.exists():
        raise ConfigError(
            f"there is no built-in task {task!r}",
            where="tasks",
            fix=did_you_mean(task, (file.stem for file in BUILTIN.glob("*.yaml"))),
            code="C12",
        )
    return path


def find_specs(paths: Iterable[Path]) -> dict[str, TaskSpec]:
    """All tasks declared in the named YAML files and folders, by name.

    A folder's files that declare no task are passed over; one that is named itself has to.

    Raises:
        ConfigError: if a path is missing, declares nothing, or two files declare one name.
    """
    found: dict[str, TaskSpec] = {}
    faults: list[WeftError] = []
    for path in paths:
        files = files_in(path) if path.is_dir() else [path]
        if not files:
            raise ConfigError(
                "the folder has no task files (*.yaml)",
                where=str(path),
                fix="name the files or the folder of the tasks; keys of such a file: weft config TaskSpec",
                code="D23",
            )
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
                    ConfigError(
                        f"task {spec.name!r} is declared twice",
                        where=str(file),
                        fix="give one of them another name, or name the files that are meant",
                        code="D24",
                    )
                )
            found[spec.name] = spec
    raise_all(faults)
    return found


def files_in(folder: Path) -> list[Path]:
    """The task files of a folder, which may also hold experiments, files of single runs and other YAML."""
    return [path for path in sorted(folder.glob("*.yaml")) if _may_declare_a_task(path)]


def _may_declare_a_task(path: Path) -> bool:
    """Whether a file is a task's, perhaps a broken one: by its keys, and also where none can be read."""
    try:
        keys = set(read_yaml(path))
    except ConfigError:
        return True
    if "target" not in keys and keys & OTHERS:
        return False
    return "tasks" not in keys and bool(keys & (TaskSpec.model_fields.keys() - {"name", "folder"}))


def select(specs: dict[str, TaskSpec], names: Iterable[str]) -> list[TaskSpec]:
    """The named tasks, in the order of the names.

    Raises:
        ConfigError: naming the nearest known task, for a name that is not declared.
    """
    names = list(names)
    unknown = [name for name in names if name not in specs]
    if unknown:
        raise ConfigError(
            f"there is no task {unknown[0]!r}",
            where="sources, targets",
            fix=did_you_mean(unknown[0], specs),
            code="C12",
        )
    return [specs[name] for name in names]
