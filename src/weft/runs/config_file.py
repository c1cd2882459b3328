"""A run's configuration, as its folder keeps it in `config.yaml`. Loads without torch."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from weft import storage
from weft.config.files import parse_yaml
from weft.errors import ArtifactError, ConfigError
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, SourceRun, TeacherRun

LARGEST = 4 << 20  # bytes
KINDS: dict[str, type[TeacherRun | SourceRun | AdaptRun | EvaluateRun]] = {
    "teachers": TeacherRun,
    "source": SourceRun,
    "adapt": AdaptRun,
    "evaluate": EvaluateRun,
}


def read(data: bytes, path: Path) -> AnyRun:
    """A run's configuration.

    Args:
        data: what stands in the file.
        path: the file, for messages.

    Raises:
        ArtifactError: if this version does not read it.
    """
    try:
        return _parsed(data)
    except (ConfigError, KeyError, RecursionError, TypeError, ValueError, YAMLError) as error:
        raise ArtifactError(
            f"the run's configuration is not one that this version reads ({type(error).__name__})",
            where=str(path),
            fix=f"use the version of weft that wrote it (env.json); or {storage.RESTORE}",
            code="A20",
        ) from None


@lru_cache(maxsize=1024)
def _parsed(data: bytes) -> AnyRun:
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
