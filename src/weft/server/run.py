"""A server from its start to its end."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from weft.errors import ConfigError, ResourceError
from weft.server.app import create_app
from weft.server.opening import Opens
from weft.server.protocol import timed_protocol
from weft.server.service import Service
from weft.server.settings import ServeConfig

SIGNALS = (signal.SIGTERM, signal.SIGINT)
BESIDE = 2  # times the requests at once: connections that are open beside them; more get uvicorn's bare 503
LAST_WORDS = 5  # seconds for answers that are on their way when nothing is worked on any more
HEAD = 64 << 10  # bytes of a request's head
log = logging.getLogger("weft.server")


@dataclass(frozen=True)
class Place:
    """Where a server listens, and to whom.

    Attributes:
        host: name or address.
        port: 0 for any that is free.
        keys: that requests may come with; none: none is wanted.
        allow_admin: whether routes that change the server are there.
    """

    host: str
    port: int
    keys: Sequence[str] = ()
    allow_admin: bool = False

    def __post_init__(self) -> None:
        if self.allow_admin and not self.keys:
            raise ConfigError("--allow-admin wants API keys", fix="give --api-key-file", code="S25")


class Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(path: Path, opens: Opens, settings: ServeConfig, place: Place) -> None:
    """Serve a bank until SIGTERM or SIGINT; then admit nothing more, answer what is admitted, and end.

    Raises:
        WeftError: if it cannot start: no bank, no model, another one, a port that is taken.
    """
    listening = bound(place.host, place.port)
    with contextlib.closing(listening):
        asyncio.run(_serve(path, opens, settings, place, listening))


def bound(host: str, port: int) -> socket.socket:
    """A socket at the place.

    Raises:
        ResourceError: if the place is taken, or is not of this machine.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, number)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError:
            found.close()
            raise
    except OSError as error:
        fix = "choose another --port, or end who listens there"
        cause = f"cannot listen at {host} port {port}: {error.strerror or error}"
        raise ResourceError(cause, fix=fix, code="S31") from None
    return found


async def _serve(
    path: Path, opens: Opens, settings: ServeConfig, place: Place, listening: socket.socket
) -> None:
    service = Service(path, opens, settings, several_keys=len(place.keys) > 1)
    app = create_app(service, place.keys, allow_admin=place.allow_admin)
    server = Server(
        uvicorn.Config(
            app, http=timed_protocol(settings), limit_concurrency=BESIDE * settings.connections,
            ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=LAST_WORDS, h11_max_incomplete_event_size=HEAD,
        )
    )  # fmt: skip
    stop = _stop_event()
    async with service.running() as work:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        host, port = listening.getsockname()[:2]
        print(
            f"bank {path.resolve().name} at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True
        )
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, work, asked}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            log.info("asked to end: answering what is admitted")
            await service.drain()
        server.should_exit = True
        await serving
        asked.cancel()
        if work.done():
            work.result()


def _stop_event() -> asyncio.Event:
    """Set by the first signal; a second one ends at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def heard() -> None:
        if stop.is_set():
            sys.exit(1)
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, heard)
    return stop
