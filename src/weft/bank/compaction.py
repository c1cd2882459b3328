"""Compaction: living tasks into new files, and the old files away. Loads without torch.

The old files stay as they are until the manifest names the new ones; readers that have them open go on.
"""

from pathlib import Path

from weft.bank import index_writer
from weft.bank import manifest as manifests
from weft.bank.draft import Draft, Shared
from weft.bank.index_writer import IndexWriter
from weft.bank.lines import SIGN
from weft.bank.snapshot import Snapshot
from weft.bank.writer import check_generation, held, put, tidy
from weft.errors import ArtifactError


def compact(folder: Path, *, generation: int | None = None) -> int:
    """Drop rows of tasks that were removed or replaced, and what nothing names; the new generation.

    Args:
        folder: the bank.
        generation: the one that is meant; none: whichever holds.

    Raises:
        ConflictError: if the bank is of another generation.
        QuarantinedError: if a living task is not as it was written: it must be removed or added again first.
    """
    with held(folder) as manifest, Snapshot(folder, manifest) as old:
        check_generation(old.index, generation)
        name = f"index-{old.generation + 1:06d}.sqlite"
        begun = manifest.model_copy(update={"index": name})
        index_writer.create(folder / name, old.index.state)
        new = IndexWriter(folder / name, begun)
        try:
            draft = Draft.of(folder, begun, old.index.state._replace(tasks=0, total=0, sizes={}), Shared())
            draft.shards = {}
            with new.changes():
                used, seen = _copy(old, new, draft)
                if (draft.tasks, seen % SIGN) != (len(old), old.index.state.total):
                    cause = "the index does not have the tasks that it counts"
                    raise ArtifactError(cause, where=str(folder), fix=manifests.RESTORE, code="A15")
                draft.flush()
                new.hold(draft.finished())
            new.settle()
        finally:
            new.close()
        finished = _without(draft.manifest(), used).model_copy(update={"generation": draft.generation})
        manifests.write(folder, finished)
        tidy(folder, finished)
        return draft.generation


def _copy(old: Snapshot, new: IndexWriter, draft: Draft) -> tuple[set[str], int]:
    """Copy living tasks by name; the groups that they are of, and the sum of their check numbers."""
    used, seen = set(), 0
    for line, check in old.index.living(old.generation, "name"):
        data, form = old.row(line, check)
        shard, place = draft.place(form, data)
        put(new, draft, line._replace(shard=shard, place=place))
        used.add(line.group)
        seen += check
    return used, seen


def _without(manifest: manifests.Manifest, used: set[str]) -> manifests.Manifest:
    """The manifest with the groups that are used, and the arrays that they name."""
    groups = {name: one for name, one in manifest.groups.items() if name in used}
    named = {sha256 for one in groups.values() for sha256 in one.arrays.values()}
    arrays = {sha256: shape for sha256, shape in manifest.arrays.items() if sha256 in named}
    return manifest.model_copy(update={"groups": groups, "arrays": arrays})
