"""Written answers in OpenAI's two forms, whole and as streams of events."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.server.jobs import Answer, Asked


@dataclass(frozen=True)
class Form:
    """Where text stands in one of the two forms.

    Attributes:
        prefix: of ids.
        whole: name of a whole reply.
        piece: name of an event.
        chat: whether text stands in messages.
    """

    prefix: str
    whole: str
    piece: str
    chat: bool

    def choice(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        """One whole answer."""
        said = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if self.chat
            else {"text": text}
        )
        return {"index": index, **said, "logprobs": None, "finish_reason": finish}

    def part(self, index: int, text: str, finish: str | None, *, first: bool) -> dict[str, Any]:
        """A part of an answer."""
        if not self.chat:
            return self.choice(index, text, finish)
        role = {"role": "assistant"} if first else {}
        delta = {**role, "content": text} if text or first else {}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


COMPLETION = Form("cmpl-", "text_completion", "text_completion", chat=False)
CHAT = Form("chatcmpl-", "chat.completion", "chat.completion.chunk", chat=True)


@dataclass
class Reply:
    """The reply to one request.

    Attributes:
        form: of it.
        asked: its questions, in the order of their choices.
        choices: questions to one prompt, which is counted once.
    """

    form: Form
    asked: Sequence[Asked]
    choices: int
    created: int = field(default_factory=lambda: int(time.time()))
    _begun: dict[str, str] = field(default_factory=dict)  # id -> what was told of it

    def head(self, kind: str) -> dict[str, Any]:
        """What whole replies and events begin with."""
        one = self.asked[0]
        return {
            "id": self.form.prefix + one.id,
            "object": kind,
            "created": self.created,
            "model": one.task,
            "system_fingerprint": f"{one.generation}-{one.sha256[:16]}",
        }

    def whole(self, found: dict[str, Answer]) -> dict[str, Any]:
        """All answers at once."""
        choices = [
            {
                **self.form.choice(index, found[one.id]["written"] or "", finish_of(found[one.id])),
                "cut": bool(found[one.id]["cut"]),
            }
            for index, one in enumerate(self.asked)
        ]
        return {**self.head(self.form.whole), "choices": choices, "usage": self.usage(found)}

    def event(self, one: Answer) -> dict[str, Any]:
        """A piece, or the end of an answer with what pieces have not told."""
        index = next(i for i, asked in enumerate(self.asked) if asked.id == one["id"])
        first, told = one["id"] not in self._begun, self._begun.get(one["id"], "")
        if one["is"] == "piece":
            text, finish, end = one["text"], None, {}
        else:
            text, finish = (one["written"] or "").removeprefix(told), finish_of(one)
            end = {"cut": bool(one["cut"])}
            text = text if (one["written"] or "").startswith(told) else ""  # told is told
        self._begun[one["id"]] = told + text
        choice = {**self.form.part(index, text, finish, first=first), **end}
        return {**self.head(self.form.piece), "choices": [choice]}

    def usage(self, found: dict[str, Answer]) -> dict[str, Any]:
        """Tokens read and written; those of the task's prompt are named beside, and not among them."""
        read = [found[one.id] for one in self.asked[:: self.choices]]
        prompt = sum(one["prompt_tokens"] or 0 for one in read)
        virtual = sum(one["virtual_tokens"] or 0 for one in read)
        written = sum(found[one.id]["completion_tokens"] or 0 for one in self.asked)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": 0, "virtual_tokens": virtual},
        }


def finish_of(answer: Answer) -> str:
    """Why an answer ended, in OpenAI's words."""
    return "length" if answer["finish"] == "length" else "stop"


def sse(body: Any) -> bytes:
    """One server-sent event."""
    told = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, allow_nan=False)
    return f"data: {told}\n\n".encode()
