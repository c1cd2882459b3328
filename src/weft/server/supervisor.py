"""Keeps one worker process alive: starts it, listens to it, replaces one that is dead or silent."""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import socket
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

from weft.errors import ResourceError
from weft.server import worker
from weft.server.opening import Opens
from weft.server.settings import ServeConfig

LONGEST = 64 << 20  # bytes of one message of a worker
PAUSES = (0.1, 0.5, 2.0, 10.0)  # seconds before a worker is started again, after so many that came to nothing
log = logging.getLogger("weft.server")


class Hears(Protocol):
    """Who uses the worker."""

    async def started(self) -> None:
        """A worker has begun; returns when it is ready for questions."""

    def hear(self, message: dict[str, Any]) -> None:
        """A message has come."""

    def lost(self, why: str) -> None:
        """The worker is gone."""


class Supervisor:
    """One worker at a time, as long as `run` runs.

    Args:
        path: of the bank.
        opens: the engine, in the worker.
        settings: how long it is waited for.
        owner: who uses the worker.
    """

    def __init__(self, path: Path, opens: Opens, settings: ServeConfig, owner: Hears) -> None:
        self.path, self.opens, self.settings, self.owner = path, opens, settings, owner
        self.process: SpawnProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._heard = 0.0

    def send(self, message: dict[str, Any]) -> None:
        """For the worker; nothing happens if there is none."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def run(self) -> None:
        """Start workers, one after the other, for ever; cancelled, it ends the last one.

        Raises:
            WeftError: as the first worker's start does; later ones are tried again.
        """
        vain, first = 0, True
        while True:
            try:
                why, worked = await self._one_life(first=first)
            finally:
                await self._end()
            if first and not worked:
                fix = "its last words stand above; with none, see whether memory was full"
                raise ResourceError(f"the worker {why}", fix=fix, code="S21")
            first = False
            vain = 0 if worked else vain + 1
            log.warning("the worker %s; another one is started", why)
            self.owner.lost(why)
            await asyncio.sleep(PAUSES[min(vain, len(PAUSES) - 1)])

    async def _one_life(self, *, first: bool) -> tuple[str, bool]:
        """From a worker's start to its end: what it ended of, and whether it ever was ready."""
        reader = await self._begin()
        listening = asyncio.create_task(self._listen(reader))
        ready = asyncio.create_task(self._ready())
        try:
            limit = self.settings.start_seconds
            await asyncio.wait({listening, ready}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                return ("ended at its start" if listening.done() else f"was not ready in {limit:g} s"), False
            if (error := ready.exception()) is not None:
                if first:
                    raise error
                return f"could not start ({error})", False
            return await self._watched(listening), True
        finally:
            for task in (listening, ready):
                task.cancel()
            await asyncio.gather(listening, ready, return_exceptions=True)

    async def _ready(self) -> None:
        await self.owner.started()

    async def _watched(self, listening: "asyncio.Task[None]") -> str:
        """Wait for the end of a worker; why it came."""
        clock = asyncio.get_running_loop().time
        self._heard = clock()
        limit = self.settings.hang_seconds
        while not listening.done():
            if clock() - self._heard > limit:
                return f"gave no sign of life for {limit:g} s"
            await asyncio.wait({listening}, timeout=min(1.0, limit / 4))
        return "ended"

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the worker says, until it says no more."""
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._heard = clock()
                message = json.loads(line)
                if message["is"] != "beat":
                    self.owner.hear(message)

    async def _begin(self) -> asyncio.StreamReader:
        here, there = socket.socketpair()
        here.setblocking(False)
        context = multiprocessing.get_context("spawn")
        arguments = (there, self.path, self.opens)
        self.process = context.Process(target=worker.main, args=arguments, name="weft-worker", daemon=True)
        await asyncio.to_thread(self.process.start)
        there.close()
        reader, self._writer = await asyncio.open_connection(sock=here, limit=LONGEST)
        return reader

    async def _end(self) -> None:
        """End the worker, if it has not ended; it holds nothing that must be kept."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.join)
            self.process.close()
            self.process = None
