"""The routes and what stands before them, as one ASGI application."""

import logging
import time
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weft.server import page_files
from weft.server.keys import Keys
from weft.server.metrics import Metrics
from weft.server.receiving import Receiving
from weft.server.refusals import Refusal, short
from weft.server.routes import admin, classify, models, status, writing
from weft.server.service import Service

log = logging.getLogger("weft.server")


class Counted:
    """Counts answered requests by route and status, and gives an error of the server its form.

    Args:
        app: what answers.
        metrics: that count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, told = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal told
            told = message.get("status", told)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            told = told or 500
            raise
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(told or 499)).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - began)


def create_app(service: Service, keys: Sequence[str] = (), *, allow_admin: bool = False) -> FastAPI:
    """The application.

    Args:
        service: the state of the server.
        keys: that requests may come with; none: none is wanted.
        allow_admin: whether routes that change the server are there.
    """
    app = FastAPI(title="weft", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.service = service
    for part in (status, models, writing, classify, *([admin] if allow_admin else [])):
        app.include_router(part.router)
    app.router.routes.extend(page_files.routes())
    app.add_middleware(Receiving, settings=service.settings)
    app.add_middleware(Keys, keys=tuple(keys), free=page_files.files().keys())
    app.add_middleware(Counted, metrics=service.metrics)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    return app


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return error.response()


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = Refusal(error.status_code, str(error.detail), code="http").response()
    response.headers.update(error.headers or {})
    return response


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    name = str(fault["loc"][-1])
    told = f"{short(name)}: {short(fault['msg'])}"
    return Refusal(422, told, code="invalid_query", param=short(name)).response()


async def _broken(request: Request, error: Exception) -> JSONResponse:
    return Refusal(500, "a fault of the server, which its log names", code="internal").response()
