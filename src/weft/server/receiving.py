"""Bodies are read whole before anything looks at them: counted while they arrive, and within a time."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weft.server.refusals import Refusal
from weft.server.settings import ServeConfig

COUNTED = "/v1/"  # who looks whether the server lives is always answered


class GoneError(Exception):
    """The client went away before its request was here."""


class Receiving:
    """Refuses bodies that are too large or too slow, and requests beyond the most that are held at once.

    Args:
        app: what answers whole requests.
        settings: the limits.
    """

    def __init__(self, app: ASGIApp, settings: ServeConfig) -> None:
        self.app, self.settings, self._held = app, settings, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._held += 1
        try:
            await self._answered(scope, receive, send)
        finally:
            self._held -= 1

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._held > self.settings.connections and scope["path"].startswith(COUNTED):
                raise _crowded(self.settings.connections)
            body = await self._body(scope, receive)
        except Refusal as refusal:
            response = refusal.response()
            response.headers["connection"] = "close"  # the rest of the body is not read
            await response(scope, receive, send)
        except GoneError:
            return
        else:
            await self.app(scope, _replayed(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit, seconds = self.settings.body_bytes, self.settings.receive_seconds
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not told.isdigit() or int(told[:19]) > limit:
            raise _large(limit)
        parts = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    parts += message.get("body", b"")
                    if len(parts) > limit:
                        raise _large(limit)
                    if not message.get("more_body"):
                        return bytes(parts)
        except TimeoutError:
            message_ = f"the request was not here within {seconds:g} s"
            raise Refusal(408, message_, code="request_timeout") from None


def _crowded(limit: int) -> Refusal:
    message = f"{limit} requests are open, which is the most here"
    return Refusal(503, message, code="too_many_connections", retry_after=1)


def _large(limit: int) -> Refusal:
    return Refusal(
        413, f"the body has more than {limit} bytes, which is the most here", code="body_too_large"
    )


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body as one message; after it, what the client does."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
