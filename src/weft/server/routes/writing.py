"""Written answers: POST /v1/completions and /v1/chat/completions, in OpenAI's form."""

import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from weft.server.admission import (
    admit,
    answers,
    check_texts,
    entry_of,
    events,
    generation_of,
    not_answered,
    or_gone,
    question,
    service_of,
)
from weft.server.bodies import ChatBody, CompletionBody, Writing
from weft.server.jobs import Answer, Job, content
from weft.server.refusals import Refusal
from weft.server.routes import ERRORS
from weft.server.service import Generation, Service
from weft.server.strict_json import body_of, described
from weft.server.written import CHAT, COMPLETION, Form, Reply, sse

router = APIRouter()
SEEDS = 2**31


@router.post("/v1/completions", responses=ERRORS, openapi_extra=described(CompletionBody))
async def completions(
    request: Request, body: Annotated[CompletionBody, Depends(body_of(CompletionBody))]
) -> Response:
    """What the model writes after finished texts, under a task's prompt."""
    generation = generation_of(service_of(request))
    check_texts(service_of(request), body.prompts, "prompt")
    texts = [({"text": prompt}, len(prompt)) for prompt in body.prompts]
    return await _written(request, body, generation, texts, body.max_tokens, COMPLETION)


@router.post("/v1/chat/completions", responses=ERRORS, openapi_extra=described(ChatBody))
async def chat_completions(
    request: Request, body: Annotated[ChatBody, Depends(body_of(ChatBody))]
) -> Response:
    """The next message of a chat, by the model's own template, under a task's prompt."""
    generation = generation_of(service_of(request))
    if not generation.chats:
        entry_of(generation, body.model)
        told = "the bank's model has no chat template: ask /v1/completions with the finished text"
        raise Refusal(400, told, code="no_chat_template", param="messages")
    messages = [{"role": one.role, "content": one.text} for one in body.messages]
    whole = "".join(one["content"] for one in messages)
    check_texts(service_of(request), [whole], "messages")
    most = body.max_completion_tokens or body.max_tokens
    return await _written(request, body, generation, [({"messages": messages}, len(whole))], most, CHAT)


async def _written(
    request: Request,
    body: Writing,
    generation: Generation,
    texts: Sequence[tuple[Mapping[str, Any], int]],
    most: int | None,
    form: Form,
) -> Response:
    service = service_of(request)
    entry = entry_of(generation, body.model)
    limits = service.settings
    if most is not None and most > limits.new_tokens:
        told = f"max_tokens: {most}, and {limits.new_tokens} is the most"
        raise Refusal(422, told, code="too_many_tokens", param="max_tokens")
    if len(texts) * body.choices > limits.answers:
        told = f"{len(texts) * body.choices} answers, and {limits.answers} is the most in one request"
        raise Refusal(422, told, code="too_many_answers", param="n")
    new = most or entry.task.max_target_tokens
    seed = secrets.randbelow(SEEDS) if body.seed is None else body.seed % SEEDS
    asked = [
        question(entry, generation, {**_how(body, seed + j, most), **text}, size=size, new_tokens=new)
        for text, size in texts
        for j in range(body.choices)
    ]
    reply = Reply(form, asked, body.choices)
    job = admit(request, asked)
    if body.stream:
        return await _streamed(request, body, reply, job)
    found = await answers(request, job)
    for one in found.values():
        _check(one)
    return JSONResponse(reply.whole(found))


def _how(body: Writing, seed: int, most: int | None) -> dict[str, Any]:
    """The engine's fields for one choice. Without a temperature nothing is drawn, whatever else is asked."""
    drawn = {"temperature": body.temperature, "top_p": body.top_p or 1.0, "seed": seed % SEEDS}
    decoding = drawn if body.temperature else {}
    return content(write=True, max_tokens=most, decoding=decoding, stop=body.stops)


def _check(answer: Answer) -> None:
    if answer["error"]:
        raise not_answered(answer, "prompt")


class Stream(StreamingResponse):
    """A stream whose job ends with it, however it ends."""

    def __init__(self, content: AsyncIterator[bytes], service: Service, job: Job) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self.service, self.job = service, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.service.batcher.cancel(self.job)


async def _streamed(request: Request, body: Writing, reply: Reply, job: Job) -> Response:
    """A stream that begins when the model does, so that what goes wrong before has its own status."""
    service = service_of(request)
    began = service.batcher.clock()
    coming = events(service, job)
    first = await or_gone(request, anext(coming), service, job)
    if first["is"] == "answer":
        _check(first)
    service.metrics.first_piece.observe(service.batcher.clock() - began)
    return Stream(_events(first, coming, reply, usage=body.tells_usage), service, job)


async def _events(
    first: Answer, coming: AsyncIterator[Answer], reply: Reply, *, usage: bool
) -> AsyncIterator[bytes]:
    found: dict[str, Answer] = {}
    try:
        async with contextlib.aclosing(_chained(first, coming)) as chained:
            async for one in chained:
                if one["is"] == "answer":
                    _check(one)
                    found[str(one["id"])] = one
                yield sse(reply.event(one))
    except Refusal as refusal:
        yield sse(refusal.body())
        return
    if usage:
        yield sse({**reply.head(reply.form.piece), "choices": [], "usage": reply.usage(found)})
    yield sse("[DONE]")


async def _chained(first: Answer, rest: AsyncIterator[Answer]) -> AsyncGenerator[Answer, None]:
    yield first
    async for one in rest:
        yield one
