"""Tasks of a bank as a folder of safetensors and JSON, and back. Loads without torch.

    bank.json                    format, base model, number format, groups, parts
    shared.safetensors           shared arrays by their SHA-256
    0000-factors.safetensors     of some tasks u [N, l, R] and v [N, R, d], or prompts [N, P, D], or records
    0000-tasks.jsonl             one line for each of them
    manifest.json                written last: size and SHA-256 of every file above

Rows come back byte for byte; where they lie in the other bank is its own affair.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from weft import storage
from weft.bank import manifest
from weft.bank.bank import create
from weft.bank.draft import Row, Shared
from weft.bank.forms import WIDTHS, Dtype, Form, Numbers
from weft.bank.manifest import BaseFacts, Group, Sha, Shard, check_same
from weft.bank.snapshot import Snapshot
from weft.bank.writer import change
from weft.config.base import Config
from weft.errors import ArtifactError, ResourceError
from weft.storage import tensor_header

ABOUT, SHARED = "bank.json", "shared.safetensors"
PART = 16_384  # tasks of a part, or fewer:
PART_BYTES = 256 << 20
HEADER = 4 << 20
FIX = "export the tasks again"


class Part(Shard):
    """Some tasks of one form."""

    tasks: Annotated[int, Field(gt=0)]


class About(Config):
    """What an export says of itself."""

    format: Literal[1] = 1
    base: BaseFacts
    dtype: Dtype
    groups: dict[Sha, Group]
    parts: tuple[Part, ...]


class Task(Config):
    """One task of an export; `length` is of a record."""

    name: str
    group: str
    definition: str
    metrics: str
    run: str
    sha256: Sha
    length: int | None


def is_bank(path: Path) -> bool:
    """Whether a folder is that of a bank; a run and an export have a manifest too."""
    others = ("config.yaml", ABOUT)
    return (path / manifest.NAME).is_file() and not any((path / name).exists() for name in others)


def export(snapshot: Snapshot, folder: Path, names: Iterable[str] = (), base: BaseFacts | None = None) -> int:
    """Write tasks as a sealed folder; how many they are.

    Args:
        snapshot: of the bank.
        folder: a place where nothing is.
        names: of the tasks; none: all.
        base: the base model as others know it; none: as the bank does.

    Raises:
        UnknownTaskError: if a task is not there.
        QuarantinedError: if a task is damaged.
        ResourceError: if something is there, or the disk refuses.
    """
    if folder.exists():
        raise ResourceError("something is there already", where=str(folder), fix="name another", code="C23")
    files: list[str] = []
    parts: list[Part] = []
    groups: set[str] = set()
    for number, rows in enumerate(_parts(_tasks(snapshot, list(names)))):
        form = rows[0][1].form
        files += _write_part(folder, f"{number:04d}", rows)
        parts.append(Part(kind=form.kind, shape=form.shape, tasks=len(rows)))
        groups |= {row.group for _, row in rows if row.group}
    kept = {name: snapshot.manifest.groups[name] for name in sorted(groups)}
    arrays = sorted({sha256 for group in kept.values() for sha256 in group.arrays.values()})
    about = About(base=base or snapshot.base, dtype=snapshot.manifest.dtype, groups=kept, parts=tuple(parts))
    storage.write_json(folder / ABOUT, about.model_dump(mode="json"))
    storage.write_bytes(folder / SHARED, _packed({one: ("F32", snapshot.array(one)) for one in arrays}))
    storage.seal(folder, [ABOUT, SHARED, *files])
    return sum(part.tasks for part in parts)


def _tasks(snapshot: Snapshot, names: list[str]) -> Iterator[tuple[str, Row]]:
    """Tasks with the SHA-256 of their numbers; all of them by form, so that parts are large."""
    every = snapshot.index.living(snapshot.generation, "shard, name")
    some = ((line, line.check) for line in (snapshot.find(name).line for name in names))
    for line, check in some if names else every:
        data, form = snapshot.row(line, check)
        yield (
            line.sha256.hex(),
            Row(line.name, form, data, line.group, line.definition, line.metrics, line.run),
        )


def _parts(tasks: Iterable[tuple[str, Row]]) -> Iterator[list[tuple[str, Row]]]:
    """Tasks of one form, as many as one part holds."""
    found: list[tuple[str, Row]] = []
    size = 0
    for one in tasks:
        other = found and found[0][1].form != one[1].form
        if other or len(found) == PART or size + len(one[1].data) > PART_BYTES:
            if found:
                yield found
            found, size = [], 0
        found.append(one)
        size += len(one[1].data)
    if found:
        yield found


def _write_part(folder: Path, number: str, rows: list[tuple[str, Row]]) -> list[str]:
    """The two files of a part."""
    form = rows[0][1].form
    tensors, lines = f"{number}-{form.kind}.safetensors", f"{number}-tasks.jsonl"
    told = [_line(sha256, row) for sha256, row in rows]
    storage.write_bytes(folder / tensors, _packed(_stacked(form, [row.data for _, row in rows])))
    storage.write_text(folder / lines, "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in told))
    return [tensors, lines]


def _line(sha256: str, row: Row) -> dict[str, Any]:
    said = {key: getattr(row, key) for key in ("name", "group", "definition", "metrics", "run")}
    return {**said, "sha256": sha256, "length": None if row.form.row_bytes else len(row.data)}


def _stacked(form: Form, rows: list[bytes]) -> dict[str, tuple[str, Any]]:
    """Rows as the tensors of a part: name -> number format, and an array of items as wide."""
    if form.kind == "readers":
        return {"records": ("U8", np.frombuffer(b"".join(rows), np.uint8))}
    width = WIDTHS[form.dtype]
    found = np.frombuffer(b"".join(rows), f"<u{width}").reshape(len(rows), -1)
    dtype = "F32" if width == 4 else "BF16"
    if form.kind == "prompt":
        return {"prompts": (dtype, found.reshape(-1, *form.shape))}
    u, v = form.split(found)
    return {"u": (dtype, u), "v": (dtype, v)}


def _packed(arrays: Mapping[str, tuple[str, Any]]) -> bytes:
    """A safetensors file, of formats that NumPy lacks too."""
    place, header, parts = 0, {}, []
    for name, (dtype, values) in arrays.items():
        data = np.ascontiguousarray(values).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [place, place + len(data)],
        }
        place += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def take(place: Path, folder: Path, *, replace: bool = False, generation: int | None = None) -> int:
    """Put the tasks of an export into a bank, which is made if it is not there; the new generation.

    Raises:
        ArtifactError: if the export was changed, or is of another base model or number format.
        WeftError: as `writer.change`.
    """
    said = about(folder)
    if not (place / manifest.NAME).exists():
        create(place, said.base, dtype=said.dtype)
    theirs = manifest.read(place)
    check_same(said.base, theirs.base, str(folder))
    if theirs.dtype != said.dtype:
        cause = f"the export is of {said.dtype}, and the bank of {theirs.dtype}"
        raise ArtifactError(cause, where=str(folder), fix="make a bank of its own for it", code="A07")
    rows, shared = rows_of(folder, said), shared_of(folder, said)
    return change(place, rows, shared=shared, replace=replace, generation=generation)


def about(folder: Path) -> About:
    """What an export says of itself.

    Raises:
        ArtifactError: if it is no export, or was changed.
    """
    try:
        values = storage.strict_json(storage.read_verified(folder, ABOUT))
        return About.model_validate(values)
    except (ValueError, ValidationError) as error:
        cause = f"this is not an export of a bank: {error}"
        raise ArtifactError(cause, where=str(folder / ABOUT), fix=FIX, code="A04") from None


def shared_of(folder: Path, said: About) -> Shared:
    """The shared arrays of an export.

    Raises:
        ArtifactError: if the file was changed.
    """
    read = _unpacked(folder, SHARED)
    try:
        arrays: dict[str, Numbers] = {
            name: np.frombuffer(data, "<f4").reshape(shape) for name, (data, shape) in read.items()
        }
    except ValueError:
        cause = "its arrays are not float32"
        raise ArtifactError(cause, where=str(folder / SHARED), fix=FIX, code="A07") from None
    return Shared(arrays, said.groups)


def rows_of(folder: Path, said: About) -> Iterator[Row]:
    """The tasks of an export, part by part.

    Raises:
        ArtifactError: if a file was changed, or the two of a part do not agree.
    """
    for number, part in enumerate(said.parts):
        form = part.form(said.dtype)
        tensors, lines = f"{number:04d}-{form.kind}.safetensors", f"{number:04d}-tasks.jsonl"
        tasks = _lines(folder, lines)
        rows = _split(form, _unpacked(folder, tensors), tasks)
        if not len(rows) == len(tasks) == part.tasks:
            cause = f"{len(rows)} rows for {len(tasks)} tasks, of which there should be {part.tasks}"
            raise ArtifactError(cause, where=str(folder / tensors), fix=FIX, code="A07")
        for task, data in zip(tasks, rows, strict=True):
            if storage.sha256_bytes(data) != task.sha256:
                cause = "its numbers are not those of its hash"
                raise ArtifactError(cause, where=f"{folder}, task {task.name!r}", fix=FIX, code="A14")
            yield Row(task.name, form, data, task.group, task.definition, task.metrics, task.run)


def _lines(folder: Path, name: str) -> list[Task]:
    reader = TypeAdapter(Task)
    try:
        every = storage.read_verified(folder, name).split(b"\n")[:-1]
        return [reader.validate_python(storage.strict_json(line)) for line in every]
    except (ValueError, ValidationError) as error:
        cause = f"a line is not of a task: {error}"
        raise ArtifactError(cause, where=str(folder / name), fix=FIX, code="A04") from None


def _split(form: Form, read: Mapping[str, tuple[bytes, Any]], tasks: list[Task]) -> list[bytes]:
    """The rows of a part, as they lie in a bank."""
    if form.kind == "readers":
        data, found, place = read.get("records", (b"", ()))[0], [], 0
        for task in tasks:
            found.append(data[place : place + (task.length or 0)])
            place += task.length or 0
        return found if place == len(data) else []
    names = ("prompts",) if form.kind == "prompt" else ("u", "v")
    each = [_cut(*read[name]) if name in read else [] for name in names]
    return [b"".join(parts) for parts in zip(*each, strict=False)] if len(set(map(len, each))) == 1 else []


def _cut(data: bytes, shape: Any) -> list[bytes]:
    """The rows of a tensor whose first axis counts them."""
    count = shape[0] if shape else 0
    size = len(data) // count if count else 0
    return [data[i * size : (i + 1) * size] for i in range(count)]


def _unpacked(folder: Path, name: str) -> dict[str, tuple[bytes, Any]]:
    """The bytes and shapes of a file's tensors, by name."""
    data = storage.read_verified(folder, name)
    try:
        lines, start = tensor_header.header(data, HEADER)
        entries = {key: tensor_header.entry_of(line, tensor_header.WITH_BYTES) for key, line in lines.items()}
    except ValueError as error:
        cause = f"this is not a file of tensors: {error}"
        raise ArtifactError(cause, where=str(folder / name), fix=FIX, code="A04") from None
    return {key: (data[start + one.begin : start + one.end], one.shape) for key, one in entries.items()}
