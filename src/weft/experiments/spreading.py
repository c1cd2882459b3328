"""Groups of runs on several workers: whoever is ready begins, and a lost worker loses no run."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from weft.errors import ResourceError, WeftError
from weft.experiments.executors import Executor, LostWorkerError
from weft.experiments.jobs import Job
from weft.experiments.orders import Order, Outcomes
from weft.runs.workspace import Workspace

AGAIN = 2  # times that a group is given to another worker when one was lost
LOOK = 0.5  # seconds between looks whether this process was asked to end

Told = Callable[[Job, WeftError | None], None]
Group = list[Job]


class Spreading:
    """Groups on their way.

    Args:
        groups: in an order in which they can run.
        workspace: where.
        executor: runs them.
        told: is told what became of each run.
    """

    def __init__(self, groups: Sequence[Group], workspace: Workspace, executor: Executor, told: Told) -> None:
        self.waiting, self.workspace, self.executor, self.told = list(groups), workspace, executor, told
        self.running: dict[Future[Outcomes], Group] = {}
        self.failed: set[str] = set()
        self.lost: set[str] = set()
        self._tries: Counter[str] = Counter()

    def run(self) -> set[str]:
        """Until nothing is left; gives the runs that were not begun, since others failed that they need.

        Raises:
            ResourceError: as soon as a run raises it: it would stop every other one as well.
        """
        while self.waiting or self.running:
            self.workspace.stop.check()
            self._begin()
            done, _ = wait(self.running, timeout=LOOK, return_when=FIRST_COMPLETED)
            for future in done:
                self._end(self.running.pop(future), future)
        return self.lost

    def _begin(self) -> None:
        """Whoever needs nothing that is not there, as far as there are workers."""
        for group in list(self.waiting):
            without = self.failed | self.lost
            spared = [job for job in group if not without.intersection(job.needs)]
            self.lost |= {job.id for job in group if job not in spared}
            group[:] = spared
            if not group:
                self.waiting.remove(group)
            elif len(self.running) < self.executor.slots and self._ready(group):
                self.waiting.remove(group)
                self._submit(group)

    def _ready(self, group: Group) -> bool:
        coming = {job.id for other in [*self.waiting, *self.running.values()] for job in other}
        return not any(coming.intersection(job.needs) for job in group)

    def _submit(self, group: Group) -> None:
        root, data = self.workspace.root.resolve(), self.workspace.data_root
        configs = tuple(job.config for job in group)
        self.running[self.executor.submit(Order(configs, root, data and data.resolve()))] = group

    def _end(self, group: Group, future: "Future[Outcomes]") -> None:
        try:
            outcomes = future.result()
        except ResourceError:
            raise
        except WeftError as fault:
            outcomes = dict.fromkeys((job.id for job in group), fault)
        except Exception as error:
            if self._again(group, error):
                return
            outcomes = dict.fromkeys((job.id for job in group), _lost(error))
        for job in group:
            self.failed |= {job.id} if outcomes[job.id] else set()
            self.told(job, outcomes[job.id])

    def _again(self, group: Group, error: Exception) -> bool:
        """Whether a group is given to another worker: where one was lost, and not too often."""
        name = group[0].id
        self._tries[name] += 1
        if not isinstance(error, LostWorkerError) or self._tries[name] > AGAIN:
            return False
        self.workspace.progress.warn(f"{error}; {name} is given to another")
        self.waiting.insert(0, group)
        return True


def _lost(error: Exception) -> ResourceError:
    """Of an engine's own error, or a worker that is lost again and again."""
    line = " ".join(str(error).split())[:300]
    return ResourceError(
        f"no worker ran it to its end ({type(error).__name__}: {line})",
        fix="see what ends them, such as memory, and run the same command again",
        code="X01",
    )
