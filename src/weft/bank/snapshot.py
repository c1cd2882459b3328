"""One generation of a bank, which stays as it is whatever writers do. Loads without torch.

A row is held against its SHA-256 whenever it is read; one that is not as it was written is refused alone.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from weft import storage
from weft.bank import manifest as manifests
from weft.bank.entry import Entry
from weft.bank.errors import QuarantinedError, UnknownTaskError
from weft.bank.forms import Form, Numbers, composed, decoded
from weft.bank.index import Index
from weft.bank.lines import Line
from weft.bank.manifest import BaseFacts, Manifest
from weft.bank.names import checked
from weft.bank.records import kept
from weft.bank.shards import Mapped
from weft.errors import ArtifactError, UnsupportedError
from weft.methods.method import Saved

NEAR = 3  # names that a message shows
AROUND = 50  # names on each side, among which near ones are looked for


class Snapshot:
    """The tasks of one generation.

    Args:
        folder: the bank.
        manifest: of the generation.

    Raises:
        ArtifactError: if the index is not that of the manifest.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.index = Index(folder / manifest.index, manifest)
        self.shards = {
            name: Mapped(folder / name, shard.form(manifest.dtype), self.index.state.sizes.get(name, 0))
            for name, shard in manifest.shards.items()
        }
        self._arrays: dict[str, Numbers] = {}

    @property
    def generation(self) -> int:
        """Its number."""
        return self.index.state.generation

    @property
    def base(self) -> BaseFacts:
        """The base model of all tasks."""
        return self.manifest.base

    @property
    def is_complete(self) -> bool:
        """Whether all files of rows are there, as long as they should be."""
        return all(shard.whole for shard in self.shards.values())

    @property
    def groups(self) -> list[str]:
        """All groups, of which `names` may list the tasks."""
        return sorted(self.manifest.groups)

    def __len__(self) -> int:
        return self.index.state.tasks

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the index go; nothing can be looked up any more."""
        self.index.close()

    def find(self, name: str) -> Entry:
        """What is said of a task, whose numbers were held against their SHA-256.

        Raises:
            UnknownTaskError: with near names, if there is no such task.
            QuarantinedError: if its entry or its numbers are not those that were written.
            ConfigError: if that can be no task's name.
        """
        known = checked(name)
        found = self.index.find(known, self.generation)
        if found is None:
            raise self._unknown(known)
        _, form = self.row(*found)
        return Entry.of(found[0], form.kind, form.shape[0] if form.shape else 0)

    def names(
        self, *, prefix: str = "", after: str = "", limit: int = 100, group: str | None = None
    ) -> list[str]:
        """Names of tasks, ordered by code points.

        Args:
            prefix: what they begin with.
            after: the last name of the page before.
            limit: how many at most.
            group: of these tasks only; empty: of those that share nothing.
        """
        return self.index.names(self.generation, prefix=prefix, after=after, limit=limit, group=group)

    def search(self, text: str, limit: int = 20) -> list[str]:
        """Names that begin with a text, and then those in which it stands; all names are looked through."""
        first = self.names(prefix=text, limit=limit)
        every = self.index.holding(self.generation, text, limit + len(first)) if len(first) < limit else []
        return list(dict.fromkeys([*first, *every]))[:limit]

    def factors(self, entries: Sequence[Entry]) -> tuple[Numbers, Numbers]:
        """u `[B, l, R]` and v `[B, R, d]` of tasks of one group.

        Raises:
            UnsupportedError: if they are not of one group of factors.
            QuarantinedError: naming the task whose numbers are not those that were written.
        """
        if len({(one.kind, one.group) for one in entries}) != 1 or entries[0].kind != "factors":
            raise UnsupportedError("factors are of tasks of one group", fix="ask for each group by itself")
        form = self.shards[entries[0].line.shard].form
        rows = b"".join(self._bytes(one.line) for one in entries)
        return form.split(decoded(rows, form.dtype).reshape(len(entries), -1))

    def stacked(self, shard: str) -> tuple[Any, Any]:
        """u `[N, l, R]` and v `[N, R, d]` of all rows of a file of factors, mapped and not read.

        `entry.line` names the file and the row (`place`) of a task. Numbers of bfloat16 are their 16 bits. No
        row is held against its hash here: `find` does that, task by task.

        Raises:
            UnsupportedError: if it is no file of factors.
        """
        if shard not in self.shards or self.shards[shard].form.kind != "factors":
            raise UnsupportedError(f"{shard[:80]!r} is no file of factors", where=str(self.folder))
        form = self.shards[shard].form
        rows = self.shards[shard].rows.view(f"<{'f4' if form.dtype == 'float32' else 'u2'}")
        return form.split(rows)

    def shared(self, group: str) -> Numbers:
        """P* `[l, d]` of a group of factors.

        Raises:
            UnknownTaskError: if there is no such group.
            ArtifactError: if the array is lost or changed.
        """
        found = self.manifest.groups.get(group)
        if found is None or found.kind != "factors":
            raise UnknownTaskError(f"no group of factors is {group[:80]!r}", where=str(self.folder))
        return self.array(found.arrays["P*"])

    def array(self, sha256: str) -> Numbers:
        """A shared array by its hash, read once, float32.

        Raises:
            ArtifactError: if it is lost or changed.
        """
        if sha256 not in self._arrays:
            path, shape = self.folder / manifests.array_file(sha256), self.manifest.arrays[sha256]
            found = np.frombuffer(read_array(path, sha256, shape), "<f4").reshape(shape)
            self._arrays[sha256] = found
        return self._arrays[sha256]

    def prompt(self, entry: Entry) -> Numbers:
        """A task's prompt `[P, D]`, composed or as it stands.

        Raises:
            UnsupportedError: if its method has none.
            QuarantinedError: if its numbers are not those that were written.
        """
        if entry.kind == "factors":
            u, v = self.factors([entry])
            return composed(self.shared(entry.group), u[0], v[0])
        if entry.kind == "readers":
            raise UnsupportedError(
                "readers have no prompt", where=f"task {entry.name!r}", fix="ask for `saved`"
            )
        form = self.shards[entry.line.shard].form
        return decoded(self._bytes(entry.line), form.dtype).reshape(form.shape)

    def saved(self, entry: Entry) -> Saved:
        """What `entry.method` restores readers from, as tensors; the task is number 0 and has its name here.

        Raises:
            UnsupportedError: if the task is a prompt.
            QuarantinedError: if its record is not the one that was written.
        """
        if entry.kind != "readers":
            raise UnsupportedError(
                "the task is a prompt", where=f"task {entry.name!r}", fix="ask for `prompt`"
            )
        group = self.manifest.groups[entry.group]
        shared = {name: self.array(sha256) for name, sha256 in group.arrays.items()}
        return kept(self._bytes(entry.line), entry.name, shared)

    def row(self, line: Line, check: int) -> tuple[bytes, Form]:
        """The bytes of a task's numbers, and how they lie.

        Args:
            line: what the index says of it.
            check: the check number that stands there.

        Raises:
            QuarantinedError: if line or bytes are not those that were written.
        """
        if not line.is_whole(check) or line.shard not in self.shards:
            why = "its entry in the index is not the one that was written"
            raise quarantined(line.name, self.index.path, why)
        return self._bytes(line), self.shards[line.shard].form

    def _bytes(self, line: Line) -> bytes:
        """The bytes of a row.

        Raises:
            QuarantinedError: if they are not those that were written.
        """
        shard = self.shards[line.shard]
        data = shard.row(line)
        if storage.sha256_bytes(data) != line.sha256.hex():
            where = f"{shard.path}, {'byte' if line.length else 'row'} {line.place}"
            raise quarantined(line.name, where, "its numbers are not those that were written")
        return data

    def _unknown(self, name: str) -> UnknownTaskError:
        """There is no task of that name; near ones are looked for among those around it, not among all."""
        around = self.names(after=name, limit=AROUND) + self.index.before(self.generation, name, AROUND)
        around += self.names(prefix=name[: max(1, len(name) // 2)], limit=AROUND)
        near = difflib.get_close_matches(name, list(dict.fromkeys(around)), n=NEAR, cutoff=0.6)
        fix = f"near names: {', '.join(map(repr, near))}" if near else "weft bank ls shows the names"
        return UnknownTaskError(f"there is no task {name!r}", where=str(self.folder), fix=fix, code="A12")


def quarantined(name: str, where: object, why: str) -> QuarantinedError:
    """What is said of a task that is not served."""
    fix = "add the task again from its run (weft bank add --replace); other tasks are served"
    return QuarantinedError(f"the task {name!r} is quarantined: {why}", where=str(where), fix=fix, code="A19")


def is_array(path: Path, sha256: str, shape: tuple[int, ...]) -> bool:
    """Whether a shared array is there and whole."""
    try:
        return bool(read_array(path, sha256, shape))
    except ArtifactError:
        return False


def read_array(path: Path, sha256: str, shape: tuple[int, ...]) -> bytes:
    """The bytes of a shared array.

    Raises:
        ArtifactError: if it is lost or changed.
    """
    size = 4 * int(np.prod(shape))
    try:
        data = storage.read_plain(path, size)
    except FileNotFoundError:
        data = b""
    if len(data) != size or storage.sha256_bytes(data) != sha256:
        cause = "the shared array is lost, or not the one that was written"
        raise ArtifactError(cause, where=str(path), fix=manifests.RESTORE, code="A01")
    return data
