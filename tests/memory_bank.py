"""A bank in memory with drawn prompts, as the engine sees one."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from weft.config.task import TaskSpec
from weft.errors import ArtifactError, did_you_mean

CLOSED = {"1": "yes", "2": "no", "3": "maybe not", "4": "maybe true"}


@dataclass(frozen=True)
class MemoryEntry:
    """One task."""

    name: str
    kind: str
    group: str
    sha256: str
    task: TaskSpec
    source_tokens: int
    prompt_length: int
    since: int = 1


@dataclass
class MemoryBank:
    """Prompts by name, as factors of a shared prompt or plain."""

    width: int
    scale: float
    generation: int = 1
    entries: dict = field(default_factory=dict)
    numbers: dict = field(default_factory=dict)
    groups: dict = field(default_factory=dict)

    def add(self, name, *, length, seed, kind="factors", closed=False, source_tokens=40, most=6, rank=1):
        """A task with a prompt drawn from a seed."""
        draw = np.random.default_rng(seed)
        group = f"group{length}"
        if group not in self.groups:
            shared = np.random.default_rng(length).normal(0, self.scale, (length, self.width))
            self.groups[group] = shared.astype(np.float32)
        if kind == "factors":
            u = draw.normal(1, 0.3, (length, rank)).astype(np.float32)
            v = draw.normal(1, 0.3, (rank, self.width)).astype(np.float32)
            self.numbers[name] = (u, v)
            sha256 = hashlib.sha256(u.tobytes() + v.tobytes()).hexdigest()
        else:
            whole = draw.normal(0, self.scale, (length, self.width)).astype(np.float32)
            self.numbers[name] = whole
            sha256 = hashlib.sha256(whole.tobytes()).hexdigest()
        labels = CLOSED if closed else None
        spec = TaskSpec(name=name, source="{text}", target="{label}", labels=labels, max_target_tokens=most)
        own = group if kind == "factors" else ""
        self.entries[name] = MemoryEntry(name, kind, own, sha256, spec, source_tokens, length)
        return self

    def find(self, name):
        """See `Snapshot`."""
        if name not in self.entries:
            raise ArtifactError(
                f"there is no task {name!r}", fix=did_you_mean(name, self.entries), code="S01"
            )
        return self.entries[name]

    def factors(self, entries):
        """See `Snapshot`."""
        pairs = [self.numbers[one.name] for one in entries]
        return np.stack([u for u, _ in pairs]), np.stack([v for _, v in pairs])

    def shared(self, group):
        """See `Snapshot`."""
        return self.groups[group]

    def prompt(self, entry):
        """See `Snapshot`."""
        if entry.kind == "prompt":
            return self.numbers[entry.name]
        u, v = self.numbers[entry.name]
        return self.groups[entry.group] * (u @ v)


def mixed_bank(backbone, lengths=(2, 3, 5)):
    """Closed and open tasks, factors and plain prompts, of unlike lengths."""
    bank = MemoryBank(backbone.width, backbone.scale)
    for number, length in enumerate(lengths):
        bank.add(f"open{length}", length=length, seed=number, most=5 + number)
        bank.add(f"closed{length}", length=length, seed=10 + number, kind="prompt", closed=True)
    return bank
