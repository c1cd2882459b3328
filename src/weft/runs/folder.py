"""Run folders: one run, one folder, named by everything that can change a number.

    runs/adapt-mpt-banking-s0-3f2a91c0/
      config.yaml          complete: defaults written out
      env.json             versions, machine, base model, the choices the machine made
      metrics.jsonl        one line per step: loss by term, gradient norm, dev scores
      prompts.safetensors  prompts, whole: a run loads without its parents
      weights.safetensors  instead of prompts, where a method changes or adds weights
      notes.json           what a method keeps beside its tensors, if anything
      predictions.jsonl    evaluation only: one line per row
      result.json          scores, parameters, rows
      timing.json          seconds
      manifest.json        written last: size and SHA-256 of every file above

Loads without torch.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from weft import storage
from weft.errors import ArtifactError, ConfigError
from weft.methods.method import Saved
from weft.runs import config_file, contents, tensor_file
from weft.runs.config import AnyRun
from weft.storage import tensor_header

TENSORS = tensor_header.PROMPTS
NOTES = contents.NOTES
LOG = "metrics.jsonl"
PASSING = ("checkpoint-", "answers-", storage.TEMPORARY)  # files that a run needs until it is finished


@dataclass
class Run:
    """A run folder, finished or not.

    Attributes:
        path: the folder.
        files: files written so far, which the manifest will name.
    """

    path: Path
    files: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.absolute().name

    @property
    def done(self) -> bool:
        """Whether the run was finished."""
        return storage.is_sealed(self.path)

    def env(self) -> dict[str, Any]:
        """Versions, machine and base model of a finished run, of this format.

        Raises:
            ArtifactError: if the run is unfinished, of another format, or another run's.
        """
        self.check_done()
        path, env = str(self.path / "env.json"), self._object("env.json")
        try:
            tensor_file.check_format(env.get("format") if "run" in env else 0)
        except ArtifactError as error:
            fix = "use that version of weft, or delete the folder and run the same command again"
            raise ArtifactError(error.cause, where=path, fix=fix, code=error.code) from None
        if env["run"] != self.id:
            raise ArtifactError(
                f"the folder of {self.id!r} holds the run {str(env['run'])[:120]!r}",
                where=path,
                fix="give the folder the name of its run",
                code="A14",
            )
        return env

    def encoders(self) -> dict[str, str]:
        """SHA-256 over the files of every encoder that a finished run reads with, by its name in training.

        Raises:
            ArtifactError: as `env`.
        """
        return dict(self.env().get("encoders") or {})

    def config(self) -> AnyRun:
        """The configuration, from the folder.

        Raises:
            ArtifactError: if the folder is not one of a run, or its name begins with another stage.
        """
        path = self.path / "config.yaml"
        if not path.exists():
            raise ArtifactError(
                "this is not the folder of a run: it has no config.yaml", where=str(self.path)
            )
        if self.done:
            self.env()
        config = config_file.read(self._bytes(path.name, config_file.LARGEST), path)
        stage = self.id.partition("-")[0]
        if self.done and stage in config_file.KINDS and config.stage != stage:
            raise ArtifactError(
                f"the folder of {self.id!r} holds the configuration of a run of stage {config.stage!r}",
                where=str(path),
                fix=storage.RESTORE,
                code="A14",
            )
        return config

    def result(self) -> dict[str, Any]:
        """Scores, parameters and rows of a finished run.

        Raises:
            ArtifactError: if the run is not finished, the file was changed, or it is of other tasks.
        """
        self.env()
        found = self._object(contents.RESULT)
        contents.check_tasks(found, self.config(), self.path / contents.RESULT)
        return found

    def seconds(self) -> float:
        """How long a finished run took.

        Raises:
            ArtifactError: if the run is not finished, or the file was changed.
        """
        self.check_done()
        return float(self._object("timing.json")["seconds"])

    def _bytes(self, name: str, limit: int = storage.LARGEST_FILE) -> bytes:
        """A file's bytes: those that were sealed, or, while the run is unfinished, those that are there."""
        if self.done:
            return storage.read_verified(self.path, name, limit)
        return storage.read_plain(self.path / name, limit)

    def _object(self, name: str) -> dict[str, Any]:
        """The JSON object that one of the run's files is."""
        return contents.parsed(self._bytes(name), self._content(name), self.path / name)

    def _content(self, name: str) -> type[BaseModel]:
        """What a file holds; some follow from the configuration."""
        return contents.content_of(name, self.config() if name in contents.CONFIGURED else None)

    def check_done(self) -> None:
        """Refuse a run that was not finished.

        Raises:
            ArtifactError: saying how to finish it.
        """
        if not self.done:
            raise ArtifactError(
                "the run is not finished", where=str(self.path), fix="run the same command again to finish it"
            )

    @property
    def holds_tensors(self) -> bool:
        """Whether a finished run lies here with its prompts (or weights); passed-on records do not."""
        return self._tensor_file is not None

    @property
    def _tensor_file(self) -> str | None:
        """The name of the file of prompts or weights, as far as there is one."""
        there = storage.names(self.path)
        return next((name for name in (TENSORS, tensor_header.WEIGHTS) if name in there), None)

    def tensors(self) -> dict[str, Any]:
        """The prompts (or weights) of a finished run, from the bytes whose SHA-256 was checked.

        Raises:
            ArtifactError: if the run is unfinished, holds none, or the file is not what the run wrote.
        """
        self.check_done()
        if (name := self._tensor_file) is None:
            raise ArtifactError(
                "the run lies here without its prompts or weights",
                where=str(self.path),
                fix="bring back its whole folder; or remove the folder, and the same command makes it again",
            )
        path = str(self.path / name)
        data = storage.read_verified(self.path, name, tensor_header.LARGEST[name])
        found, tensors = tensor_file.read(data, name, path)
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        tensor_file.check_label(found, tensor_file.label(self.config(), self.env(), self.id, shapes), path)
        return tensors

    def saved(self) -> Saved:
        """What a finished run kept of its method.

        Raises:
            ArtifactError: if the run is unfinished, or a file is not what the run wrote.
        """
        self.check_done()
        notes = self._object(NOTES) if NOTES in storage.names(self.path) else {}
        tensors = self.tensors() if _keeps_tensors(self.config()) else {}
        return Saved(tensors, notes, self.result().get("trained_parameters", 0))

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The objects of a JSON-lines file; a torn last line of an unfinished run is left out.

        Raises:
            ArtifactError: if a finished run's file was changed, or a line is not what such a file holds.
        """
        there = name in storage.names(self.path) if self.done else (self.path / name).is_file()
        lines = self._bytes(name).split(b"\n")[:-1] if there else []
        return [contents.parsed(line, self._content(name), self.path / name) for line in lines]

    def write(self, name: str, value: bytes | str) -> None:
        """Write one of the run's files, durably."""
        storage.write_bytes(self.path / name, value if isinstance(value, bytes) else value.encode("utf-8"))
        self.own(name)

    def own(self, name: str) -> None:
        """Count a file that is there among the run's own."""
        if name not in self.files:
            self.files.append(name)

    def write_json(self, name: str, value: Any) -> None:
        """Write one of the run's files as JSON."""
        storage.write_json(self.path / name, value)
        self.own(name)

    def scores(self, task: str, metric: str) -> dict[str, Any]:
        """What an evaluation says of one task.

        Raises:
            ArtifactError: if its result was changed, or does not hold that metric of that task.
        """
        found: dict[str, Any] = self.result().get("scores", {}).get(task, {"metrics": {}})
        if metric not in found["metrics"]:
            raise ArtifactError(
                f"the result has no {metric!r} of task {task!r}",
                where=str(self.path / "result.json"),
                fix=storage.RESTORE,
                code="A14",
            )
        return found

    def tidy(self) -> None:
        """Remove what a finished run needed only to go on; a process may have been killed before it did."""
        for path in self.path.glob("*") if self.done else ():
            if path.name.startswith(PASSING):
                storage.remove(path)

    def save(self, saved: Saved) -> None:
        """Write what is kept of a method: its tensors and its notes, if it has any.

        Raises:
            ConfigError: if it has tensors and says that it keeps none, or the other way round.
        """
        config = self.config()
        if _keeps_tensors(config) != bool(saved.tensors):
            raise ConfigError(
                f"a method with `keeps` none leaves no tensors, any other leaves some; this one left "
                f"{len(saved.tensors)}",
                where=type(config.made_by).__name__,
                fix="set `keeps` of its class",
                code="C24",
            )
        if saved.tensors:
            self.save_tensors(dict(saved.tensors))
        if saved.notes:
            self.write_json(NOTES, dict(saved.notes))

    def save_tensors(self, tensors: dict[str, Any]) -> None:
        """Write the prompts (or weights), with a label made of the run's configuration and `env.json`."""
        config, shapes = self.config(), {name: tuple(value.shape) for name, value in tensors.items()}
        about = tensor_file.label(config, noted(self.path), self.id, shapes)
        name = tensor_header.WEIGHTS if about["kind"] == "weights" else TENSORS
        self.write(name, tensor_file.write(tensors, about))


def _keeps_tensors(config: AnyRun) -> bool:
    """Whether a run's method leaves a file of tensors."""
    return config.made_by is not None and config.made_by.keeps != "none"


def noted(folder: Path) -> dict[str, Any]:
    """What a run folder, finished or not, says of its machine; empty if it says nothing yet.

    Raises:
        ArtifactError: if a finished run's record was changed, or is another run's.
    """
    run = Run(folder)
    if run.done:
        return run.env()
    try:
        return run._object("env.json")
    except (FileNotFoundError, ArtifactError):
        return {}
