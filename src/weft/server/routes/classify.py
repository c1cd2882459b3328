"""Labels with probabilities, of one or many texts under one or many tasks: POST /v1/classify."""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from weft.bank import Entry
from weft.server.admission import (
    admit,
    answers,
    check_texts,
    entry_of,
    generation_of,
    not_answered,
    question,
    service_of,
    signs,
)
from weft.server.bodies import ClassifyBody
from weft.server.jobs import Answer, Asked, content
from weft.server.refusals import Refusal, finite
from weft.server.routes import ERRORS
from weft.server.service import Generation, Service
from weft.server.strict_json import body_of, described

router = APIRouter()
ALL = "*"
NOT_FINITE = "the model's numbers for this text are not finite"
Given = Annotated[ClassifyBody, Depends(body_of(ClassifyBody))]


@router.post("/v1/classify", responses=ERRORS, openapi_extra=described(ClassifyBody))
async def classify(request: Request, body: Given) -> dict[str, Any]:
    """Every task's answer to every input; one that a task cannot answer says why in its place."""
    service = service_of(request)
    generation = generation_of(service)
    check_texts(service, body.rows, "inputs")
    with service.held(generation):
        entries = await asyncio.to_thread(_entries, body, generation, service)  # they may be many
        pairs = list(itertools.product(enumerate(body.rows), entries))
        asked = [_question(entry, generation, given) for (_, given), entry in pairs]
        job = admit(request, asked)
    found = await answers(request, job)
    data = [
        {"index": index, **_told(found[one.id], entry)}
        for ((index, _), entry), one in zip(pairs, asked, strict=True)
    ]
    if all(one["error"] is not None for one in data):
        raise not_answered({**found[asked[0].id], "error": data[0]["error"]}, "inputs")
    usage = {
        name: sum(one[name] or 0 for one in found.values()) for name in ("prompt_tokens", "virtual_tokens")
    }
    return {"object": "list", "generation": generation.number, "data": data, "usage": usage}


def _entries(body: ClassifyBody, generation: Generation, service: Service) -> list[Entry]:
    """The tasks that are asked.

    Raises:
        Refusal: if there is none, or one that has no closed answers, or together they are too many.
    """
    most = service.settings.answers // len(body.rows)
    names = [body.model] if isinstance(body.model, str) else list(dict.fromkeys(body.model))
    if names == [ALL]:
        if body.group is None:
            raise Refusal(
                422,
                "model '*' stands for the tasks of a group: name it as 'group'",
                code="no_group",
                param="group",
            )
        names = generation.snapshot.names(group=body.group, limit=most + 1)
    elif body.group is not None:
        raise Refusal(422, "group goes with model '*'", code="group", param="group")
    if len(names) > most:
        asked = len(names) * len(body.rows)
        told = f"{asked} answers or more, and {service.settings.answers} is the most in one request"
        raise Refusal(422, told, code="too_many_answers", param="model")
    entries = [entry_of(generation, name) for name in names]
    if body.model == ALL:
        entries = [entry for entry in entries if entry.task.labels]
    if not entries:
        raise Refusal(404, "the group has no task with closed answers", code="model_not_found", param="group")
    for entry in entries:
        if not entry.task.labels:
            told = f"task {entry.name!r} has open answers: ask /v1/completions"
            raise Refusal(422, told, code="open_answers", param="model")
    return entries


def _question(entry: Entry, generation: Generation, given: str | Mapping[str, Any]) -> Asked:
    text, row = (given, None) if isinstance(given, str) else (None, given)
    return question(entry, generation, content(row=row, text=text), size=signs(given), new_tokens=1)


def _told(answer: Answer, entry: Entry) -> dict[str, Any]:
    """One entry of the reply; a probability that is no number is a fault of its row alone."""
    error, odds = answer["error"], answer["probabilities"] or {}
    if not error and finite(odds) != odds:
        error = NOT_FINITE
    good = not error
    return {
        "model": entry.name,
        "label": answer["label"] if good else None,
        "answer": answer["answer"] if good else None,
        "probabilities": odds if good else None,
        "cut": bool(answer["cut"]),
        "error": error,
        "sha256": answer["sha256"],
    }
