"""Where models and rows of runs lie here, if not where their configurations say. Loads without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from weft.config.task import TaskSpec
from weft.errors import DataError
from weft.runs.config import RunConfig

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Places:
    """What takes the place of what configurations of finished runs say.

    That a model is the one of training is checked by its hashes, wherever it lies; rows have theirs in the
    identity of every run that reads them.

    Attributes:
        base: a known name, a folder or a hub id; none: as the configuration says.
        rows: a folder that files of tasks are taken from, as far as it has them.
        encoders: folders of encoders that read beside base models. Which one is meant says the hash that a
            run notes; an encoder that is not among them is where the configuration says.
    """

    base: str | None = None
    rows: Path | None = None
    encoders: tuple[str, ...] = ()

    def moved(self, config: C) -> C:
        """A run's configuration with the places that hold here."""
        moved = config.model_copy(update={"tasks": tuple(map(self._task, config.tasks))})
        if self.base is None:
            return moved
        base = config.base.model_copy(update={"model": self.base, "revision": None})
        return moved.model_copy(update={"base": base})

    def check_rows(self, config: RunConfig) -> None:
        """Refuse a folder of rows that has none of a run's: it would be passed over, and others read.

        Raises:
            DataError: naming the files.
        """
        files = [file for spec in config.tasks for file in spec.files.values()]
        if self.rows is None or any(spec.in_data_root for spec in config.tasks):
            return
        if not any((self.rows / file).is_file() for file in files):
            raise DataError(
                "the folder has no file of the run's tasks",
                where=f"--data {self.rows}",
                fix=f"put there {' or '.join(files[:3])}, or name the file itself: weft evaluate RUN FILE",
                code="D23",
            )

    def _task(self, spec: TaskSpec) -> TaskSpec:
        """A task with its files here; one that is not here stays where it was."""
        if self.rows is None or spec.in_data_root:
            return spec
        own, here = Path(spec.folder), self.rows.resolve()
        files = {
            split: str((here if (here / file).is_file() else own) / file)
            for split, file in spec.files.items()
        }
        return spec.model_copy(update={"files": files})
