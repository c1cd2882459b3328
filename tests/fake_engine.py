"""A bank and an engine for tests of the server: the answer of a task names the task. No model, no torch.

A bank is a folder with `N.json` for generation N: task name -> its settings. Texts with the word `die`,
`hang`, `slow` or `nan` do so. `WEFT_FAKE_STEP` is the seconds that a step takes; `WEFT_FAKE_MUTANT` breaks
the engine.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from weft.config.decoding import GREEDY, Decoding
from weft.config.task import TaskSpec
from weft.errors import ArtifactError, did_you_mean
from weft.server.contract import Sources, UnknownTaskError


@dataclass(frozen=True)
class Request:
    task: str
    row: Mapping[str, Any] | None
    text: str | None
    write: bool
    max_tokens: int | None = None
    decoding: Decoding = GREEDY
    stop: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Response:
    id: str
    task: str
    generation: int
    sha256: str
    answer: str | None = None
    written: str | None = None
    probabilities: dict[str, float] | None = None
    label: str | None = None
    finish: str = "choice"
    prompt_tokens: int = 0
    virtual_tokens: int = 0
    completion_tokens: int = 0
    cut: bool = False
    error: str | None = None
    code: str = ""


@dataclass(frozen=True)
class Piece:
    id: str
    text: str


@dataclass(frozen=True)
class Entry:
    name: str
    group: str
    sha256: str
    task: TaskSpec
    kind: str = "factors"
    prompt_length: int = 4
    metrics: dict[str, float] = field(default_factory=lambda: {"accuracy": 91.5})
    run: str = "adapt-fake"


def words_of(name: str) -> tuple[str, str]:
    """The answers of a closed task, which name it."""
    return f"{name}-yes", f"{name}-no"


class Snapshot:
    def __init__(self, path: Path, generation: int) -> None:
        self.generation, self.base = generation, SimpleNamespace(name="fake-base")
        file = path / f"{generation}.json"
        if not file.exists():
            raise ArtifactError(f"there is no generation {generation}", code="A01")
        self.tasks = json.loads(file.read_text())

    def find(self, name: str) -> Entry:
        if name not in self.tasks:
            raise UnknownTaskError(f"there is no task {name!r}", fix=did_you_mean(name, self.tasks))
        told = self.tasks[name]
        yes, no = words_of(name)
        labels = {"1": yes, "0": no} if told.get("closed", True) else None
        spec = TaskSpec(name=name, source=told.get("source", "{text}"), target="{label}", labels=labels)
        numbers = f"{name} {told.get('numbers', 0)}"
        return Entry(name, told.get("group", "all"), hashlib.sha256(numbers.encode()).hexdigest(), spec)

    def names(
        self, *, prefix: str = "", after: str = "", limit: int = 100, group: str | None = None
    ) -> list[str]:
        found = sorted(name for name in self.tasks if name.startswith(prefix) and name > after)
        return [name for name in found if group in (None, self.tasks[name].get("group", "all"))][:limit]

    def search(self, text: str, limit: int) -> list[str]:
        return sorted(name for name in self.tasks if text in name)[:limit]

    def __len__(self) -> int:
        return len(self.tasks)


class Bank:
    def __init__(self, path: Path) -> None:
        self.path = path
        if not list(path.glob("*.json")):
            raise ArtifactError("there is no bank here", where=str(path), fix="weft bank add", code="A01")

    @property
    def generation(self) -> int:
        return max(int(file.stem) for file in self.path.glob("*.json"))

    def snapshot(self) -> Snapshot:
        return Snapshot(self.path, self.generation)


class Loop:
    """One word a step."""

    def __init__(self, engine: "Engine") -> None:
        self.engine, self.rows = engine, {}

    @property
    def idle(self) -> bool:
        return not self.rows

    def add(self, requests: list[Request]) -> None:
        for request in requests:
            self.rows[request.id] = (request, self.engine.answer(request), 0)

    def drop(self, id: str) -> None:
        self.rows.pop(id, None)

    def step(self) -> list[Piece | Response]:
        time.sleep(float(os.environ.get("WEFT_FAKE_STEP", "0")))
        out: list[Piece | Response] = []
        for request, response, done in list(self.rows.values()):
            misbehave(request.text or "")
            words = (response.written or "").split(" ") if response.written else []
            if done < len(words):
                out.append(Piece(request.id, words[done] if done == 0 else f" {words[done]}"))
                self.rows[request.id] = (request, response, done + 1)
            else:
                out.append(response)
                del self.rows[request.id]
        return mutated(out)


class Engine:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.tokenizer = SimpleNamespace(
            chat_template=os.environ.get("WEFT_FAKE_CHAT") or None, apply_chat_template=chat_template
        )

    def loop(self) -> Loop:
        return Loop(self)

    def generate(self, requests: list[Request]) -> list[Response]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Response:
        entry = self.snapshot.find(request.task)
        made = partial(Response, request.id, entry.name, self.snapshot.generation, entry.sha256)
        if entry.task.name == "broken":
            return made(error="this task answers nothing")
        try:
            text = entry.task.source.format(**request.row) if request.row is not None else request.text
        except KeyError as missing:
            return made(error=f"the row has no {missing}")
        counts = {"prompt_tokens": len(text.split()), "virtual_tokens": entry.prompt_length}
        if request.write:
            words = f"{entry.name} says {text}".split()[: request.max_tokens]
            return made(written=" ".join(words), completion_tokens=len(words), finish="stop", **counts)
        yes, no = words_of(entry.name)
        odds = {yes: float("nan") if "nan" in text else 0.75, no: 0.25}
        return made(answer=yes, probabilities=odds, label="1", completion_tokens=1, **counts)


def chat_template(messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
    if messages[0]["role"] == "assistant":
        raise ValueError("a chat begins with the user")
    return " ".join(f"{one['role']}: {one['content']}" for one in messages)


def misbehave(text: str) -> None:
    if "die" in text.split():
        os._exit(9)
    if "hang" in text.split():
        time.sleep(1000)
    if "slow" in text.split():
        time.sleep(0.3)


def mutated(out: list[Any]) -> list[Any]:
    """Broken on purpose: answers that go to the next id, or that are of another task's numbers."""
    answers = [one for one in out if isinstance(one, Response)]
    match os.environ.get("WEFT_FAKE_MUTANT"):
        case "shift" if len(answers) > 1:
            ids = [one.id for one in answers]
            moved = [replace(one, id=ids[i - 1]) for i, one in enumerate(answers)]
            return [one for one in out if isinstance(one, Piece)] + moved
        case "swap" if len(answers) > 1:  # everything but what is said is right: no check of facts sees it
            said = [one.written for one in answers]
            moved = [replace(one, written=said[i - 1]) for i, one in enumerate(answers)]
            return [one for one in out if isinstance(one, Piece)] + moved
        case "other":
            return [replace(one, sha256="0" * 64) if isinstance(one, Response) else one for one in out]
    return out


def generation_of(snapshot: Snapshot) -> int:
    return snapshot.generation


def open_engine(path: Path, pin: int, other: Any) -> Engine:
    snapshot = Snapshot(path, pin)
    if any(told.get("unreadable") for told in snapshot.tasks.values()):
        raise ArtifactError(
            "a shard's bytes are not those that were written", code="A10", fix="weft bank verify"
        )
    if any(told.get("dead") for told in snapshot.tasks.values()):
        os._exit(3)
    return Engine(snapshot)


SOURCES = Sources(bank=Bank, pin=generation_of, engine=open_engine, request=Request)


def write_bank(path: Path, generation: int, **tasks: dict[str, Any]) -> Path:
    """One generation of a bank."""
    path.mkdir(parents=True, exist_ok=True)
    temporary = path / f"{generation}.tmp"
    temporary.write_text(json.dumps(tasks))
    temporary.rename(path / f"{generation}.json")
    return path


FIELDS = tuple(asdict(Response("", "", 0, "")))
