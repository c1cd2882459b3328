"""The server as an application of Ray Serve: replicas of it on a cluster.

    serve run weft.server.ray_app:build bank=/shared/bank replicas=4

Every replica opens the same bank for reading, has a model of its own, and takes up new generations by itself.
Ray gives requests to replicas, starts them on nodes with room, and replaces those that are lost.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from weft.bank import open as open_bank
from weft.config.files import changed, parse_overrides
from weft.errors import ConfigError, UnsupportedError, WeftError
from weft.server.app import create_app
from weft.server.keys import read_keys
from weft.server.opening import Opens, open_engine
from weft.server.service import Service
from weft.server.settings import ServeConfig

OF_ACTOR = ("num_cpus", "num_gpus")  # what each replica takes of its node
LOOK = 0.05  # seconds between looks whether the model is there


def build(options: Mapping[str, str]) -> Any:
    """The application.

    Args:
        options: `bank`, a folder that all nodes see; `replicas`; `num_cpus` and `num_gpus` of each; `base`,
            where the base model lies; `api_key_file`; and keys of `ServeConfig`.

    Raises:
        ConfigError: if no bank is named, or a setting is wrong.
        ArtifactError: if there is no such bank.
        UnsupportedError: if Ray Serve is not installed.
    """
    try:
        from ray import serve
    except ImportError:
        raise UnsupportedError(
            "replicas of the server need Ray Serve", fix="pip install 'weft[ray-serve]'", code="C18"
        ) from None
    found = checked(options)
    deployment = serve.deployment(
        name="weft",
        num_replicas=found.replicas,
        ray_actor_options=found.actor,
        max_ongoing_requests=found.settings.connections,
    )
    return deployment(serve.ingress(lambda: Replica(found))()).bind()


@dataclass(frozen=True)
class Options:
    """What replicas are told.

    Attributes:
        bank: its folder.
        opens: the engine, in the worker.
        settings: limits and times.
        keys: that requests may come with; none: none is wanted.
        replicas: how many.
        actor: what each takes of its node.
    """

    bank: Path
    opens: Opens
    settings: ServeConfig
    keys: tuple[str, ...]
    replicas: int
    actor: dict[str, float]


def checked(options: Mapping[str, str]) -> Options:
    """Options as `build` takes them.

    Raises:
        WeftError: as `build` says.
    """
    given = dict(options)
    name = given.pop("bank", "")
    if not name:
        raise ConfigError(
            "no bank is named", where="bank", fix="serve run weft.server.ray_app:build bank=BANK"
        )
    open_bank(Path(name))  # which says what is wrong before a replica starts
    keys = read_keys(Path(given.pop("api_key_file"))) if "api_key_file" in given else ()
    opens = partial(open_engine, base=given.pop("base", None))
    count = _count(given.pop("replicas", "1"))
    actor = {name: float(given.pop(name)) for name in OF_ACTOR if name in given}
    settings = changed(ServeConfig(), parse_overrides([f"{name}={one}" for name, one in given.items()]))
    return Options(Path(name).resolve(), opens, settings, keys, count, actor)


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise ConfigError(f"{text!r} replicas", where="replicas", fix="give 1 or more", code="C06")
    return int(text)


class Replica:
    """A server as one ASGI application, which begins and ends as ASGI's lifespan says.

    Args:
        options: what it serves, and how.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self.app is not None
        await self.app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Begin, with a model at hand; answer what is admitted before the end."""
        await receive()
        try:
            own = self.options
            service = Service(own.bank, own.opens, own.settings, several_keys=len(own.keys) > 1)
            async with service.running() as work:
                while not service.ready:
                    if work.done():
                        work.result()
                    await asyncio.sleep(LOOK)
                self.app = create_app(service, own.keys)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await service.drain()
        except WeftError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})
