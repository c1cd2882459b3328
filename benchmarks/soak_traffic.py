"""Clients of a soak: mixed requests, of which some are cancelled, and slow ones beside them."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.soak_oracle import NEW_TOKENS, Oracle

CANCELLED = 0.3  # of all requests
PAUSE = 1.0  # seconds that a refused client waits at most; it was told to wait longer
PATIENCE = 60.0  # seconds until a request counts as lost


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        counts: `answered`, `cancelled`, `refused N`, `lost`, `wrong`.
        faults: the first wrong and lost ones, in words.
        generations: that answered.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    generations: set[int] = field(default_factory=set)
    answers: int = 0

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def note(self, what: str, words: str = "") -> None:
        """Count one."""
        self.counts[what] += 1
        if words and len(self.faults) < 20:
            self.faults.append(f"{what}: {words}")


class Clients:
    """So many clients that ask one after the other.

    Args:
        url: of the server.
        oracle: knows what is right.
        tally: of what becomes of it.
        total: requests of all clients.
    """

    def __init__(self, url: str, oracle: Oracle, tally: Tally, total: int) -> None:
        self.url, self.oracle, self.tally, self.total = url, oracle, tally, total
        self.begun = 0

    async def run(self, clients: int) -> None:
        """Until all requests are over."""
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    async def _client(self, number: int) -> None:
        draw = random.Random(number)
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False) as http:
            while self.begun < self.total:
                self.begun += 1
                ask = draw.choices([self._classify, self._write, self._stream], [75, 15, 10])[0]
                asking = asyncio.create_task(ask(http, draw))
                if draw.random() < CANCELLED:
                    await asyncio.wait({asking}, timeout=draw.expovariate(1 / 0.03))
                    if not asking.done():
                        asking.cancel()
                        await asyncio.wait({asking})
                        self.tally.note("cancelled")
                        continue
                try:
                    await asking
                except (httpx.HTTPError, json.JSONDecodeError, KeyError) as error:
                    self.tally.note("lost", f"{type(error).__name__}: {error}")

    async def _classify(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        tasks = draw.sample(self.oracle.tasks, draw.choice([1, 1, 1, 1, 1, 2, 4, 8]))
        texts = draw.sample(self.oracle.texts, draw.choice([1, 1, 1, 2, 3]))
        asked: dict[str, Any] = {"model": tasks if len(tasks) > 1 else tasks[0], "inputs": texts}
        reply = await http.post("/v1/classify", json=asked)
        if await self._refused(reply):
            return
        data = reply.json()["data"]
        wanted = [(text, task) for text in texts for task in tasks]
        faults = [
            self.oracle.fault(task, text, one) if one["error"] is None else one["error"]
            for (text, task), one in zip(wanted, data, strict=True)
        ]
        self.tally.answers += len(data)
        self.tally.generations.add(reply.json()["generation"])
        self._judge(next((fault for fault in faults if fault), None), tasks)

    async def _write(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        task, text, body = self._writing(draw)
        reply = await http.post("/v1/completions", json=body)
        if await self._refused(reply):
            return
        told = reply.json()
        self._wrote(task, text, told, told["choices"][0]["text"])

    async def _stream(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        task, text, body = self._writing(draw)
        async with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
            if reply.status_code != 200:
                await reply.aread()
            if await self._refused(reply):
                return
            lines = [line.removeprefix("data: ") async for line in reply.aiter_lines() if line]
        parts = [json.loads(line) for line in lines if line != "[DONE]"]
        if "error" in parts[-1]:  # its worker was killed: said in the stream
            self.tally.note(f"refused {parts[-1]['error']['code']}")
        elif lines[-1] != "[DONE]":
            self.tally.note("lost", "a stream without an end")
        else:
            self._wrote(task, text, parts[0], "".join(part["choices"][0]["text"] for part in parts))

    def _writing(self, draw: random.Random) -> tuple[str, str, dict[str, Any]]:
        task, text = draw.choice(self.oracle.tasks), draw.choice(self.oracle.texts)
        return task, text, {"model": task, "prompt": text, "max_tokens": NEW_TOKENS}

    def _wrote(self, task: str, text: str, told: dict[str, Any], written: str) -> None:
        sha256 = told["system_fingerprint"].split("-")[1]
        self.tally.answers += 1
        fault = "the name of another task" if told["model"] != task else None
        self._judge(fault or self.oracle.wrote(task, text, sha256, written), [task])

    def _judge(self, fault: str | None, tasks: list[str]) -> None:
        self.tally.note("wrong" if fault else "answered", f"{fault} for {tasks}" if fault else "")

    async def _refused(self, reply: httpx.Response) -> bool:
        """Whether a request was refused; a refusal without a form of its own counts as lost."""
        if reply.status_code == 200:
            return False
        code = reply.json()["error"]["code"]
        known = reply.status_code in (429, 503) and "retry-after" in reply.headers
        self.tally.note(
            f"refused {code}" if known else "lost", "" if known else f"{reply.status_code} {code}"
        )
        if known:
            await asyncio.sleep(min(PAUSE, float(reply.headers["retry-after"])))
        return True


async def slow(url: str, stop: asyncio.Event) -> int:
    """Clients that drip their requests; how many connections the server has closed."""
    host, port = url.removeprefix("http://").split(":")
    closed = 0
    while not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
            for _ in range(30):
                writer.write(b"x: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.5)
                if reader.at_eof() or stop.is_set():
                    break
            writer.close()
        except OSError:
            pass
        closed += 1
    return closed
