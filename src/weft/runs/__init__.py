"""Runs: their configurations, names and folders, what their tensors say of themselves, and where they work.

The names below load without torch; `weft.runs.workspace` and `weft.runs.parents` need it.
"""

from weft.runs.folder import PASSING, TENSORS, Run, noted
from weft.runs.identity import FORMAT, NUMERICS, environment, identity, run_id
from weft.runs.root import create, find, finished, home

__all__ = [
    "FORMAT",
    "NUMERICS",
    "PASSING",
    "TENSORS",
    "Run",
    "create",
    "environment",
    "find",
    "finished",
    "home",
    "identity",
    "noted",
    "run_id",
]
