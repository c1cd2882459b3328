"""YAML files in, checked configurations out: every fault at once, each with its line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from weft.config.base import Config, RelationError
from weft.errors import ConfigError, WeftError, did_you_mean, raise_all

C = TypeVar("C", bound=Config)
D = TypeVar("D", bound=dict[Any, Any])
# a value of the right type outside its bounds: the key's fault in the catalogue
BOUND_TYPES = {
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal"),
    *("too_short", "string_pattern_mismatch"),
}
BOUNDS = {
    **dict.fromkeys(("weight", "temperature"), "C05"),
    "rank": "C06",
    **dict.fromkeys(("length", "source_tokens", "max_target_tokens"), "C07"),
    "kappa": "C09",
    **dict.fromkeys(("sources", "targets"), "C10"),
    **dict.fromkeys(
        ("steps", "warmup", "batch_size", "micro_batch", "eval_every", "patience", "length_pool"), "C17"
    ),
    **dict.fromkeys(("clip", "weight_decay", "eval_batch", "lr"), "C17"),
    **dict.fromkeys(("seed", "seeds"), "C20"),
    **dict.fromkeys(("shots", "shots_total", "train_rows", "target_rows", "dev_rows", "test_rows"), "D13"),
    "name": "D24",
}


def load_config(path: Path, kind: type[C], overrides: dict[str, Any] | None = None) -> C:
    """A checked configuration from a YAML file; `folder`, where the kind has it, is the file's folder.

    Args:
        path: a YAML 1.2 file.
        kind: the configuration class the file must fit.
        overrides: dotted key -> value, applied on top of the file.

    Raises:
        ConfigError: with every fault of the file, each with its line.
    """
    document = overridden(read_yaml(path), overrides or {})
    values = _plain(document)
    if "folder" in kind.model_fields and isinstance(values, dict):
        values.setdefault("folder", str(path.resolve().parent))
    return _checked(values, path, document, kind)


def changed(config: C, overrides: dict[str, Any]) -> C:
    """A configuration with other values for some of its keys.

    Args:
        config: the configuration.
        overrides: dotted key -> value.

    Raises:
        ConfigError: with every fault of the values.
    """
    document = overridden(config.model_dump(mode="json"), overrides)
    return _checked(_plain(document), Path("command line"), document, type(config))


def _checked(values: Any, path: Path, document: dict[Any, Any], kind: type[C]) -> C:
    """The configuration of some values; faults are named by their place in the document they come from."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = {
            fault.where: fault for fault in (_fault(item, path, document, kind) for item in error.errors())
        }
        raise_all(list(faults.values()))
        raise


def read_yaml(path: Path) -> CommentedMap:
    """A YAML 1.2 mapping with line numbers; twice the same key is an error.

    Raises:
        ConfigError: if the file is missing or is not a YAML mapping.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the file: {error.strerror}",
            where=str(path),
            fix="name a file that is there; names in a file are relative to its folder",
            code="D23",
        ) from None
    return parse_yaml(data, path)


def parse_yaml(data: bytes, path: Path) -> CommentedMap:
    """A YAML 1.2 mapping from the bytes of a file; see `read_yaml`.

    Raises:
        ConfigError: if it is not a YAML mapping.
    """
    try:
        document = YAML(typ="rt").load(data.decode("utf-8-sig"))
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", "") or error).strip()
        raise ConfigError(f"not valid YAML: {problem}", where=f"{path}{line}", code="C03") from None
    if not isinstance(document, CommentedMap):
        raise ConfigError("the file must hold 'key: value' lines", where=str(path), code="C02")
    return document


def parse_value(text: str) -> Any:
    """The value of `--set key=value`, read as YAML 1.2.

    Raises:
        ConfigError: if it is not YAML.
    """
    try:
        return _plain(YAML(typ="rt").load(text))
    except (YAMLError, ValueError, RecursionError) as error:
        problem = str(getattr(error, "problem", "") or error).strip()
        raise ConfigError(f"{text!r} is not valid YAML: {problem}", where="--set", code="C03") from None


def parse_overrides(items: list[str]) -> dict[str, Any]:
    """`["a.b=1"]` -> `{"a.b": 1}`.

    Raises:
        ConfigError: for an item without `=`.
    """
    overrides = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise ConfigError(f"--set needs key=value, not {item!r}", where="command line")
        overrides[key.strip()] = parse_value(value)
    return overrides


def overridden(document: D, overrides: Mapping[str, Any]) -> D:
    """A document with other values at dotted keys; it is changed in place.

    Raises:
        ConfigError: for a key whose place is not there.
    """
    for key, value in overrides.items():
        _override(document, key, value)
    return document


def _override(document: Any, key: str, value: Any) -> None:
    """Set a dotted key; a number in it is a place in a list."""
    *path, last = key.split(".")
    for part in path:
        if isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        elif isinstance(document, dict):
            document = document.setdefault(part, CommentedMap())
        else:
            raise _nothing_at(part, key)
    if isinstance(document, list) and last.isdigit() and int(last) < len(document):
        document[int(last)] = value
    elif isinstance(document, dict):
        document[last] = value
    else:
        raise _nothing_at(last, key)


def _nothing_at(part: str, key: str) -> ConfigError:
    cause, fix = f"there is nothing at {part!r} to set", "name a key of the file; all keys: weft config KIND"
    return ConfigError(cause, where=f"--set {key}", fix=fix)


def _plain(value: Any) -> Any:
    """YAML's own types to Python's."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _fault(item: Any, path: Path, document: dict[Any, Any], kind: type[Config]) -> WeftError:
    """One pydantic error as ours: key path, line, remedy."""
    place = _place(item, document)
    key = ".".join(str(part) for part in place)
    line = _line_of(document, place)
    where = f"{path}{f':{line}' if line else ''}" + (f" ({key})" if key else "")
    if item["type"] == "extra_forbidden":
        known = _keys_at(kind, item["loc"][:-1])
        return ConfigError(
            f"unknown key {place[-1]!r}",
            where=where,
            fix=f"remove it; {did_you_mean(str(place[-1]), known)}",
            code="C01",
        )
    message = str(item["msg"]).removeprefix("Value error, ")
    got = "" if item["type"] == "missing" else f" (got {item['input']!r})"
    return ConfigError(
        f"{message}{got if len(got) < 80 else ''}",
        where=where,
        fix=f"all keys and their defaults: weft config {kind.__name__}",
        code=_code(item, place),
    )


def _code(item: Any, place: list[Any]) -> str:
    """A fault's number in the catalogue: that of the broken relation or bound, else C02 (wrong type)."""
    broken = item.get("ctx", {}).get("error")
    if isinstance(broken, RelationError):
        return broken.code
    if item["type"] == "finite_number":
        return "C04"
    known = next((BOUNDS[part] for part in reversed(place) if part in BOUNDS), "C02")
    return known if item["type"] in BOUND_TYPES else "C02"


def _place(item: Any, document: Any) -> list[Any]:
    """The path of a fault as the file has it: pydantic also names the members of unions it tried."""
    place: list[Any] = []
    for number, part in enumerate(item["loc"]):
        last = number == len(item["loc"]) - 1 and item["type"] in ("missing", "extra_forbidden")
        if (isinstance(document, dict) and part in document) or (
            isinstance(document, list | tuple) and isinstance(part, int) and part < len(document)
        ):
            document = document[part]
        elif not last:
            continue
        place.append(part)
    return place


def _line_of(document: Any, place: list[Any]) -> int | None:
    """The line of a key, or of the nearest thing above it that is in the file."""
    line = None
    for part in place:
        marks = getattr(getattr(document, "lc", None), "data", None) or {}
        if part not in marks:  # set from the command line, or not there at all
            break
        line = marks[part][0] + 1
        document = document[part]
    return line


def _keys_at(kind: Any, loc: tuple[Any, ...]) -> set[str]:
    """The keys known at a place: those of the class that stands there."""
    kinds = classes_in(kind)
    for part in loc:
        deeper: list[type[BaseModel]] = []
        for one in kinds:
            if isinstance(part, str) and part in one.model_fields:
                deeper += classes_in(one.model_fields[part].annotation)
        tagged = [
            one for one in kinds if one.model_fields.get("name") and one.model_fields["name"].default == part
        ]
        kinds = deeper or tagged or kinds
    return {name for one in kinds for name in one.model_fields}


def classes_in(annotation: Any) -> list[type[BaseModel]]:
    """The configuration classes named inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for part in getattr(annotation, "__args__", ()) for one in classes_in(part)]
