"""A server in this process on a free port, for tests."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fake_engine import open_engine

from weft.server import run
from weft.server.app import create_app
from weft.server.opening import Opens
from weft.server.protocol import timed_protocol
from weft.server.service import Service
from weft.server.settings import ServeConfig

QUICK = ServeConfig(
    receive_seconds=1,
    hang_seconds=2,
    start_seconds=30,
    drain_seconds=10,
    poll_seconds=0.1,
    deadline_seconds=20,
)


@dataclass
class Running:
    """A server that runs beside the test."""

    url: str
    service: Service
    loop: asyncio.AbstractEventLoop

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **more)

    def call(self, work: Any) -> Any:
        """The result of a coroutine in the server's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


@contextmanager
def served(
    bank: Path,
    settings: ServeConfig = QUICK,
    *,
    opens: Opens = open_engine,
    keys: tuple[str, ...] = (),
    allow_admin: bool = False,
) -> Iterator[Running]:
    """A server of a bank; the block begins when it is ready."""
    began: list[Running] = []
    ready, stop = threading.Event(), threading.Event()
    faults: list[BaseException] = []

    async def life() -> None:
        service = Service(bank, opens, settings, several_keys=len(keys) > 1)
        app = create_app(service, keys, allow_admin=allow_admin)
        listening = run.bound("127.0.0.1", 0)
        server = run.Server(
            run.uvicorn.Config(
                app, http=timed_protocol(settings), ws="none", lifespan="off",
                log_config=None, access_log=False, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        async with service.running() as work:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            while not service.ready and not work.done():
                await asyncio.sleep(0.01)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            began.append(Running(url, service, asyncio.get_running_loop()))
            ready.set()
            while not stop.is_set() and not work.done():
                await asyncio.sleep(0.01)
            server.should_exit = True
            await serving
            if work.done():
                work.result()
        listening.close()

    def body() -> None:
        try:
            asyncio.run(life())
        except BaseException as fault:
            faults.append(fault)
        finally:
            ready.set()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        assert ready.wait(60)
        if faults:
            raise faults[0]
        yield began[0]
    finally:
        stop.set()
        thread.join(30)
    if faults:
        raise faults[0]
