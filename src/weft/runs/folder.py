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

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from weft import storage
from weft.config.base import Content
from weft.config.describe import to_yaml
from weft.config.files import parse_yaml
from weft.errors import ArtifactError, ConfigError, ResourceError, did_you_mean
from weft.methods.method import Saved
from weft.runs import tensor_file
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, SourceRun, TeacherRun
from weft.runs.identity import environment
from weft.storage import tensor_header

TENSORS = tensor_header.PROMPTS
NOTES = "notes.json"
LARGEST_CONFIG = 4 << 20  # bytes
KINDS: dict[str, type[TeacherRun | SourceRun | AdaptRun | EvaluateRun]] = {
    "teachers": TeacherRun,
    "source": SourceRun,
    "adapt": AdaptRun,
    "evaluate": EvaluateRun,
}
PASSING = ("checkpoint-", "answers-", storage.TEMPORARY)  # files that a run needs until it is finished
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(ge=-1e100, le=1e100)]  # sums of such numbers stay finite


class _Env(Content):
    base: str = ""
    base_hash: str = ""
    embedding_hash: str = ""
    tokenizer_hash: str = ""
    identity: str = ""
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["library", "eager", "sdpa", "grouped"] = "library"
    products: Literal["library", "packed"] = "library"
    position: Literal["prefix", "suffix"] = "prefix"
    threads: Annotated[Count, Field(gt=0)] = 1
    micro_batch: Annotated[Count, Field(gt=0)] = 1
    together: list[str] = Field(default_factory=list)
    seen_in_pretraining: list[str] = Field(default_factory=list)


class _Rows(Content):
    read: Count = 0
    train: Count = 0
    cut: Count = 0


class _Trained(Content):
    trained_parameters: Count = 0
    tasks: list[str]
    steps: Count
    best_step: Count
    parameters_per_task: Number
    dev: Number | None
    rows: dict[str, _Rows]


class _Score(Content):
    rows: Count
    metrics: dict[str, Number | None]
    written: dict[str, Number | None] | None


class _Scored(Content):
    trained_parameters: Count = 0
    scores: dict[str, _Score]


class _Timing(Content):
    seconds: Annotated[Number, Field(ge=0)]


class _Step(Content):
    step: Count
    loss: Number = 0
    lm: Number = 0
    logits: Number = 0
    hidden: Number = 0


class _Line(Content):
    task: str
    text: str
    references: list[str]
    answer: str
    probabilities: dict[str, Number] | None


CONTENTS: dict[str, type[Content]] = {
    "env.json": _Env,
    "timing.json": _Timing,
    "metrics.jsonl": _Step,
    "predictions.jsonl": _Line,
}


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

    def config(self) -> AnyRun:
        """The configuration, from the folder.

        Raises:
            ArtifactError: if the folder is not one of a run.
        """
        path = self.path / "config.yaml"
        if not path.exists():
            raise ArtifactError(
                "this is not the folder of a run: it has no config.yaml", where=str(self.path)
            )
        if self.done:
            self.env()
        try:
            return _read_config(self._bytes(path.name, LARGEST_CONFIG))
        except (
            ValidationError,
            KeyError,
            TypeError,
            ValueError,
            RecursionError,
            YAMLError,
            ConfigError,
        ) as error:
            raise ArtifactError(
                f"the run's configuration is not one that this version reads ({type(error).__name__})",
                where=str(path),
                fix=f"use the version of weft that wrote it (env.json); or {storage.RESTORE}",
                code="A20",
            ) from None

    def result(self) -> dict[str, Any]:
        """Scores, parameters and rows of a finished run.

        Raises:
            ArtifactError: if the run is not finished, or the file was changed.
        """
        self.env()
        return self._object("result.json")

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
        return self._parsed(self._bytes(name), name)

    def _parsed(self, data: bytes, name: str) -> dict[str, Any]:
        """A JSON object with the fields that such a file, or a line of it, has."""
        try:
            found = storage.strict_json(data)
            if not isinstance(found, dict):
                raise ValueError("this is not a JSON object")
            self._content(name).model_validate(found)
        except ValueError as error:  # pydantic's ValidationError is one
            raise ArtifactError(
                f"not what such a file holds: {_first(error)}",
                where=str(self.path / name),
                fix=storage.RESTORE,
                code="A04",
            ) from None
        return found

    def _content(self, name: str) -> type[BaseModel]:
        """What a file holds; that of the result follows from the stage, that of notes from the method."""
        if name == "result.json":
            return _Scored if isinstance(self.config(), EvaluateRun) else _Trained
        made_by = self.config().made_by if name == NOTES else None
        return CONTENTS.get(name, Content) if made_by is None else made_by.noted

    def check_done(self) -> None:
        """Refuse a run that was not finished.

        Raises:
            ArtifactError: saying how to finish it.
        """
        if not self.done:
            raise ArtifactError(
                "the run is not finished", where=str(self.path), fix="run the same command again to finish it"
            )

    def tensors(self) -> dict[str, Any]:
        """The prompts (or weights) of a finished run, from the bytes whose SHA-256 was checked.

        Raises:
            ArtifactError: if the run is unfinished, holds none, or the file is not what the run wrote.
        """
        self.check_done()
        name = TENSORS if TENSORS in storage.names(self.path) else tensor_header.WEIGHTS
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
        return [self._parsed(line, name) for line in lines]

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
        found: dict[str, Any] = self.result()["scores"].get(task, {"metrics": {}})
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


@contextmanager
def create(root: Path, name: str, config: AnyRun, env: dict[str, Any]) -> Iterator[Run]:
    """An open run folder, held against other processes; finished when the block ends without an error.

    Raises:
        ResourceError: if another process works on it or has finished it, or the disk refuses.
    """
    run = Run(root / name)
    with storage.locked(run.path):
        if run.done:
            raise ResourceError(
                "another process has finished this run meanwhile",
                where=str(run.path),
                fix="run the same command again: it goes on from there",
                code="R12",
            )
        storage.sweep(run.path)
        begun = noted(run.path)
        if begun:
            _check_same(run, begun, env)
            run.own("env.json")
        else:
            run.write_json("env.json", {**environment(), "run": name, **env})
        run.write("config.yaml", to_yaml(config))
        yield run
        storage.seal(run.path, run.files)
        run.tidy()


def _check_same(run: Run, begun: dict[str, Any], env: dict[str, Any]) -> None:
    """A folder's name holds a part of the identity only; what goes on in it must be the same run."""
    if begun.get("identity") != env.get("identity"):
        raise ArtifactError(
            f"the folder belongs to another run (identity {str(begun.get('identity'))[:12]}…)",
            where=str(run.path),
            fix="move the folder away, or choose another with --runs",
            code="C23",
        )


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


def _first(error: ValueError) -> str:
    """What is wrong, and in which field; of several faults the first."""
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, fault['loc']))[:120]}: {fault['msg']}"


@lru_cache(maxsize=1024)
def _read_config(data: bytes) -> AnyRun:
    """A run's configuration; read once, however often a run is asked for it.

    Raises:
        ConfigError: if it is not a YAML mapping.
        ValueError: for references, unknown names and wrong values (among them pydantic's ValidationError).
        KeyError: for an unknown stage.
    """
    document = _plain(data, Path("config.yaml"))
    return KINDS[document["stage"]].model_validate(document)


def _plain(data: bytes, path: Path) -> Any:
    """A YAML document as plain values. Ours have no references, which could unfold without end.

    Raises:
        ConfigError: if it is not a YAML mapping.
        ValueError: if it holds references, or what is no text or number.
    """
    if b"*" in data and any(isinstance(event, AliasEvent) for event in YAML().parse(data.decode())):
        raise ValueError("references")
    return storage.strict_json(json.dumps(parse_yaml(data, path)).encode())


def find(root: Path, name: str) -> Run:
    """A finished run by id or folder.

    Raises:
        ArtifactError: with the nearest known id, if there is none; or if it is unfinished.
    """
    for path in (root / name, Path(name)):
        if (path / "adapter_config.json").is_file():
            raise ArtifactError(
                "this is an adapter of PEFT, not a run of weft",
                where=str(path),
                fix="name a run: weft writes adapters (weft export), and reads none",
                code="C16",
            )
        if (path / "config.yaml").is_file():
            run = Run(path)
            run.check_done()
            return run
    known = [path.name for path in root.glob("*") if (path / "config.yaml").is_file()]
    raise ArtifactError(
        f"there is no run {name!r}", where=str(root), fix=did_you_mean(name, known), code="C12"
    )


def finished(root: Path) -> list[Run]:
    """All finished runs of a folder, by name."""
    return [
        Run(path)
        for path in sorted(root.glob("*"))
        if storage.is_sealed(path) and (path / "config.yaml").is_file()
    ]
