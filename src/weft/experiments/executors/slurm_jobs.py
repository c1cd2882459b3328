"""Jobs of Slurm, by submitit; its `local` cluster runs the same jobs as processes of this machine."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from weft.errors import UnsupportedError, WeftError
from weft.experiments.executors import LostWorkerError
from weft.experiments.orders import Order, Outcomes, fill


class SlurmJobs:
    """Orders as jobs.

    Args:
        slots: how many at once.
        folder: for what jobs are told and what they print; all nodes must see it.
        options: `cluster` (none: slurm where it is, else this machine), and submitit's parameters, such as
            `slurm_partition`, `timeout_min`, `mem_gb`, `gpus_per_node`, `cpus_per_task`.

    Raises:
        UnsupportedError: if submitit is not installed.
    """

    def __init__(self, slots: int, folder: Path, options: Mapping[str, str]) -> None:
        try:
            import submitit
        except ModuleNotFoundError:
            raise UnsupportedError(
                "runs as jobs of Slurm need submitit", fix="pip install 'weft[slurm]'", code="C18"
            ) from None
        self.slots, self._unfinished = slots, submitit.core.utils.UncompletedJobError
        self._executor = submitit.AutoExecutor(folder=folder, cluster=options.get("cluster"))
        given = {name: _number(one) for name, one in options.items() if name != "cluster"}
        self._executor.update_parameters(**given)
        self._jobs: list[Any] = []
        self._waiting = ThreadPoolExecutor(slots)

    def submit(self, order: Order) -> "Future[Outcomes]":
        """See `Executor`."""
        job = self._executor.submit(_told, order)
        self._jobs.append(job)
        return self._waiting.submit(self._result, job)

    def _result(self, job: Any) -> Outcomes:
        try:
            found = job.result()
        except self._unfinished as error:
            line = " ".join(str(error).split())[:200]
            raise LostWorkerError(f"job {job.job_id} ended without a result: {line}") from None
        if isinstance(found, WeftError):
            raise found
        return dict(found)

    def close(self) -> None:
        """See `Executor`."""
        for job in self._jobs:
            if not job.done():
                job.cancel()
        self._waiting.shutdown(wait=False, cancel_futures=True)


def _told(order: Order) -> Outcomes | WeftError:
    """What became of an order; submitit would tell a fault as text."""
    try:
        return fill(order)
    except WeftError as fault:
        return fault


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text
