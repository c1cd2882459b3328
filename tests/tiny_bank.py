"""A tiny bank of made-up tasks: shapes, rows, and what a generation holds as plain values."""

import numpy as np

from weft import storage
from weft.bank import BaseFacts, Definition
from weft.bank.draft import Row, Shared
from weft.bank.forms import Form, encoded
from weft.bank.manifest import Group
from weft.bank.snapshot import Snapshot
from weft.config.task import TaskSpec

BASE = BaseFacts(
    name="made up",
    model="made-up",
    base_hash="b" * 64,
    embedding_hash="e" * 64,
    tokenizer_hash="a" * 64,
    position="suffix",
)
LENGTH, RANK, WIDTH = 3, 2, 4
P_STAR = np.random.default_rng(0).normal(size=(LENGTH, WIDTH)).astype(np.float32)
GROUP = storage.sha256_bytes(encoded(P_STAR, "float32"))
SHARED = Shared({GROUP: P_STAR}, {GROUP: Group(kind="factors", arrays={"P*": GROUP})})


def definition(words=("no", "yes")):
    """A closed task's, as JSON."""
    labels = {str(i): word for i, word in enumerate(words)}
    task = TaskSpec(name="task", source="{text}", target="{y}", labels=labels)
    return Definition(task=task, source_tokens=20).text


def factors(name, seed, dtype="float32", **changed):
    """A task with drawn factors."""
    numbers = np.random.default_rng(seed).normal(size=(LENGTH + WIDTH) * RANK)
    form = Form("factors", (LENGTH, RANK, WIDTH), dtype)
    said = {"group": GROUP, "definition": definition(), "metrics": '{"accuracy":50.0}', "run": "adapt-x"}
    return Row(**{"name": name, "form": form, "data": encoded(numbers, dtype), **said, **changed})


def prompt(name, seed, length=5, dtype="float32", **changed):
    """A task with a plain prompt of any length."""
    numbers = np.random.default_rng(seed).normal(size=(length, WIDTH))
    form = Form("prompt", (length, WIDTH), dtype)
    said = {"group": "", "definition": definition(("a", "b")), "metrics": "{}", "run": "teachers-x"}
    return Row(**{"name": name, "form": form, "data": encoded(numbers, dtype), **said, **changed})


def held(snapshot: Snapshot):
    """All that a generation says: task -> kind, since, hash of its numbers, and the numbers."""
    found = {}
    for name in snapshot.names(limit=10_000):
        entry = snapshot.find(name)
        value = snapshot.prompt(entry).tobytes()
        told = (dict(entry.metrics), entry.run, entry.task.model_dump_json(), entry.source_tokens)
        found[name] = (entry.kind, entry.group, entry.since, entry.sha256, told, value)
    assert len(found) == len(snapshot)
    return found
