"""Runs and tasks as others get them: without places of this machine, and without rows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from weft import storage
from weft.config.describe import to_yaml
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.errors import ConfigError, UnsupportedError
from weft.methods.method import Method
from weft.models.bundled import KNOWN, SMOLLM2_HUB
from weft.runs import Run, packs
from weft.runs.config import AnyRun, RunConfig
from weft.runs.tensor_file import parents

C = TypeVar("C", bound=RunConfig)
HUB_IDS = {"smollm2": SMOLLM2_HUB, "minilm": "sentence-transformers/all-MiniLM-L6-v2", "pocket": None}
UNTOLD = ("command",)  # in env.json: it names files


def hub_id(model: str) -> str | None:
    """The hub's name of a base model that `known_as` gave; none where it is not there."""
    return HUB_IDS.get(model, model)


def names_place(model: str) -> bool:
    """Whether the name of a model is a folder, which others do not have."""
    path = Path(model)
    return model not in KNOWN and (path.is_absolute() or model.startswith((".", "~")) or path.is_dir())


def known_as(model: str, revision: str | None, base_id: str | None) -> BaseConfig:
    """A base model as others know it.

    Args:
        model: as the configuration of a run names it.
        revision: likewise.
        base_id: a hub id, with @COMMIT or without; none: as the configuration says.

    Raises:
        ConfigError: if that is a folder of this machine.
    """
    if base_id is not None:
        model, _, commit = base_id.partition("@")
        revision = commit or None
    if names_place(model):
        raise ConfigError(
            "the base model is a folder of this machine, which others do not have",
            where=f"base.model {model}",
            fix="say what it is called on the hub: --base-id NAME[@COMMIT]; of one that is not there, any "
            "name, and others load it by --base FOLDER",
            code="C24",
        )
    return BaseConfig(model=model, revision=revision)


def released(run: Run, base: BaseConfig, folder: Path) -> Path:
    """Write a finished run once more, byte for byte but for what names places; it keeps its name.

    Args:
        run: that answers.
        base: its base model, of `known_as`.
        folder: that the run's folder goes into.

    Raises:
        ArtifactError: if the run is not finished, is damaged, or holds nothing to answer with.
        UnsupportedError: if it keeps words of its rows, or reads with an encoder of this machine.
    """
    packs.check_answers(run)
    config, out = run.config(), folder / run.id
    _check_method(run, config.made_by)
    own = {
        "config.yaml": to_yaml(without_places(config, base)).encode(),
        "env.json": _json({name: value for name, value in run.env().items() if name not in UNTOLD}),
    }
    names = storage.names(run.path)
    for name in names:
        data = own.get(name) or storage.read_verified(run.path, name, packs.LARGEST[name])
        storage.write_bytes(out / name, data, sync=False)
    storage.seal(out, names)
    packs.check_answers(Run(out))
    return out


def _json(value: Any) -> bytes:
    return storage.canonical_json(value) + b"\n"


def _check_method(run: Run, method: Method | None) -> None:
    """Refuse what cannot be given to others.

    Raises:
        UnsupportedError: with the reason.
    """
    if method is not None and method.quotes:
        raise UnsupportedError(
            f"{method.title!r} answers with rows of its data, or with their words, which a hub must not get",
            where=str(run.path),
            fix="share a run of another method; or hand this one on yourself: weft pack",
            code="C16",
        )
    for name in method.also_reads if method is not None else ():
        if names_place(name):
            raise UnsupportedError(
                f"the run reads with the encoder {Path(name).name!r}, a folder of this machine",
                where=f"{run.path}/config.yaml (method.encoders)",
                fix="train with an encoder that the hub or weft knows by name",
                code="C16",
            )


def without_places(config: C, base: BaseConfig) -> C:
    """A run's configuration as others read it; none of these settings is part of what names a run."""
    named = {"model": base.model, "revision": base.revision}
    changed: dict[str, Any] = {
        "base": config.base.model_copy(update=named),
        "tasks": tuple(map(_task, config.tasks)),
    }
    method = getattr(config, "method", None)
    if method is not None and method.places:
        files = {name: Path(getattr(method, name)).name for name in method.places}
        changed["method"] = method.model_copy(update=files)
    return config.model_copy(update=changed)


def _task(spec: TaskSpec) -> TaskSpec:
    """A task without the files of its user; those of a data folder, and a data set of the hub, stay named."""
    changed: dict[str, Any] = {"folder": ""}
    if not spec.in_data_root or any(Path(file).is_absolute() for file in spec.files.values()):
        changed |= {"files": {}, "in_data_root": False, "holdout": "none"}
    if spec.hub is not None and names_place(spec.hub.path):
        changed["hub"] = None
    return spec.model_copy(update=changed)


def places_in(config: AnyRun) -> list[Path]:
    """The places of this machine that a configuration names."""
    method, specs = getattr(config, "method", None), config.tasks
    named = [config.base.model, *parents(config)]
    named += [place for spec in specs for place in (spec.folder, *spec.files.values())]
    named += [str(getattr(method, name)) for name in method.places] if method is not None else []
    return [Path(one) for one in named if Path(one).is_absolute()]


def check_no_places(folder: Path, places: Iterable[Path]) -> None:
    """Refuse files that name a place of this machine after all, as a parent that was given by its folder.

    Args:
        folder: what others would get.
        places: folders and files; those of the top of the disk say nothing of anybody and count for nothing.

    Raises:
        UnsupportedError: naming the file and the place.
    """
    told = {str(place).encode() for place in places if len(place.parts) > 2}
    home = Path.home()
    told |= {f"{home}/".encode()} if len(home.parts) > 1 else set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for place in sorted(told):
            if place in data:
                raise UnsupportedError(
                    f"{path.name} names a place of this machine: {place.decode()}",
                    where=str(path.relative_to(folder)),
                    fix="name runs by their ids, and texts without paths, in its configuration; train again",
                    code="C16",
                )
