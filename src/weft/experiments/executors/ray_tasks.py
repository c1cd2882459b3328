"""Tasks of Ray Core, on nodes that see the same folders. Ray tries again where a node is lost."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from weft.errors import UnsupportedError
from weft.experiments.orders import Order, Outcomes, fill

AGAIN = 3  # times that Ray gives a task whose worker was lost to another


class RayTasks:
    """Orders as tasks of a Ray cluster, or of one that is started here.

    Args:
        slots: how many at once.
        options: `address` of a cluster, and what else Ray's `init` takes; `num_cpus`, `num_gpus` of a task.

    Raises:
        UnsupportedError: if Ray is not installed.
    """

    def __init__(self, slots: int, options: Mapping[str, str]) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise UnsupportedError(
                "runs on a Ray cluster need Ray", fix="pip install 'weft[ray]'", code="C18"
            ) from None
        self.slots, self._ray, self._begun = slots, ray, not ray.is_initialized()
        of_task = {name: float(options[name]) for name in ("num_cpus", "num_gpus") if name in options}
        if self._begun:
            rest: dict[str, Any] = {name: one for name, one in options.items() if name not in of_task}
            ray.init(log_to_driver=False, **rest)
        self._fill = ray.remote(max_retries=AGAIN, **of_task)(fill)
        self._tasks: list[Any] = []

    def submit(self, order: Order) -> "Future[Outcomes]":
        """See `Executor`."""
        task = self._fill.remote(order)
        self._tasks.append(task)
        found: Future[Outcomes] = task.future()
        return found

    def close(self) -> None:
        """See `Executor`."""
        for task in self._tasks:
            self._ray.cancel(task)
        if self._begun:
            self._ray.shutdown()
