"""Settings of the process that must stand before torch loads: how threads wait, and what memory is kept.

They change times, never numbers. A user's own settings of the same things are left alone, and where the
system has nothing to set, nothing is done.
"""

import ctypes
import os
from collections.abc import MutableMapping
from contextlib import suppress

SPIN = "10000"  # turns that a thread of libgomp waits before it sleeps; its own 300,000 starve neighbours
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
TRIM, MMAP = -1, -3  # glibc's names: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
KEPT, BLOCK = 1 << 30, 32 << 20  # bytes: freed memory that is kept, and the largest block so; glibc's limit


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads wait briefly, and keep the memory of a step for the next one.

    Too late for the threads where torch is loaded already; then libgomp waits as it does by itself.
    """
    if not any(name in environment for name in WAITING):
        environment[WAITING[0]] = SPIN
    if not any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment):
        _keep_memory()


def _keep_memory() -> None:
    """By itself the library gives back what a step frees, and every page of the next one is cleared anew."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP, BLOCK)
        mallopt(TRIM, KEPT)
