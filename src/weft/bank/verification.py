"""Every file and row of a bank against its hash. Loads without torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weft.bank import manifest as manifests
from weft.bank.lines import SIGN, Line
from weft.bank.snapshot import Snapshot, read_array
from weft.errors import ArtifactError

BEHIND = "of an interrupted change, and the next one cuts them off; or the index lost its newest entries"


@dataclass(frozen=True)
class Damage:
    """What is not as it was written.

    Attributes:
        where: file, or file and row.
        what: is wrong.
        task: whose numbers or entry it is; empty: not one task's.
    """

    where: str
    what: str
    task: str = ""

    def __str__(self) -> str:
        return f"{f'task {self.task!r}: ' if self.task else ''}{self.what} ({self.where})"


def damage(folder: Path) -> list[Damage]:
    """All that is damaged in a bank; empty when all is well.

    Raises:
        ArtifactError: if the manifest or the index cannot be read at all.
    """
    with Snapshot(folder, manifests.read(folder)) as snapshot:
        return [*_files(snapshot), *_entries(snapshot)]


def _files(snapshot: Snapshot) -> Iterator[Damage]:
    """Shared arrays, lengths of shards, and what SQLite says of its file."""
    folder = snapshot.folder
    for sha256, shape in snapshot.manifest.arrays.items():
        path = folder / manifests.array_file(sha256)
        try:
            read_array(path, sha256, shape)
        except ArtifactError as fault:
            yield Damage(str(path), fault.cause)
    for name, shard in snapshot.shards.items():
        if not shard.whole:
            yield Damage(str(folder / name), "the file is lost, or shorter than its rows")
        elif shard.behind:
            what = f"{shard.behind:,} bytes stand behind its last row: {BEHIND}"
            yield Damage(str(folder / name), what)
    for what in snapshot.index.damage():
        yield Damage(str(snapshot.index.path), what)


def _entries(snapshot: Snapshot) -> Iterator[Damage]:
    """Entries and rows of living tasks, and whether the index has all of them and no others."""
    tasks = total = 0
    path, state = snapshot.index.path, snapshot.index.state
    for line, check in snapshot.index.living(state.generation):
        tasks, total = tasks + 1, (total + check) % SIGN
        try:
            snapshot.row(line, check)
        except ArtifactError as fault:
            yield Damage(fault.where, fault.cause.partition(": ")[2], str(line.name))
        if not _is_grouped(snapshot, line):
            yield Damage(str(path), "its group is not one of the bank", str(line.name))
    if (tasks, total) != (state.tasks, state.total):
        yield Damage(str(path), f"its {tasks:,} tasks are not the {state.tasks:,} that were written")


def _is_grouped(snapshot: Snapshot, line: Line) -> bool:
    """Whether the bank has what a task shares with others."""
    if not line.group:
        return True
    group = snapshot.manifest.groups.get(line.group)
    return group is not None and all(one in snapshot.manifest.arrays for one in group.arrays.values())
