"""Run folders: one run, one folder, named by everything that can change a number.

    runs/adapt-mpt-banking-s0-3f2a91c0/
      config.yaml          complete: defaults written out
      env.json             versions, machine, base model, the choices the machine made
      metrics.jsonl        one line per step: loss by term, gradient norm, dev scores
      prompts.safetensors  prompts (or changed weights), whole: a run loads without its parents
      predictions.jsonl    evaluation only: one line per row
      result.json          scores, parameters, seconds
      manifest.json        written last: size and SHA-256 of every file above

Loads without torch.
"""

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from weft import storage
from weft.config import AdaptRun, AnyRun, EvaluateRun, SourceRun, TeacherRun
from weft.config_files import read_yaml, to_yaml
from weft.errors import ArtifactError, ConfigError, did_you_mean

NUMERICS = 2  # raise by hand when the code changes numbers: old runs then no longer count as done
FORMAT = 1
TENSORS = "prompts.safetensors"
KINDS: dict[str, type[TeacherRun | SourceRun | AdaptRun | EvaluateRun]] = {
    "teachers": TeacherRun,
    "source": SourceRun,
    "adapt": AdaptRun,
    "evaluate": EvaluateRun,
}
PLACES = {"folder", "files", "in_data_root"}  # where data lie changes no number; what they hold does


def identity(config: AnyRun, *, base_hash: str, data_hashes: dict[str, str]) -> str:
    """SHA-256 of everything that can change a number of a run.

    Args:
        config: the run's configuration; it names its parents by their ids.
        base_hash: of the base model's weights and tokenizer.
        data_hashes: `task/split` -> SHA-256 of its files.
    """
    values = config.model_dump(mode="json")
    values["tasks"] = [
        {key: value for key, value in task.items() if key not in PLACES} for task in values["tasks"]
    ]
    if config.prompt.init == "labels":  # such prompts start from the words in their order
        values["order"] = [list((task.labels or {}).items()) for task in config.tasks]
    values["base"] = {"hash": base_hash, "dropout": config.base.dropout, "dtype": config.base.dtype}
    if "optim" in values:
        values["optim"].pop("micro_batch")
    return storage.sha256_json({"numerics": NUMERICS, "config": values, "data": data_hashes})


def run_id(config: AnyRun, digest: str) -> str:
    """`<stage>-<what>-s<seed>-<8 hex of the identity>`."""
    names = "+".join(task.name for task in config.tasks)
    what = names if len(names) <= 40 else f"{len(config.tasks)}tasks"
    method = getattr(config, "method", None)
    label = f"{method.name.replace('_', '-')}-{what}" if method is not None else what
    return f"{config.stage}-{label}-s{config.seed}-{digest[:8]}"


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
        return self.path.name

    @property
    def done(self) -> bool:
        """Whether the run was finished."""
        return storage.is_sealed(self.path)

    def config(self) -> AnyRun:
        """The configuration, from the folder.

        Raises:
            ArtifactError: if the folder is not one of a run.
        """
        path = self.path / "config.yaml"
        if not path.is_file():
            raise ArtifactError(
                "this is not the folder of a run: it has no config.yaml", where=str(self.path)
            )
        try:
            document = json.loads(json.dumps(read_yaml(path)))
            return KINDS[document["stage"]].model_validate(document)
        except (ValidationError, KeyError, TypeError, ConfigError) as error:
            raise ArtifactError(
                f"the run's configuration is not one that this version reads ({type(error).__name__})",
                where=str(path),
                code="A20",
            ) from None

    def result(self) -> dict[str, Any]:
        """Scores, parameters and seconds of a finished run.

        Raises:
            ArtifactError: if the run is not finished, or the file was changed.
        """
        self.check_done()
        result: dict[str, Any] = json.loads(storage.read_verified(self.path, "result.json"))
        return result

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
            ArtifactError: if the run is unfinished, holds none, or the file was changed.
        """
        from safetensors.torch import load

        self.check_done()
        tensors: dict[str, Any] = load(storage.read_verified(self.path, TENSORS))
        bad = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
        if bad:
            raise ArtifactError(
                f"{bad[0]!r} holds values that are no numbers", where=str(self.path), code="A05"
            )
        return tensors

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The objects of a JSON-lines file; a torn last line of an unfinished run is left out."""
        path = self.path / name
        if not path.is_file():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def write(self, name: str, value: bytes | str) -> None:
        """Write one of the run's files, durably."""
        storage.write_bytes(self.path / name, value if isinstance(value, bytes) else value.encode("utf-8"))
        if name not in self.files:
            self.files.append(name)

    def write_json(self, name: str, value: Any) -> None:
        """Write one of the run's files as JSON."""
        storage.write_json(self.path / name, value)
        if name not in self.files:
            self.files.append(name)

    def save_tensors(self, tensors: dict[str, Any]) -> None:
        """Write the prompts (or weights)."""
        from safetensors.torch import save

        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        self.write(TENSORS, save(contiguous, metadata={"format": str(FORMAT), "run": self.id}))


@contextmanager
def create(root: Path, name: str, config: AnyRun, env: dict[str, Any]) -> Iterator[Run]:
    """An open run folder, held against other processes; finished when the block ends without an error.

    Raises:
        ResourceError: if another process works on it, or the disk refuses.
    """
    run = Run(root / name)
    with storage.locked(run.path):
        storage.sweep(run.path)
        (run.path / storage.MANIFEST).unlink(missing_ok=True)
        run.write("config.yaml", to_yaml(config))
        run.write_json("env.json", {**environment(), **env})
        yield run
        storage.seal(run.path, run.files)


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    packages = ("weft", "torch", "transformers", "numpy", "tokenizers")
    return {
        "format": FORMAT,
        "numerics": NUMERICS,
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def find(root: Path, name: str) -> Run:
    """A finished run by id or folder.

    Raises:
        ArtifactError: with the nearest known id, if there is none; or if it is unfinished.
    """
    for path in (root / name, Path(name)):
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
