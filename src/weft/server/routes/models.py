"""The tasks, as OpenAI lists models: /v1/models, in pages, and /v1/models/NAME."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from weft.bank import Entry
from weft.errors import ArtifactError
from weft.server.admission import entry_of, generation_of, service_of
from weft.server.refusals import finite
from weft.server.routes import ERRORS
from weft.server.service import Generation
from weft.tasks import template

router = APIRouter()
Name = Annotated[str, Query(max_length=256)]


@router.get("/v1/models", responses={one: ERRORS[one] for one in (401, 422, 503)})
async def models(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Name = "",
    prefix: Name = "",
    group: Annotated[str | None, Query(max_length=256)] = None,
    q: Annotated[str | None, Query(max_length=256)] = None,
) -> dict[str, Any]:
    """A page of tasks in the order of their names, from behind `after`; or what a search (`q`) finds."""
    generation = generation_of(service_of(request))
    asked: dict[str, Any] = {"prefix": prefix, "after": after, "group": group}
    return await asyncio.to_thread(_page, generation, limit, q, asked)


def _page(generation: Generation, limit: int, q: str | None, asked: dict[str, Any]) -> dict[str, Any]:
    """A page; of a large bank it takes its time, in which others are served."""
    if q is not None:
        names = generation.snapshot.search(q, limit + 1)
    else:
        names = generation.snapshot.names(limit=limit + 1, **asked)
    names, more = names[:limit], len(names) > limit
    data = [_listed(generation, name) for name in names]
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return {"object": "list", "data": data, "has_more": more, **ends}


@router.get("/v1/models/{name:path}", responses={one: ERRORS[one] for one in (401, 404, 503)})
async def model(request: Request, name: str) -> dict[str, Any]:
    """One task."""
    generation = generation_of(service_of(request))
    return described(generation, entry_of(generation, name))


def _listed(generation: Generation, name: str) -> dict[str, Any]:
    """A task in a list; one that cannot be read is named all the same."""
    try:
        return described(generation, generation.find(name))
    except ArtifactError as error:
        return {"id": name, "object": "model", "created": 0, "owned_by": "weft", "error": error.cause}


def described(generation: Generation, entry: Entry) -> dict[str, Any]:
    """What clients may know of a task."""
    base, task = generation.snapshot.base.name, entry.task
    return {
        "id": entry.name,
        "object": "model",
        "created": 0,
        "owned_by": "weft",
        "root": base,
        "parent": base,
        "group": entry.group,
        "kind": entry.kind,
        "template": task.source,
        "fields": list(dict.fromkeys(template.names(task.source))),
        "answers": list(task.choices) or None,
        "labels": task.labels,
        "source_tokens": entry.source_tokens,
        "max_tokens": task.max_target_tokens,
        "prompt_length": entry.prompt_length,
        "metrics": finite(dict(entry.metrics)),
        "run": entry.run,
        "generation": generation.number,
        "sha256": entry.sha256,
    }
