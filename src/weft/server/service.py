"""The state of a server: the generation of the bank, the worker, and whether requests are admitted."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from weft import bank as banks
from weft.bank import Bank, Entry, Snapshot
from weft.errors import ResourceError, WeftError
from weft.server import self_test
from weft.server.batcher import Batcher
from weft.server.jobs import Answer, Fault, Job
from weft.server.metrics import Metrics
from weft.server.opening import Opens
from weft.server.settings import ServeConfig
from weft.server.supervisor import Supervisor

TRIES = 20  # to open a generation while writers go on
KNOWN = 4096  # entries of a generation that are kept at hand
log = logging.getLogger("weft.server")


class Generation:
    """One generation of the bank, which never changes.

    Args:
        snapshot: of the bank.
        chats: whether the model has a template for chats.
    """

    def __init__(self, snapshot: Snapshot, *, chats: bool) -> None:
        self.snapshot, self.chats, self.number = snapshot, chats, snapshot.generation
        self.find = lru_cache(KNOWN)(self._find)

    def _find(self, name: str) -> Entry:
        return self.snapshot.find(name)


class Service:
    """One bank and one worker.

    Args:
        path: of the bank.
        opens: the engine, in the worker.
        settings: limits and times.
        several_keys: whether requests come under several keys.
    """

    def __init__(
        self, path: Path, opens: Opens, settings: ServeConfig, *, several_keys: bool = False
    ) -> None:
        self.path, self.settings = path, settings
        self.bank: Bank = banks.open(path)
        self.metrics = Metrics()
        self.supervisor = Supervisor(path, opens, settings, self)
        clock = asyncio.get_running_loop().time
        self.batcher = Batcher(settings, self.supervisor.send, clock, self.metrics, several_keys=several_keys)
        self.current: Generation | None = None
        self.draining = False
        self._opened: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.at_hand: set[int] = set()  # generations that the worker has
        self._refused: int | None = None  # a generation that could not be opened
        self._reloading = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether requests are admitted."""
        return self.current is not None and self.batcher.connected and not self.draining

    def why_not(self) -> str:
        """What stands against admitting requests."""
        if self.draining:
            return "the server is shutting down"
        return "the worker has no model yet" if self.current is None else "the worker is being replaced"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Worker and polling, as long as the block runs; the task ends only with an error of the start."""
        work = asyncio.create_task(self.supervisor.run())
        poll = asyncio.create_task(self._poll())
        try:
            yield work
        finally:
            for task in (poll, work):
                task.cancel()
            await asyncio.gather(poll, work, return_exceptions=True)

    async def started(self) -> None:
        """A worker has begun: it gets the generation that requests have, or if it cannot, the newest."""
        self.at_hand.clear()
        try:
            await self._open(self.current.snapshot if self.current else self.bank.snapshot())
        except WeftError:
            if self.current is None:
                raise
            await self._open_newest()
        self.batcher.connected = True
        for old in set(self.batcher.uses) - self.at_hand:
            self.batcher.drop_generation(old)
        self._show()
        log.info("ready: generation %d", self.current.number if self.current else -1)
        self.batcher.pump()

    def hear(self, message: dict[str, Any]) -> None:
        """A message of the worker."""
        if message["is"] == "opened":
            waits = self._opened.pop(message["generation"], None)
            if waits is not None and not waits.done():
                waits.set_result(message)
        else:
            self.batcher.hear(message)

    def lost(self, why: str) -> None:
        """The worker is gone."""
        self.batcher.lost(why)
        self.metrics.restarts.labels(why.split(" (")[0].split(" for ")[0]).inc()
        for waits in self._opened.values():
            if not waits.done():
                waits.set_exception(ResourceError(f"the worker {why} while it opened the bank", code="S19"))
        self._opened.clear()
        self._show()

    async def reload(self, *, force: bool = False) -> int:
        """Take up the newest generation, if the worker answers with it; else keep the old one.

        Returns:
            the generation that new requests get.

        Raises:
            WeftError: saying why the new one is not used.
        """
        async with self._reloading:
            assert self.current is not None
            newest = self.bank.generation
            if newest != self.current.number and (force or newest != self._refused):
                try:
                    await self._open_newest()
                except WeftError:
                    self._refused = newest
                    self.metrics.reloads.labels("refused").inc()
                    raise
                self.metrics.reloads.labels("taken").inc()
                self._show()
            self._close_unused()
            return self.current.number

    async def _open_newest(self) -> None:
        """Open the newest generation; again, if writers were faster than the worker.

        Raises:
            WeftError: if it cannot be opened, and none is newer.
        """
        for _ in range(TRIES):
            snapshot = self.bank.snapshot()
            try:
                return await self._open(snapshot)
            except WeftError as error:
                fault = error
                if self.bank.generation == snapshot.generation:
                    break
        raise fault

    async def _open(self, snapshot: Snapshot) -> None:
        """Let the worker open a generation, see that its answer is of it, and give it to new requests.

        Raises:
            ArtifactError: if it does not answer, or not as it should.
        """
        number, test = snapshot.generation, self_test.question(snapshot)
        waits = self._opened[number] = asyncio.get_running_loop().create_future()
        told = None if test is None else test.message()
        self.supervisor.send({"do": "open", "generation": number, "test": told})
        async with asyncio.timeout(self.settings.start_seconds):
            opened = await waits
        if opened["error"] is not None:
            raise self_test.error_of(opened["error"])
        if test is not None:
            self_test.check(test, opened["tried"])
        self.at_hand.add(number)
        self.current = Generation(snapshot, chats=opened["chat"])

    @contextlib.contextmanager
    def held(self, generation: Generation) -> Iterator[None]:
        """Keep a generation in the worker while a request to it is looked at."""
        uses = self.batcher.uses
        uses[generation.number] += 1
        try:
            yield
        finally:
            uses[generation.number] -= 1
            if not uses[generation.number]:
                del uses[generation.number]

    def _close_unused(self) -> None:
        """Let the worker forget generations that no request needs."""
        for number in sorted(
            self.at_hand - {self.current.number if self.current else -1} - set(self.batcher.uses)
        ):
            self.supervisor.send({"do": "close", "generation": number})
            self.at_hand.discard(number)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            if not self.ready:
                continue
            try:
                await self.reload()
            except (WeftError, TimeoutError) as error:
                log.error("the bank's new generation is not used: %s", error)

    def _show(self) -> None:
        self.metrics.ready.set(self.ready)
        if self.current is not None:
            self.metrics.generation.set(self.current.number)
            self.metrics.tasks.set(len(self.current.snapshot))

    async def events(self, job: Job) -> AsyncIterator[Answer]:
        """Pieces and answers of an admitted job, until all are there; left early, it is cancelled.

        Raises:
            Fault: if it ends without them.
        """
        left = len(job.asked)
        try:
            while left:
                async with asyncio.timeout_at(job.deadline):
                    event = await job.inbox.get()
                if isinstance(event, Fault):
                    raise event
                left -= event["is"] == "answer"
                yield event
        except TimeoutError:
            limit = self.settings.deadline_seconds
            raise Fault("expired", f"there was no answer within {limit:g} s") from None
        finally:
            self.batcher.cancel(job)

    async def drain(self) -> None:
        """Admit nothing more, and wait until what is admitted is answered, or its time is over."""
        self.draining = True
        self._show()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_seconds):
                while not self.batcher.idle:
                    await asyncio.sleep(0.02)
        self.batcher.close()
