"""The page at /, whose files lie beside this one. It loads nothing from elsewhere, and may not."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

FOLDER = Path(__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}  # named here: a machine's own table may say otherwise, and browsers are told to guess nothing
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def files() -> Mapping[str, Path]:
    """Where the page's files are found, and where they lie; these paths want no key."""
    found = {f"/{path.relative_to(FOLDER).as_posix()}": path for path in FOLDER.rglob("*") if path.is_file()}
    index = found.pop("/index.html", None)
    return {**found, "/": index} if index else found


def routes() -> list[Route]:
    """One for each file: no path of a client ever names one."""
    return [Route(path, _sender(file), methods=["GET"], name=path) for path, file in files().items()]


def _sender(file: Path) -> Callable[[Request], Awaitable[FileResponse]]:
    async def send(request: Request) -> FileResponse:
        return FileResponse(file, headers=HEADERS, media_type=TYPES[file.suffix])

    return send
