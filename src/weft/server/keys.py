"""API keys. Every route wants one, but those that are named here."""

import hashlib
import hmac
from collections.abc import Collection, Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from weft.errors import ConfigError
from weft.server.refusals import Refusal

SHORTEST = 16  # characters of a key
OPEN = frozenset({"/health"})


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one a line; empty lines and those that begin with # are left out.

    Raises:
        ConfigError: if the file has none, or one that is short or has other signs than a header takes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the keys cannot be read: {error}", where=str(path), code="S25") from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            fix = f"write {SHORTEST} or more letters and digits: openssl rand -hex 24"
            raise ConfigError(
                f"key {number} is too short or has other signs", where=str(path), fix=fix, code="S25"
            )
    if not keys:
        raise ConfigError("the file has no key", where=str(path), fix="write one a line", code="S25")
    return keys


def owner(keys: Sequence[str], given: str) -> str | None:
    """A name for the key that was given; none if it is none of ours. Compares with all, in the same time."""
    found = [hmac.compare_digest(key.encode(), given.encode()) for key in keys]
    return hashlib.sha256(given.encode()).hexdigest()[:12] if any(found) else None


class Keys:
    """Asks every request for its key, before anything of it is read.

    Args:
        app: what answers those that have one.
        keys: that are good; none: every request is answered.
        free: further paths that want no key: the page's files.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], free: Collection[str] = ()) -> None:
        self.app, self.keys, self.free = app, keys, OPEN | set(free)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the beginning and end of the server
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        name = owner(self.keys, _given(scope)) if self.keys else "all"
        if name is None and scope["path"] not in self.free:
            told = "this server wants one of its API keys, as `Authorization: Bearer KEY`"
            await Refusal(401, told, code="invalid_api_key").response()(scope, receive, send)
            return
        scope.setdefault("state", {})["key"] = name or "none"
        await self.app(scope, receive, send)


def _given(scope: Scope) -> str:
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    words = found[0].decode("latin-1").split(" ") if len(found) == 1 else []
    return words[1] if len(words) == 2 and words[0].lower() == "bearer" else ""
