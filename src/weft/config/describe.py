"""Configurations for people: as YAML with defaults, as a list of keys, with where each value comes from."""

import json
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from weft.config.base import Config
from weft.config.files import classes_in, load_config, read_yaml


def origins(path: Path, kind: type[Config], overrides: dict[str, Any]) -> str:
    """Every value of a configuration file with where it comes from: --set, a line of the file, or default.

    Raises:
        ConfigError: with every fault of the file.
    """
    config, document = load_config(path, kind, overrides), read_yaml(path)
    values = {key: value for key, value in _leaves(config.model_dump(mode="json")) if key != "folder"}
    return "\n".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}  # {_origin(key, path, document, overrides)}"
        for key, value in values.items()
    )


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; a list of mappings counts from 0."""
    if isinstance(value, dict) and value:
        inner = list(value.items())
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        inner = list(enumerate(value))
    else:
        yield key, value
        return
    for name, one in inner:
        yield from _leaves(one, f"{key}.{name}" if key else str(name))


def _origin(key: str, path: Path, document: Any, overrides: dict[str, Any]) -> str:
    if any(key == other or key.startswith(f"{other}.") for other in overrides):
        return "--set"
    line = None
    for part in key.split("."):
        step: Any = int(part) if isinstance(document, CommentedSeq) else part
        if not isinstance(document, CommentedMap | CommentedSeq) or step not in document.lc.data:
            return "default"
        line, document = document.lc.data[step][0] + 1, document[step]
    return f"{path.name}:{line}"


def to_yaml(config: Config) -> str:
    """The complete configuration, defaults written out."""
    return yaml_text(config.model_dump(mode="json"))


def yaml_text(values: dict[str, Any]) -> str:
    """A document of plain values, which reads back character for character."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = sys.maxsize  # where it breaks a line behind an escaped sign, a space is read
    text = json.dumps(values, ensure_ascii=False)
    yaml.allow_unicode = "\x85" not in text  # written bare, it reads as a space
    stream = StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


def describe(kind: type[BaseModel], indent: str = "") -> str:
    """Every key of a configuration with default and meaning, nested ones below it."""
    lines = []
    for name, info in kind.model_fields.items():
        if name == "folder":
            continue
        default = (
            "(needed)" if info.is_required() else f"= {_short(info.get_default(call_default_factory=True))}"
        )
        meaning = f"  # {info.description}" if info.description else ""
        lines.append(f"{indent}{name}: {default}{meaning}")
        for inner in classes_in(info.annotation):
            lines += [f"{indent}  [{inner.__name__}]", describe(inner, indent + "  ")]
    return "\n".join(line for line in lines if line)


def _short(value: Any) -> str:
    return "its defaults" if isinstance(value, BaseModel) else repr(value)
