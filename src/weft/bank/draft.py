"""A generation of a bank in the making: where new rows go, and the manifest that will say so."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from weft import storage
from weft.bank.entry import definition_of
from weft.bank.forms import Form, Numbers, composed, decoded
from weft.bank.lines import SIGN, State
from weft.bank.manifest import Group, Manifest, Shard, array_file
from weft.bank.names import checked
from weft.bank.records import LARGEST, notes_of
from weft.bank.snapshot import Snapshot, read_array
from weft.errors import ArtifactError
from weft.storage.tensor_header import LARGEST_VALUE, largest

LARGEST_SHARD = 1 << 30  # bytes; then another one begins
KINDS = (int, float, type(None))  # of a metric
BUFFER = 8 << 20  # bytes that are written at once


@dataclass(frozen=True)
class Row:
    """A task as it is added.

    Attributes:
        name: of the task.
        form: how its numbers lie.
        data: the numbers.
        group: of the tasks with which it shares arrays; empty: none.
        definition: JSON, see `entry.Definition`.
        metrics: JSON.
        run: id of the run that it comes from.
    """

    name: str
    form: Form
    data: bytes
    group: str
    definition: str
    metrics: str
    run: str

    @property
    def said(self) -> tuple[str, str, str, str, bytes]:
        """What a line of the index ends with."""
        sha256 = bytes.fromhex(storage.sha256_bytes(self.data))
        return self.group, self.definition, self.run, self.metrics, sha256


def missing(rows: Iterable[Row], snapshot: Snapshot) -> list[Row]:
    """Tasks that a generation has not, or not so."""

    def is_there(row: Row) -> bool:
        found = snapshot.index.find(checked(row.name), snapshot.generation)
        return found is not None and found[0][-len(row.said) :] == row.said

    return [row for row in rows if not is_there(row)]


@dataclass(frozen=True)
class Shared:
    """Arrays that tasks share, by SHA-256, and the groups that name them."""

    arrays: Mapping[str, Numbers] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)


@dataclass
class Draft:
    """The generation in the making.

    Attributes:
        folder: the bank.
        before: the manifest that holds.
        state: what the index says.
        arrays: shared arrays that come with the change.
        groups: all that the generation has.
        shards: likewise.
        sizes: rows, or bytes of records, that each shard gets to.
        tasks: how many are alive.
        total: sum of their check numbers.
    """

    folder: Path
    before: Manifest
    state: State
    arrays: dict[str, Numbers]
    groups: dict[str, Group]
    shards: dict[str, Shard]
    sizes: dict[str, int]
    tasks: int
    total: int
    _waiting: dict[str, list[bytes]] = field(default_factory=dict)
    _written: dict[str, int] = field(default_factory=dict)  # bytes of each shard that are in its file
    _filled: dict[Form, str] = field(default_factory=dict)  # the shard of a form that is filled now
    _prompts: dict[str, tuple[Numbers, float]] = field(default_factory=dict)  # P* of groups, and its peak

    @classmethod
    def of(cls, folder: Path, before: Manifest, state: State, shared: Shared) -> "Draft":
        """What a change of a generation begins with."""
        groups = {**before.groups, **shared.groups}
        for name, group in shared.groups.items():
            named = set(group.arrays.values())
            whole = group.kind == "readers" or group.arrays == {"P*": name}
            if not whole or not named <= {*shared.arrays, *before.arrays}:
                raise ArtifactError(f"the group {name[:12]} names other arrays than it has", code="A14")
        arrays, shards = dict(shared.arrays), dict(before.shards)
        sizes = dict(state.sizes)
        return cls(folder, before, state, arrays, groups, shards, sizes, state.tasks, state.total)

    @property
    def generation(self) -> int:
        """Its number."""
        return self.state.generation + 1

    def place(self, form: Form, data: bytes) -> tuple[str, int]:
        """The shard that a row goes to, and its place there; its bytes wait to be written."""
        name, unit = self._filled.get(form) or self._last(form), form.row_bytes or 1
        if self.sizes[name] and self.sizes[name] * unit + len(data) > LARGEST_SHARD:
            name = self._new(form)
        self._filled[form], place = name, self.sizes[name]
        self.sizes[name] += len(data) // unit
        self._waiting.setdefault(name, []).append(data)
        if len(self._waiting[name]) * len(data) >= BUFFER:
            self._write(name)
        return name, place

    def _last(self, form: Form) -> str:
        """The newest shard of a form, or a new one."""
        kind = (form.kind, form.shape)
        like = [name for name, one in self.shards.items() if (one.kind, one.shape) == kind]
        name = max(like) if like else self._new(form)
        self.sizes.setdefault(name, 0)  # an interrupted change named it, and put nothing there
        return name

    def _new(self, form: Form) -> str:
        number = 1 + max((number_of(name) for name in {*self.shards, *self.before.shards}), default=0)
        name = f"{form.kind}-{number:06d}.rows"
        self.shards[name] = Shard(kind=form.kind, shape=form.shape)
        self.sizes[name] = 0
        return name

    def _write(self, name: str) -> None:
        """Put the rows that wait for a shard into its file."""
        if name not in self._written:
            unit = self.shards[name].form(self.before.dtype).row_bytes or 1
            self._written[name] = self.state.sizes.get(name, 0) * unit
        data = b"".join(self._waiting.pop(name))
        storage.append_bytes(self.folder / name, data, self._written[name])
        self._written[name] += len(data)

    def flush(self) -> None:
        """Bring all rows to the disk."""
        for name in list(self._waiting):
            self._write(name)
        for name in self._written:
            storage.flush_log(self.folder / name)

    def manifest(self) -> Manifest:
        """The manifest that names its files."""
        shapes = {sha256: tuple(value.shape) for sha256, value in self.arrays.items()}
        arrays = {**self.before.arrays, **shapes}
        update = {"shards": self.shards, "arrays": arrays, "groups": self.groups}
        return self.before.model_copy(update=update)

    def finished(self) -> State:
        """What holds then."""
        return State(self.state.bank, self.generation, self.tasks, self.total % SIGN, self.sizes)

    def check_row(self, row: Row, name: str) -> None:
        """Refuse a row that is not of its form, or holds what no training gives.

        Raises:
            ArtifactError: naming the task.
        """
        try:
            self._check(row)
        except ArtifactError as fault:
            fix = "add the task from a run that is whole"
            raise ArtifactError(fault.cause, where=f"task {name!r}", fix=fix, code=fault.code) from None

    def _check(self, row: Row) -> None:
        form = row.form
        _check_said(row)
        group = self.groups.get(row.group)
        if (group.kind if group else "prompt" if not row.group else "") != form.kind:
            raise ArtifactError(f"the bank has no such group of {form.kind}", code="A14")
        if form.dtype != self.before.dtype or (form.row_bytes and len(row.data) != form.row_bytes):
            cause = f"{len(row.data):,} bytes are no {form.kind} of shape {form.shape} in {self.before.dtype}"
            raise ArtifactError(cause, code="A07")
        if form.kind == "readers":
            if len(row.data) > LARGEST:
                raise ArtifactError(f"a record of {len(row.data):,} bytes; at most {LARGEST:,}", code="A03")
            notes_of(row.data)
        elif form.kind == "prompt":
            largest(decoded(row.data, form.dtype), "the prompt")
        else:
            self._check_factors(row)

    def _check_factors(self, row: Row) -> None:
        u, v = row.form.split(decoded(row.data, row.form.dtype)[None])
        shared, peak = self._shared(row.group)
        length, rank, width = row.form.shape
        if shared.shape != (length, width):
            cause = f"factors of {length} by {width} on a shared prompt of {list(shared.shape)}"
            raise ArtifactError(cause, code="A07")
        if largest(u, "u") * largest(v, "v") * rank * peak > LARGEST_VALUE:  # it may; seldom it does
            largest(composed(shared, u[0], v[0]), "shared * (u v)")

    def _shared(self, group: str) -> tuple[Numbers, float]:
        """P* of a group, and its largest value."""
        if group not in self._prompts:
            sha256 = self.groups[group].arrays["P*"]
            found = self.arrays.get(sha256)
            if found is None:
                shape = self.before.arrays[sha256]
                data = read_array(self.folder / array_file(sha256), sha256, shape)
                found = decoded(data, "float32").reshape(shape)
            self._prompts[group] = found, largest(found, "the shared prompt")
        return self._prompts[group]


def _check_said(row: Row) -> None:
    """What is said of a task is what `Entry` reads."""
    try:
        said = definition_of(row.definition)
        if row.form.kind == "readers" and said.method_of is None:
            raise ValueError("it names no method")
        metrics = storage.strict_json(row.metrics.encode())
    except ValueError as error:
        raise ArtifactError(f"what is said of it cannot be read: {str(error)[:200]}", code="A04") from None
    if not isinstance(metrics, dict) or not all(type(one) in KINDS for one in metrics.values()):
        raise ArtifactError("its metrics are not numbers by name", code="A04")


def number_of(name: str) -> int:
    """The number in a file's name."""
    return int(re.sub(r"\D", "", name))
