"""Copy a source stage into the package: python -m recipes.sources.ship RUNS SOURCE-RUN MODEL

Folders of the machine that trained it are left out of the configurations, and the runs are sealed again.
"""

import sys
from pathlib import Path

from weft import storage
from weft.config.describe import to_yaml
from weft.runs import Run, bundled
from weft.runs.config import SourceRun


def shipped(run: Run, folder: Path) -> None:
    """One run's files, its configuration without places."""
    config = run.config()
    tasks = tuple(task.model_copy(update={"folder": ""}) for task in config.tasks)
    env = {**run.env(), "command": ["weft", "run", "recipes/sources"]}
    folder.mkdir(parents=True)
    copy = Run(folder)
    for name in storage.names(run.path):
        if name not in ("config.yaml", "env.json"):
            copy.write(name, (run.path / name).read_bytes())
    copy.write_json("env.json", env)
    copy.write("config.yaml", to_yaml(config.model_copy(update={"tasks": tasks})))
    storage.seal(folder, copy.files)


def main(root: Path, source: str, model: str) -> None:
    """The source run and its teachers."""
    config = Run(root / source).config()
    assert isinstance(config, SourceRun)
    for name in (source, *config.teachers.values()):
        shipped(Run(root / name), bundled.FOLDER / model / name)
        print(bundled.FOLDER / model / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:4])
