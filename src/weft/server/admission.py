"""From a request to its answers: tasks are looked up, questions pinned and admitted, answers awaited."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from weft.bank import Entry, UnknownTaskError
from weft.errors import ArtifactError, ConfigError
from weft.server.batcher import RefusedError
from weft.server.jobs import Answer, Asked, Fault, Job
from weft.server.refusals import Refusal, of_error, unknown_task
from weft.server.service import Generation, Service

SIGNS_PER_TOKEN = 4  # of English; the estimate bounds the queue, and its error is in the measured pace too
FULL = {
    "rows": "too many requests wait",
    "tokens": "too much text waits",
    "task": "too many requests of this task wait",
    "key": "too many requests of this key wait",
    "wait": "so much waits that this request's deadline would pass",
}
OURS = ("S22",)  # codes of an engine's faults that no other request would mend
STATUS = {"expired": 503, "worker": 503, "closed": 503, "mismatch": 500, "refused": 400}


def service_of(request: Request) -> Service:
    """The server's state."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


def generation_of(service: Service) -> Generation:
    """The generation of the bank that requests get now.

    Raises:
        Refusal: while none are admitted.
    """
    if not service.ready or service.current is None:
        raise Refusal(503, f"not ready: {service.why_not()}", code="not_ready", retry_after=2)
    return service.current


def entry_of(generation: Generation, name: str) -> Entry:
    """A task.

    Raises:
        Refusal: 404 if there is none of the name; 503 if its numbers are not those that were written.
    """
    try:
        return generation.find(name)
    except (UnknownTaskError, ConfigError) as error:  # the latter: it can be no task's name
        raise unknown_task(error) from None
    except ArtifactError as error:
        raise of_error(error, status=503, param="model") from None


def check_texts(service: Service, texts: Sequence[str | Mapping[str, Any]], param: str) -> None:
    """Refuse too many, or too long ones.

    Raises:
        Refusal: naming both numbers.
    """
    limits = service.settings
    if len(texts) > limits.items:
        told = f"{param}: {len(texts)} texts, and {limits.items} is the most in one request"
        raise Refusal(422, told, code="too_many_texts", param=param)
    longest = max(map(signs, texts))
    if longest > limits.text_signs:
        told = f"{param}: a text of {longest} characters, and {limits.text_signs} is the most"
        raise Refusal(422, told, code="text_too_long", param=param)


def signs(text: str | Mapping[str, Any]) -> int:
    """Characters of a text, or of all fields of a row."""
    return len(text) if isinstance(text, str) else sum(len(str(value)) for value in text.values())


def question(
    entry: Entry, generation: Generation, content: Mapping[str, Any], *, size: int, new_tokens: int
) -> Asked:
    """One answer that is wanted, pinned.

    Args:
        entry: of the task.
        generation: that the entry is of.
        content: fields of the engine's Request.
        size: characters of the text.
        new_tokens: most tokens that the answer has.
    """
    tokens = size // SIGNS_PER_TOKEN + 1 + entry.prompt_length + new_tokens
    return Asked(entry.name, generation.number, entry.sha256, content, tokens)


def admit(request: Request, asked: Sequence[Asked]) -> Job:
    """Let a request's questions wait for their turn.

    Raises:
        Refusal: 429 if it would take too long or there is no room; 503 if its generation is gone.
    """
    service = service_of(request)
    if asked[0].generation not in service.at_hand:  # a worker ended while tasks were looked up
        raise Refusal(503, f"not ready: {service.why_not()}", code="not_ready", retry_after=1)
    deadline = service.batcher.clock() + service.settings.deadline_seconds
    job = Job(tuple(asked), request.state.key, deadline)
    try:
        service.batcher.submit(job)
    except RefusedError as refused:
        service.metrics.refused.labels(refused.reason).inc()
        if refused.reason == "poison":
            told = "the worker ended twice while it had this very request, which is not tried again"
            raise Refusal(422, told, code="poison") from None
        told = f"{FULL[refused.reason]}: try again in {refused.seconds} s"
        raise Refusal(429, told, code="queue_full", retry_after=refused.seconds) from None
    return job


async def answers(request: Request, job: Job) -> dict[str, Answer]:
    """All answers of a job, by their ids.

    Raises:
        Refusal: if they do not come, or the client has gone.
    """
    service = service_of(request)
    return {str(one["id"]): one for one in await or_gone(request, _answers(service, job), service, job)}


async def _answers(service: Service, job: Job) -> list[Answer]:
    return [one async for one in events(service, job) if one["is"] == "answer"]


async def events(service: Service, job: Job) -> AsyncIterator[Answer]:
    """Pieces and answers, as they come.

    Raises:
        Refusal: if they do not.
    """
    try:
        async for one in service.events(job):
            if one["is"] == "answer":
                _count(service, one)
            yield one
    except Fault as fault:
        service.metrics.failed.labels(fault.reason).inc()
        later = 2 if STATUS[fault.reason] == 503 else None
        raise Refusal(STATUS[fault.reason], str(fault), code=fault.reason, retry_after=later) from None


async def or_gone(request: Request, work: Any, service: Service, job: Job) -> Any:
    """What a coroutine gives, unless the client goes away before; then its job is let go at once.

    Raises:
        Refusal: 499, which nobody reads.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        service.metrics.failed.labels("gone").inc()
        raise Refusal(499, "the client went away", code="gone")
    finally:
        if not working.done():
            service.batcher.cancel(job)
        for task in (working, leaving):
            task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def not_answered(answer: Answer, param: str) -> Refusal:
    """Why the engine did not answer: a fault of the request, or of the model."""
    ours = answer["code"] in OURS
    return Refusal(
        500 if ours else 422, str(answer["error"]), code="not_answered", param=None if ours else param
    )


def _count(service: Service, answer: Answer) -> None:
    service.metrics.answers.labels("error" if answer["error"] else answer["finish"]).inc()
    for kind in ("prompt_tokens", "virtual_tokens", "completion_tokens"):
        service.metrics.tokens.labels(kind.removesuffix("_tokens")).inc(answer[kind] or 0)
