"""What changes the server; there only with --allow-admin."""

from typing import Any

from fastapi import APIRouter, Request

from weft.errors import WeftError
from weft.server.admission import generation_of, service_of
from weft.server.refusals import Refusal, of_error
from weft.server.routes import ERRORS

router = APIRouter(prefix="/v1/admin")


@router.post("/reload", responses={401: ERRORS[401], 409: {"description": "not used"}, 503: ERRORS[503]})
async def reload(request: Request) -> dict[str, Any]:
    """Take up the bank's newest generation now."""
    service = service_of(request)
    before = generation_of(service).number
    try:
        now = await service.reload(force=True)
    except WeftError as error:
        raise of_error(error, status=409) from None
    except TimeoutError:
        raise Refusal(503, "the worker did not open it in time", code="reload", retry_after=5) from None
    return {"generation": now, "changed": now != before}
