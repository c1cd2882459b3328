"""The routes, one file a subject."""

from typing import Any

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": f"{what}; OpenAI's error object"}
    for status, what in {
        400: "no JSON, or not served", 401: "no good key", 404: "no such task", 408: "came too slowly",
        413: "body too large", 415: "no JSON by its content-type", 422: "another body than is described",
        429: "no room now, see Retry-After", 500: "a fault of the server",
        503: "not ready, or not answered in time, see Retry-After",
    }.items()
}  # fmt: skip
