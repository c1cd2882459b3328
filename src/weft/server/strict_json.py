"""Request bodies from their bytes: UTF-8, no key twice, no NaN, no lone surrogates, no other types."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from weft.server.refusals import Refusal, short

SHOWN = 5  # faults that a message names


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=Body)


class TwiceError(ValueError):
    """A key that stands twice in one object."""


def read(kind: type[M], raw: bytes) -> M:
    """A body.

    Raises:
        Refusal: 400 if it is no JSON, 422 if it is another body; naming fields, never their values.
    """
    try:
        found = kind.model_validate_json(raw)
        json.loads(raw, object_pairs_hook=_once)
    except ValidationError as error:
        raise _refusal(error) from None
    except TwiceError as error:
        raise Refusal(
            400, f"a key stands twice in one object: {short(str(error))}", code="duplicate_key"
        ) from None
    except (ValueError, RecursionError):  # numbers of thousands of digits
        raise Refusal(400, "the body holds a number that is too long", code="invalid_json") from None
    return found


def body_of(kind: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency of a route: its body."""

    async def dependency(request: Request) -> M:
        told = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if told != "application/json":
            raise Refusal(415, "the body is sent as content-type: application/json", code="content_type")
        return read(kind, await request.body())

    return dependency


def described(kind: type[Body]) -> dict[str, Any]:
    """The body for the OpenAPI document, whole in its place."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inlined(schema, parts)}},
        }
    }


def _inlined(schema: Any, parts: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(parts[schema["$ref"].rsplit("/", 1)[1]], parts)
        return {name: _inlined(one, parts) for name, one in schema.items()}
    return [_inlined(one, parts) for one in schema] if isinstance(schema, list) else schema


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise TwiceError(next(name for name in names if names.count(name) > 1))
    return found


def _refusal(error: ValidationError) -> Refusal:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return Refusal(400, f"the body is no JSON: {short(faults[0]['msg'])}", code="invalid_json")
    told = [f"{short('.'.join(map(str, one['loc'])))}: {short(one['msg'])}" for one in faults[:SHOWN]]
    more = f" (and {len(faults) - SHOWN} more)" if len(faults) > SHOWN else ""
    param = str(faults[0]["loc"][0]) if faults[0]["loc"] else None
    return Refusal(422, "; ".join(told) + more, code="invalid_body", param=short(param) if param else None)
