"""Between requests and the worker: who waits, who is worked on, and whose question an answer is to.

It knows no event loop: what it sends goes to a function, what it hears comes by a call, and time is asked of
a clock. Answers are looked up by an id that is never given twice, and must be of the task, generation and
numbers that the question was pinned to; an answer to nobody is dropped.
"""

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from weft.server.fair_queue import Bounds, FairQueue, Full
from weft.server.jobs import Answer, Asked, Fault, Job
from weft.server.metrics import Metrics
from weft.server.pace import Pace
from weft.server.settings import ServeConfig

REMEMBERED = 4096  # questions that were with a worker when it ended
HURRY = 0.4  # of its deadline, which a newcomer's wait may take: the model may become half as fast
log = logging.getLogger("weft.server")


class RefusedError(Exception):
    """A request that is not admitted.

    Args:
        reason: `rows`, `tokens`, `task`, `key` (whose limit), `wait` (its deadline would pass) or `poison`.
        seconds: after which it may be tried again.
    """

    def __init__(self, reason: str, seconds: int = 1) -> None:
        super().__init__(reason)
        self.reason, self.seconds = reason, seconds


class Batcher:
    """Jobs that wait and jobs that the worker has.

    Args:
        settings: bounds of both.
        send: takes messages for the worker.
        clock: seconds that never step back.
        metrics: counts what happens.
        several_keys: whether requests come under several keys.
    """

    def __init__(
        self,
        settings: ServeConfig,
        send: Callable[[dict[str, Any]], None],
        clock: Callable[[], float],
        metrics: Metrics,
        *,
        several_keys: bool = False,
    ) -> None:
        self.settings, self.send, self.clock, self.metrics = settings, send, clock, metrics
        bounds = Bounds(settings.queue_rows, settings.queue_tokens, settings.share)
        self.queue: FairQueue[Job] = FairQueue(bounds, several_keys=several_keys)
        self.connected = False
        self.uses: Counter[int] = Counter()  # generation -> jobs that need it
        self.pace = Pace()
        self._running: dict[str, tuple[Job, Asked]] = {}
        self._running_tokens = 0
        self._suspects: OrderedDict[str, int] = OrderedDict()

    @property
    def idle(self) -> bool:
        """Whether no job is open, and no request is looked at."""
        return not self.uses

    @property
    def free(self) -> bool:
        """Whether no admitted job waits or is worked on; requests that are still looked at do not count."""
        return not self._running and not self.queue.rows

    @property
    def running(self) -> int:
        """Answers that the worker was asked for, and has not given."""
        return len(self._running)

    def submit(self, job: Job) -> None:
        """Admit a job.

        Raises:
            RefusedError: if it would wait too long, there is no room, or it ended workers before.
        """
        ended = self._suspects.get(job.mark, 0) if self._suspects else 0
        if ended > 1:
            raise RefusedError("poison")
        job.suspect = ended == 1
        wait = self.pace.seconds(self.queue.ahead(job) + self._running_tokens)
        if not self.free and wait > HURRY * (job.deadline - self.clock()):
            raise RefusedError("wait", max(1, math.ceil(wait)))
        try:
            self.queue.put(job)
        except Full as full:
            raise RefusedError(full.reason, max(1, math.ceil(self.pace.seconds(self.queue.tokens)))) from None
        self.uses[job.generation] += 1
        self.pump()

    def pump(self) -> None:
        """Hand the worker what fits, expired jobs excepted."""
        while self.connected and (job := self.queue.take(self._fits)):
            if job.deadline <= self.clock():
                self._end(job, Fault("expired", "the deadline passed before its turn came"))
                continue
            self.pace.begin(self.clock())
            for one in job.asked:
                self._running[one.id] = (job, one)
            self._running_tokens += job.tokens
            self.metrics.tasks_together.observe(len({one.task for _, one in self._running.values()}))
            requests = [one.message() for one in job.asked]
            self.send({"do": "ask", "generation": job.generation, "requests": requests})
        self._gauge()

    def cancel(self, job: Job) -> None:
        """Nobody wants the job's answers any more; nothing happens if it is over."""
        if not job.left:
            return
        waits = not any(one.id in self._running for one in job.asked)
        if waits:
            self.queue.remove(job)
        self._end(job, None)
        self.pump()

    def hear(self, answer: Answer) -> None:
        """An answer, or a piece of one, has come from the worker."""
        found = self._running.get(str(answer.get("id")))
        if found is None:
            self.metrics.late.inc()
            return
        job, asked = found
        if answer["is"] == "piece":
            job.inbox.put_nowait(answer)
            return
        if answer["is"] == "refused":
            self._end(job, Fault("refused", str(answer["error"])))
        elif not asked.answered_by(answer):
            log.error("an answer is not of the question with its id: request %s is refused", asked.id)
            self.metrics.mismatched.inc()
            self._end(job, Fault("mismatch", "the answer was not to this question, and is withheld"))
        else:
            self.pace.add(asked.tokens, self.clock())
            self._leave(asked)
            job.left -= 1
            job.inbox.put_nowait(answer)
            if not job.left:
                self._over(job)
                if self._suspects:
                    self._suspects.pop(job.mark, None)
        self.pump()

    def lost(self, why: str) -> None:
        """The worker is gone: what it had is not answered, and is worked on alone when it comes again."""
        self.connected = False
        for job in dict.fromkeys(job for job, _ in self._running.values()):
            self._suspects[job.mark] = 2 if job.suspect else max(1, self._suspects.get(job.mark, 0))
            self._suspects.move_to_end(job.mark)
            self._end(job, Fault("worker", f"the worker {why} while it had this request"), tell=False)
        while len(self._suspects) > REMEMBERED:
            self._suspects.popitem(last=False)
        self.pace.drop()
        self._gauge()

    def drop_generation(self, generation: int) -> None:
        """Let jobs go that wait for a generation which no worker has any more."""
        for job in [one for one in self.queue if one.generation == generation]:
            self.queue.remove(job)
            self._end(job, Fault("worker", "its generation of the bank went with the worker"))

    def close(self) -> None:
        """Let all jobs go, with a word to each."""
        self.connected = False
        fault = Fault("closed", "the server ended before this was answered")
        for job in list(self.queue):
            self.queue.remove(job)
            self._end(job, fault)
        for job in dict.fromkeys(job for job, _ in self._running.values()):
            self._end(job, fault)

    def _fits(self, job: Job) -> bool:
        if not self._running or job.deadline <= self.clock():
            return True
        if job.suspect or any(other.suspect for other, _ in self._first_running()):
            return False
        rows, tokens = self.running + job.rows, self._running_tokens + job.tokens
        return rows <= self.settings.running_rows and tokens <= self.settings.running_tokens

    def _first_running(self) -> list[tuple[Job, Asked]]:
        """One that runs: a suspect runs alone, so that one is enough to see it."""
        return [next(iter(self._running.values()))]

    def _end(self, job: Job, fault: Fault | None, *, tell: bool = True) -> None:
        """Close a job before all its answers are there."""
        for one in job.asked:
            if one.id in self._running:
                self._leave(one)
                if tell:
                    self.send({"do": "drop", "id": one.id})
        job.left = 0
        if fault is not None:
            job.inbox.put_nowait(fault)
        self._over(job)

    def _leave(self, asked: Asked) -> None:
        del self._running[asked.id]
        self._running_tokens -= asked.tokens
        if not self._running:
            self.pace.end(self.clock())

    def _over(self, job: Job) -> None:
        self.uses[job.generation] -= 1
        if not self.uses[job.generation]:
            del self.uses[job.generation]

    def _gauge(self) -> None:
        self.metrics.waiting.set(self.queue.rows)
        self.metrics.waiting_tokens.set(self.queue.tokens)
        self.metrics.running.set(self.running)
