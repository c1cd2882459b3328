"""What is answered in the place of an answer: OpenAI's error object, with the cause and what to do."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from weft.errors import WeftError

SHOWN = 80  # characters of what a client sent that a message repeats
TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do.
        code: for programs.
        param: the field of the request that is wrong.
        retry_after: seconds, where the same request may be answered later.
        near: names of tasks that may be meant, told beside OpenAI's object.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
        near: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.param, self.retry_after, self.near = param, retry_after, tuple(near)

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        told = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": told, **({"near": list(self.near)} if self.near else {})}

    def response(self) -> JSONResponse:
        """For the client."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def of_error(error: WeftError, *, status: int, param: str | None = None) -> Refusal:
    """An error of weft, without its place, which is the server's own matter."""
    message = f"{error.cause}: {error.fix}" if error.fix else error.cause
    return Refusal(status, message, code=f"WEFT-{error.code}" if error.code else "weft", param=param)


def unknown_task(error: WeftError) -> Refusal:
    """No such task; never another one's answer, nor the bare model's."""
    found = of_error(error, status=404, param="model")
    found.code, found.near = "model_not_found", getattr(error, "near", ())
    return found


def short(text: str) -> str:
    """The beginning of what a client sent, in signs that can be shown."""
    shown = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in shown)


def finite(value: Any) -> Any:
    """The same for JSON, which has no NaN and no infinity: null instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value
