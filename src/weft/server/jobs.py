"""What is asked, pinned at its admission to one generation of the bank, and what comes back."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Answer = Mapping[str, Any]  # the fields of an engine's Response


@dataclass(frozen=True)
class Asked:
    """One answer that is wanted.

    Attributes:
        task: its name.
        generation: of the bank, that it was admitted with.
        sha256: of the task's numbers in that generation.
        content: fields of the engine's Request, without `id` and `task`.
        tokens: estimate of what the model reads and writes for it.
        id: never given again.
    """

    task: str
    generation: int
    sha256: str
    content: Mapping[str, Any]
    tokens: int
    id: str = field(default_factory=lambda: secrets.token_hex(12))

    def message(self) -> dict[str, Any]:
        """For the worker."""
        return {"id": self.id, "task": self.task, **self.content}

    def answered_by(self, answer: Answer) -> bool:
        """Whether an answer is of this very question: of its task, generation and numbers.

        An engine that refuses a question may not have come to know the latter two; it says nothing else then.
        """
        if answer.get("error") and not answer.get("probabilities") and not answer.get("written"):
            return (answer.get("id"), answer.get("task")) == (self.id, self.task)
        told = (answer.get("id"), answer.get("task"), answer.get("generation"), answer.get("sha256"))
        return told == (self.id, self.task, self.generation, self.sha256)


def content(
    *,
    row: Mapping[str, Any] | None = None,
    text: str | None = None,
    write: bool = False,
    max_tokens: int | None = None,
    decoding: Mapping[str, Any] = MappingProxyType({}),
    stop: Sequence[str] = (),
) -> dict[str, Any]:
    """Fields of the engine's Request, for `Asked`: a choice of a closed answer, if nothing else is said."""
    how = {"write": write, "max_tokens": max_tokens, "decoding": dict(decoding), "stop": list(stop)}
    return {"row": row, "text": text, **how}


class Fault(Exception):
    """Why a job has no answer.

    Args:
        reason: `expired`, `worker`, `mismatch`, `refused` or `closed`.
        message: for the one who asked.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(eq=False)
class Job:
    """One request of a client: what it asks goes to the engine together.

    Attributes:
        asked: one or more answers of one generation.
        key: whose request it is.
        deadline: on the batcher's clock.
        inbox: what has come back: pieces, answers, or the fault that ends it.
        suspect: whether a worker ended while it had the same questions.
        left: answers that have not come; 0 when the job is over.
    """

    asked: tuple[Asked, ...]
    key: str
    deadline: float
    inbox: "asyncio.Queue[Answer | Fault]" = field(default_factory=asyncio.Queue)
    suspect: bool = False
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.asked)

    @property
    def lane(self) -> str:
        """The task; of several, all of them together."""
        tasks = {one.task for one in self.asked}
        return next(iter(tasks)) if len(tasks) == 1 else "*"

    @property
    def rows(self) -> int:
        return len(self.asked)

    @property
    def tokens(self) -> int:
        return sum(one.tokens for one in self.asked)

    @property
    def generation(self) -> int:
        return self.asked[0].generation

    @property
    def mark(self) -> str:
        """The same for the same questions to the same tasks, whoever asks."""
        told = [[one.task, one.sha256, dict(one.content)] for one in self.asked]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
