"""Changes of a bank: tasks added, replaced and removed together are one new generation, or nothing.

In this order: shared arrays, rows (flushed), the manifest where it names new files, and last the index, whose
commit makes the generation. What a killed process left before that is cut off by the next change.
Loads without torch.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from weft import storage
from weft.bank import manifest as manifests
from weft.bank.draft import Draft, Row, Shared
from weft.bank.errors import ConflictError, UnknownTaskError
from weft.bank.forms import encoded
from weft.bank.index import Index
from weft.bank.index_writer import IndexWriter
from weft.bank.lines import Line, State
from weft.bank.manifest import Manifest
from weft.bank.names import checked
from weft.bank.snapshot import is_array
from weft.errors import ArtifactError, ConfigError
from weft.storage.tensor_header import largest

WAIT = 10.0  # seconds that a writer waits for another one
OURS = re.compile(
    r"(factors|prompt|readers)-\d+\.rows|shared-[0-9a-f]{64}\.f32|index-\d+\.sqlite(-wal|-shm)?"
)


@contextmanager
def held(folder: Path) -> Iterator[Manifest]:
    """A bank held against other writers; gives its manifest. What killed ones left is removed.

    Raises:
        ResourceError: if another process holds it all the while.
    """
    if not (folder / manifests.NAME).is_file():  # a folder without a bank gets no lock
        manifests.read(folder)
    with storage.locked(folder, wait=WAIT):
        manifest = manifests.read(folder)
        tidy(folder, manifest)
        yield manifest


def check_generation(index: Index, meant: int | None) -> None:
    """Refuse a change that is meant for another generation than the one that holds.

    Raises:
        ConflictError: naming both.
    """
    if meant is not None and index.state.generation != meant:
        raise ConflictError(
            f"the bank is of generation {index.state.generation}, and the change is for {meant}",
            where=str(index.path.parent),
            fix="look at what changed (weft bank ls), and give the new generation",
            code="A16",
        )


def tidy(folder: Path, manifest: Manifest) -> None:
    """Remove files that no manifest names any more, or not yet; readers that have them open keep them."""
    storage.sweep(folder)
    beside = {f"{manifest.index}-wal", f"{manifest.index}-shm"}
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name not in manifest.files | beside:
            storage.remove(path)


def change(
    folder: Path,
    rows: Iterable[Row] = (),
    *,
    shared: Shared = Shared(),  # noqa: B008 - it is never changed
    remove: Iterable[str] = (),
    replace: bool = False,
    generation: int | None = None,
) -> int:
    """Add, replace and remove tasks; all of it is one new generation, or nothing.

    Args:
        folder: the bank.
        rows: the tasks to add; they may be as many as the disk holds, and are looked at one by one.
        shared: arrays and groups that they name and the bank may lack.
        remove: names of tasks; removed before any is added.
        replace: whether a task that is there may be replaced.
        generation: the one that the change is meant for; none: whichever holds.

    Returns:
        The new generation.

    Raises:
        ConflictError: if the bank is of another generation.
        UnknownTaskError: if a task that is to be removed is not there.
        ConfigError: if a task that is to be added is there, and `replace` is not said.
        ArtifactError: if numbers are not finite or absurd, or the bank is damaged.
        ResourceError: if the disk refuses, or another process changes the bank.
    """
    with held(folder) as manifest:
        index = IndexWriter(folder / manifest.index, manifest)
        try:
            check_generation(index, generation)
            _cut(folder, manifest, index.state)
            draft = Draft.of(folder, manifest, index.state, shared)
            _write_arrays(folder, shared, manifest)
            with index.changes():
                for name in remove:
                    if not _ended(index, draft, name := checked(name)):
                        fix = "weft bank ls shows the names"
                        raise UnknownTaskError(f"there is no task {name!r}", where=str(folder), fix=fix)
                for row in rows:
                    _add(index, draft, row, replace=replace)
                draft.flush()
                if draft.manifest() != manifest:
                    manifests.write(folder, draft.manifest())
                index.hold(draft.finished())
            return draft.generation
        finally:
            index.close()


def _cut(folder: Path, manifest: Manifest, state: State) -> None:
    """Cut off rows that a killed process left behind those of the index."""
    for name, shard in manifest.shards.items():
        length = state.sizes.get(name, 0) * (shard.form(manifest.dtype).row_bytes or 1)
        path = folder / name
        if path.is_file() and path.stat().st_size > length:
            storage.cut_log(path, length)


def _write_arrays(folder: Path, shared: Shared, manifest: Manifest) -> None:
    """Put shared arrays that are new, lost or damaged into files that prove themselves."""
    for sha256, value in shared.arrays.items():
        data, path = encoded(value, "float32"), folder / manifests.array_file(sha256)
        largest(value, "a shared array")
        if storage.sha256_bytes(data) != sha256:
            raise ArtifactError("a shared array is not the one of its hash", where=str(folder), code="A14")
        if sha256 not in manifest.arrays or not is_array(path, sha256, value.shape):
            storage.write_bytes(path, data)


def _ended(index: IndexWriter, draft: Draft, name: str) -> bool:
    """Let a task end; whether there was one."""
    check = index.end(name, draft.generation)
    if check is not None:
        draft.tasks, draft.total = draft.tasks - 1, draft.total - check
    return check is not None


def _add(index: IndexWriter, draft: Draft, row: Row, *, replace: bool) -> None:
    name = checked(row.name)
    since = index.since(name)
    if since == draft.generation or (since is not None and not replace):
        raise ConfigError(
            f"the bank has a task {name!r} already",
            where=str(draft.folder),
            fix="replace it (--replace), or give the new one another name (--name OLD=NEW)",
            code="C10",
        )
    if since is not None:
        _ended(index, draft, name)
    draft.check_row(row, name)
    shard, place = draft.place(row.form, row.data)
    length = None if row.form.row_bytes else len(row.data)
    put(index, draft, Line(name, draft.generation, shard, place, length, *row.said))


def put(index: IndexWriter, draft: Draft, line: Line) -> None:
    """Count a task to the generation."""
    draft.tasks, draft.total = draft.tasks + 1, draft.total + index.put(line)
