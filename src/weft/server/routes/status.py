"""How the server is: /health, /ready, /version, /metrics."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from weft.server.admission import service_of
from weft.server.routes import ERRORS

router = APIRouter()
KEYED: dict[int | str, dict[str, Any]] = {401: ERRORS[401]}


@router.get("/health")
async def health() -> dict[str, str]:
    """The process is alive; whether it answers questions says /ready."""
    return {"status": "ok"}


@router.get("/ready", responses={**KEYED, 503: {"description": "requests are not admitted now"}})
async def ready(request: Request) -> JSONResponse:
    """Whether requests are admitted."""
    service = service_of(request)
    if service.ready and service.current is not None:
        return JSONResponse({"ready": True, "generation": service.current.number})
    return JSONResponse({"ready": False, "why": service.why_not()}, 503, {"retry-after": "2"})


@router.get("/version", responses=KEYED)
async def about(request: Request) -> dict[str, Any]:
    """What runs here."""
    service = service_of(request)
    current = service.current
    return {
        "weft": version("weft"),
        "bank": service.path.resolve().name,
        "base": current.snapshot.base.name if current else None,
        "generation": current.number if current else None,
        "tasks": len(current.snapshot) if current else None,
        "chat": current.chats if current else None,
    }


@router.get("/metrics", responses=KEYED)
async def metrics(request: Request) -> Response:
    """Counters, for Prometheus."""
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
