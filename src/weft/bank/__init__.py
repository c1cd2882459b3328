"""A bank: one folder with any number of tasks of one base model, from which they are served.

What a task keeps is whatever its method keeps: factors of a shared prompt, a plain prompt, or readers.
`docs/bank.md` says how it lies on the disk. All of it loads without torch, but what reads runs.
"""

from weft.bank.bank import Bank, create
from weft.bank.entry import Definition, Entry
from weft.bank.errors import ConflictError, QuarantinedError, UnknownTaskError
from weft.bank.manifest import BaseFacts
from weft.bank.snapshot import Snapshot

open = Bank

__all__ = [
    "Bank",
    "BaseFacts",
    "ConflictError",
    "Definition",
    "Entry",
    "QuarantinedError",
    "Snapshot",
    "UnknownTaskError",
    "create",
    "open",
]
