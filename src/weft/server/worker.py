"""The process that holds the model. It asks the engine, step by step, and tells what came of it.

Messages are lines of JSON over one socket; the other end closed is the order to end. What breaks a step ends
the process: its parent starts a new one, whose state is sound.
"""

import json
import logging
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft.config.decoding import Decoding
from weft.data.chat import chat_of
from weft.errors import DataError, WeftError
from weft.server.opening import Opens
from weft.serving.requests import Request

BEAT = 0.5  # seconds between signs of life
IDLE = 1.0  # seconds that an idle worker waits for a message before it gives one
CHUNK = 1 << 16
log = logging.getLogger("weft.server")


class Line:
    """The worker's end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self._rest, self._beaten = end, b"", 0.0

    def messages(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What has come, after waiting so long for the first of it.

        Raises:
            EOFError: if the other end is closed.
        """
        while select.select([self.end], [], [], seconds)[0]:
            got = self.end.recv(CHUNK)
            if not got:
                raise EOFError
            *lines, self._rest = (self._rest + got).split(b"\n")
            yield from map(json.loads, lines)
            seconds = 0.0

    def tell(self, kind: str, **fields: Any) -> None:
        """Send one message."""
        self.end.sendall(json.dumps({"is": kind, **fields}).encode() + b"\n")

    def beat(self) -> None:
        """A sign of life, now and then."""
        if time.monotonic() - self._beaten >= BEAT:
            self._beaten = time.monotonic()
            self.tell("beat")


class Worker:
    """Loops of the open generations of a bank.

    Args:
        line: to the server.
        path: of the bank.
        opens: engines.
    """

    def __init__(self, line: Line, path: Path, opens: Opens) -> None:
        self.line, self.path, self.opens = line, path, opens
        self.engines: dict[int, Any] = {}
        self.loops: dict[int, Any] = {}

    def serve(self) -> None:
        """Until the server is gone."""
        while True:
            idle = all(loop.idle for loop in self.loops.values())
            for message in self.line.messages(IDLE if idle else 0.0):
                self._do(message)
            for loop in list(self.loops.values()):
                if not loop.idle:
                    self._step(loop)
            self.line.beat()

    def _step(self, loop: Any) -> None:
        for one in loop.step():
            fields = asdict(one)
            self.line.tell("answer" if "generation" in fields else "piece", **fields)

    def _do(self, message: dict[str, Any]) -> None:
        match message["do"]:
            case "ask":
                self._ask(message)
            case "drop":
                for loop in self.loops.values():
                    loop.drop(message["id"])
            case "open":
                self._open(message["generation"], message["test"])
            case "close":
                self.loops.pop(message["generation"], None)
                self.engines.pop(message["generation"], None)

    def _ask(self, message: dict[str, Any]) -> None:
        generation = message["generation"]
        try:
            requests = [request_of(one, self.engines[generation]) for one in message["requests"]]
        except WeftError as error:
            self.line.tell("refused", id=message["requests"][0]["id"], error=error.cause)
        else:
            self.loops[generation].add(requests)

    def _open(self, generation: int, test: dict[str, Any] | None) -> None:
        """Open a generation, let it answer once, and tell what it answered, or why it cannot be used."""
        try:
            engine = self.opens(self.path, generation, next(iter(self.engines.values()), None))
            tried = None if test is None else asdict(engine.generate([request_of(test, engine)])[0])
        except WeftError as error:
            self.line.tell("opened", generation=generation, error=error.as_dict())
            return
        self.engines[generation], self.loops[generation] = engine, engine.loop()
        self.line.tell("opened", generation=generation, error=None, tried=tried, chat=chats(engine))


def request_of(one: dict[str, Any], engine: Any) -> Request:
    """A question as the engine takes it.

    Raises:
        DataError: if the model's chat template refuses its messages.
    """
    fields = {**one, "decoding": Decoding(**one["decoding"]), "stop": tuple(one["stop"])}
    messages = fields.pop("messages", None)
    if messages is not None:
        fields["text"] = chat_text(engine, messages)
    return Request(**fields)


def chats(engine: Any) -> bool:
    """Whether the model's tokenizer has a template for chats."""
    return bool(getattr(engine.backbone.tokenizer, "chat_template", None))


def chat_text(engine: Any, messages: list[dict[str, str]]) -> str:
    """Messages as the text that the model's own template makes of them.

    Raises:
        DataError: with what the template says against them; if one holds signs that steer the model; or if
            they are more than the one text of which the bank's tasks make a turn themselves.
    """
    told = " ".join(one["content"] for one in messages)
    if steering := [token for token in engine.backbone.tokenizer.all_special_tokens if token in told]:
        raise DataError(f"a message holds {steering[0]!r}, which is no text for this model")
    if chat_of(engine.backbone.tokenizer) is not None:
        return only_text(messages)
    try:
        text = engine.backbone.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # a template is a program of the model's makers, and raises what it likes
        raise DataError(f"the model's chat template refuses these messages: {error}") from error
    assert isinstance(text, str)
    return text


def only_text(messages: list[dict[str, str]]) -> str:
    """The text of one user's message.

    Raises:
        DataError: for other messages.
    """
    if [one["role"] for one in messages] != ["user"]:
        raise DataError("this bank's tasks were trained on one message of the user: send that alone")
    return messages[0]["content"]


def main(end: socket.socket, path: Path, opens: Opens) -> None:
    """Entry of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server ends it, when its answers are out
        signal.signal(number, signal.SIG_IGN)
    line = Line(end)
    try:
        line.beat()
        Worker(line, path, opens).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
