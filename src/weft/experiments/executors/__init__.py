"""Who runs an experiment's runs beside each other: processes of this machine, Ray, or Slurm.

An executor takes orders and gives futures. It knows nothing of plans: which order may begin, and what becomes
of one whose worker was lost, is `spreading`'s matter.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, Protocol

from weft.experiments.orders import Order, Outcomes

Kind = Literal["local", "ray", "slurm"]


class LostWorkerError(Exception):
    """Whoever worked on an order is gone; the order may be given to another."""


class Executor(Protocol):
    """Fills orders elsewhere.

    Attributes:
        slots: how many at once.
    """

    slots: int

    def submit(self, order: Order) -> "Future[Outcomes]":
        """Begin an order; its future raises what `fill` raises, or `LostWorkerError`."""

    def close(self) -> None:
        """End what is still going on, so that it can be taken up again."""


def executor(kind: Kind, workers: int, root: Path, options: Mapping[str, str]) -> Executor:
    """An executor.

    Args:
        kind: which.
        workers: how many orders at once.
        root: the folder of runs.
        options: of Ray's `init`, or of submitit's `update_parameters`.

    Raises:
        UnsupportedError: if its library is not installed.
    """
    if kind == "ray":
        from weft.experiments.executors.ray_tasks import RayTasks

        return RayTasks(workers, options)
    if kind == "slurm":
        from weft.experiments.executors.slurm_jobs import SlurmJobs

        return SlurmJobs(workers, root / ".slurm", options)
    from weft.experiments.executors.processes import Processes

    return Processes(workers)
