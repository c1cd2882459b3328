"""An engine without a model, for tests of the server, on real banks: the answer of a task names the task.

Texts with the word `die`, `hang`, `slow` or `nan` do so. `WEFT_FAKE_STEP` is the seconds that a step takes;
`WEFT_FAKE_MUTANT` breaks the engine.
"""

import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tiny_bank import BASE, SHARED, factors, prompt

from weft import bank, storage
from weft.bank import Definition, Snapshot
from weft.bank.draft import Row
from weft.bank.writer import change
from weft.config.task import TaskSpec
from weft.errors import ArtifactError
from weft.serving.requests import Piece, Request, Response


def words_of(name: str) -> tuple[str, str]:
    """The answers of a closed task, which name it."""
    return f"{name}-yes", f"{name}-no"


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
        template = os.environ.get("WEFT_FAKE_CHAT") or None
        tokenizer = SimpleNamespace(
            chat_template=template, apply_chat_template=chat_template, all_special_tokens=["<end>"]
        )
        self.backbone = SimpleNamespace(tokenizer=tokenizer)

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
        read = len(text.split())
        counts = {"prompt_tokens": read, "virtual_tokens": entry.prompt_length}
        counts["cut"] = read > entry.source_tokens
        if request.write:
            words = f"{entry.name} says {text}".split()[: request.max_tokens]
            return made(
                written=" ".join(words),
                completion_tokens=len(words),
                answer=" ".join(words),
                finish="stop",
                **counts,
            )
        yes, no = words_of(entry.name)
        odds = {yes: float("nan") if "nan" in text else 0.75, no: 0.25}
        return made(answer=yes, probabilities=odds, label="1", completion_tokens=1, finish="choice", **counts)


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


def open_engine(path: Path, generation: int, other: Any) -> Engine:
    snapshot = bank.open(path).snapshot()
    if snapshot.generation != generation:
        raise ArtifactError("the bank went on", code="S18")
    if snapshot.names(prefix="unreadable"):
        raise ArtifactError("a shard's bytes are not those that were written", code="A10", fix="verify it")
    if snapshot.names(prefix="deadly"):
        os._exit(3)
    return Engine(snapshot)


def write_bank(path: Path, **tasks: Mapping[str, Any]) -> Path:
    """A bank with these tasks and no others, in one new generation.

    Keys of a task: `closed` (true), `source` ({text}), `numbers` (seed of its factors), `shares` (true).
    """
    if not (path / "manifest.json").exists():
        bank.create(path, BASE)
    before = bank.open(path).snapshot()
    gone = [name for name in before.names(limit=1000) if name not in tasks]
    rows = [row_of(name, told) for name, told in tasks.items()]
    change(path, [row for row in rows if is_new(row, before)], shared=SHARED, remove=gone, replace=True)
    return path


def row_of(name: str, told: Mapping[str, Any]) -> Row:
    yes, no = words_of(name)
    labels = {"1": yes, "0": no} if told.get("closed", True) else None
    task = TaskSpec(name="task", source=told.get("source", "{text}"), target="{y}", labels=labels)
    said = {"definition": Definition(task=task, source_tokens=20).text, "metrics": '{"accuracy":91.5}'}
    seed = zlib.crc32(f"{name} {told.get('numbers', 0)}".encode())
    return (factors if told.get("shares", True) else prompt)(name, seed, **said)


def is_new(row: Row, before: Snapshot) -> bool:
    names = before.names(prefix=row.name, limit=1)
    return names != [row.name] or before.find(row.name).sha256 != storage.sha256_bytes(row.data)
