"""Changes of a bank against a model of it: whatever is done in whatever order, and wherever it is killed."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_interruptions import Disk
from tiny_bank import BASE, SHARED, factors, held, prompt

from weft import bank
from weft.bank import compaction, draft, verification
from weft.bank import index as indexes
from weft.bank.errors import ConflictError, UnknownTaskError
from weft.bank.writer import change
from weft.errors import ConfigError

MEMORY = Path("/dev/shm")  # where flushing costs nothing
NAMES = st.sampled_from(["a", "b", "B", "é", "../x", "日本"])
SEEDS = st.integers(0, 5)


class Changes(RuleBasedStateMachine):
    """A bank beside a dict of what it should hold; snapshots beside what they held when they were taken."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.path = self.root / "bank"
        self.bank = bank.create(self.path, BASE)
        self.model, self.generation, self.taken = {}, 0, []

    def teardown(self):
        try:
            assert verification.damage(self.path) == []
        finally:
            shutil.rmtree(self.root)

    def made(self, name, seed):
        return factors(name, seed) if seed % 2 else prompt(name, seed, length=1 + seed)

    def done(self, found):
        self.generation += 1
        assert found == self.generation

    @rule(rows=st.dictionaries(NAMES, SEEDS, min_size=1), replace=st.booleans())
    def add(self, rows, replace):
        """New tasks; such as are there only where it is said."""
        there = self.model.keys() & rows.keys()
        added = [self.made(*row) for row in rows.items()]
        if there and not replace:
            with pytest.raises(ConfigError):
                change(self.path, added, shared=SHARED)
            return
        self.done(change(self.path, added, shared=SHARED, replace=replace))
        self.model |= {name: (seed, self.generation) for name, seed in rows.items()}

    @rule(names=st.sets(NAMES, min_size=1))
    def remove(self, names):
        """All of them, or none."""
        if names - self.model.keys():
            with pytest.raises(UnknownTaskError):
                change(self.path, remove=sorted(names))
            return
        self.done(change(self.path, remove=sorted(names)))
        self.model = {name: one for name, one in self.model.items() if name not in names}

    @rule(name=NAMES, seed=SEEDS, off=st.integers(-2, 2))
    def replace_if(self, name, seed, off):
        """Compare-and-swap: only where the generation is the one that is meant."""
        meant = self.generation + off
        if off:
            with pytest.raises(ConflictError):
                change(self.path, [self.made(name, seed)], shared=SHARED, replace=True, generation=meant)
            return
        self.done(change(self.path, [self.made(name, seed)], shared=SHARED, replace=True, generation=meant))
        self.model[name] = (seed, self.generation)

    @rule()
    def compact(self):
        """New files with the same tasks."""
        self.done(compaction.compact(self.path))

    @rule()
    def reopen(self):
        """As another process would."""
        self.bank = bank.open(self.path)

    @precondition(lambda self: len(self.taken) < 5)
    @rule()
    def take(self):
        """A snapshot that is looked at until the end."""
        snapshot = self.bank.snapshot()
        self.taken.append((snapshot, held(snapshot)))

    @invariant()
    def holds_what_it_should(self):
        """The newest generation is the model; those that were taken are as they were."""
        snapshot = self.bank.snapshot()
        found = held(snapshot)
        assert (snapshot.generation, found.keys()) == (self.generation, self.model.keys())
        for name, (seed, since) in self.model.items():
            row = self.made(name, seed)
            kind, group, added, sha256, _, value = found[name]
            assert (kind, group, added) == (row.form.kind, row.group, since)
            assert sha256 == _sha(row.data)
            assert kind == "factors" or value == row.data
        for taken, before in self.taken:
            assert held(taken) == before


def _sha(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


Changes.TestCase.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestChanges = Changes.TestCase


# kills

WHOLE, WENT_ON = (
    0,
    3,
)  # it has fewer calls than that; or that one failed by itself, as of a file that is missing


class Statements:
    """SQLite's connection, each of whose statements counts as a call of the disk."""

    def __init__(self, db, disk):
        self.db, self.execute = db, disk.around("execute", db.execute)

    def __getattr__(self, name):
        return getattr(self.db, name)


def killed_at(place, work, fault):
    """How a process ended that does some work and is killed at one of its calls."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            disk = Disk(place, fault)
            patch = pytest.MonkeyPatch()
            disk.install(patch)
            connected = indexes._connected
            patch.setattr(indexes, "_connected", lambda *how: Statements(connected(*how), disk))
            work()
            code = (
                3 if disk.count > place else 0
            )  # 3: the call failed by itself, as of a file that is missing
        finally:
            os._exit(137 if disk.dead else code)
    _, status = os.waitpid(child, 0)
    found = os.waitstatus_to_exitcode(status)
    assert found in (WHOLE, WENT_ON, 137)
    return found


WORK = {
    "add": lambda path: change(
        path, [prompt("new", 1), prompt("long", 2, length=9), factors("b", 8)], shared=SHARED, replace=True
    ),
    "rm": lambda path: change(path, remove=["a", "c"]),
    "compact": compaction.compact,
    "import": lambda path: change(path, (prompt(f"t{i}", i) for i in range(9)), shared=SHARED),
}


@pytest.mark.parametrize("fault", [pytest.param("killed", marks=pytest.mark.slow), "killed after"])
@pytest.mark.parametrize("kind", ["add", "rm", "compact", pytest.param("import", marks=pytest.mark.slow)])
def test_killed_anywhere_a_bank_is_of_the_old_or_the_new_generation(kind, fault, tmp_path, monkeypatch):
    """At each call of the disk and each statement: nothing in between is seen, and the next change works."""
    monkeypatch.setattr(draft, "BUFFER", 100)
    root = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    try:
        whole, work = root / "whole", WORK[kind]
        bank.create(whole, BASE)
        change(whole, [factors("a", 1), factors("b", 2), prompt("c", 3)], shared=SHARED)
        change(whole, [factors("a", 4)], replace=True)
        before = state(whole)
        shutil.copytree(whole, root / "after")
        work(root / "after")
        after, seen, ended = state(root / "after"), [], False
        place = 0
        while not ended:
            path = root / str(place)
            shutil.copytree(whole, path)
            end = killed_at(place, lambda path=path: work(path), fault)
            found, ended, place = state(path), end == WHOLE, place + 1
            assert found in (before, after), place
            seen += [] if end == WENT_ON else [found]
            change(path, [prompt("next", 7)])
            assert verification.damage(path) == []
            assert bank.open(path).snapshot().names() == sorted([*found[1], "next"])
            shutil.rmtree(path)
        assert place > 10
        assert seen[-1] == after
        assert [one == after for one in seen] == sorted(one == after for one in seen)  # and never back again
        assert before in seen
    finally:
        shutil.rmtree(root)


def state(path):
    """Generation and contents, as a new process sees them."""
    with bank.open(path).snapshot() as snapshot:
        return snapshot.generation, held(snapshot)


def test_a_bank_that_was_killed_while_it_was_made_is_made_again(tmp_path):
    """At each call of the disk: either there is no bank yet, or an empty one."""
    place, ended = 0, False
    while not ended:
        path = tmp_path / str(place)
        ended = killed_at(place, lambda path=path: bank.create(path, BASE), "killed after") == WHOLE
        if (path / "manifest.json").exists():
            assert state(path) == (0, {})
        else:
            bank.create(path, BASE)
        assert change(path, [prompt("a", 1)]) == 1
        place += 1
    assert place > 10


def test_a_reader_that_opens_again_keeps_its_lock(tmp_path):
    """Who closes a file drops its locks; without SQLite's, a writer removes the log under a reader."""
    folder = tmp_path / "bank"
    bank.create(folder, BASE)
    change(folder, [factors("a", 1)], shared=SHARED)
    first, second = bank.open(folder), bank.open(folder)
    place = f":{(folder / first.snapshot().manifest.index).stat().st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    assert [line[4] for line in lines if line[5].endswith(place)] == [str(os.getpid())]
    assert second.generation == first.generation
