"""Through the server: what an answer takes beside larger banks, and what overload does to those who ask."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from benchmarks import inputs, measure
from benchmarks.goals import Result, Settings
from benchmarks.serve import LENGTH, QUICK, SIZES, bank_of
from benchmarks.served import name_of
from benchmarks.server_process import serving
from weft.models import Backbone

TEXTS, TASKS = 32, 32
CLIENTS = 16  # of those that come at once
WAYS = {"one by one": 1, "at once": CLIENTS}  # and their clients
ASKED = {1: 48, CLIENTS: 192}  # requests of a round, about seven seconds either way
QUICK_SHARE = 8  # of them, a quick round has one in so many
TIMES, SECONDS, DEADLINE = 10, 8, 5  # overload: of what the server does, for how long, and what it promises
PATIENCE = 60.0
Reply = tuple[int, float, str]  # status, seconds, when to come again


def _bank(settings: Settings, backbone: Backbone, size: int, name: str) -> Path:
    """The folder of a bank with so many tasks."""
    served = bank_of(settings, backbone, name, dtype="bfloat16")
    served.grown(size).close()
    return served.folder


def _backbone(settings: Settings) -> Backbone:
    return inputs.load("smollm2", settings, length=4 if settings.quick else LENGTH)


def sizes(settings: Settings) -> list[Result]:
    """Servers of banks of any size, asked in turn: one request after the other, and many at once."""
    backbone = _backbone(settings)
    counts = QUICK if settings.quick else SIZES
    requests = {
        clients: asked // QUICK_SHARE if settings.quick else asked for clients, asked in ASKED.items()
    }
    texts = inputs.texts(settings, TEXTS)
    banks = {size: _bank(settings, backbone, size, f"http-{size}") for size in counts}
    with ExitStack() as servers:
        urls = {size: servers.enter_context(serving(path)) for size, path in banks.items()}
        arms = {
            f"{size:,} {way}": _round(url, size, texts, clients, requests[clients])
            for size, url in urls.items()
            for way, clients in WAYS.items()
        }
        seconds, _ = measure.interleave(arms, settings.rounds)
    return [
        _flat(
            seconds,
            counts,
            size,
            way,
            requests[WAYS[way]],
            "http-latency" if way == "one by one" else "http-throughput",
        )
        for way in WAYS
        for size in counts[1:]
    ]


def _flat(
    seconds: measure.Seconds, sizes: tuple[int, ...], size: int, way: str, asked: int, goal: str
) -> Result:
    """The time for a bank over that for one of a single task."""
    last = size == sizes[-1]
    own = {name: taken for name, taken in seconds.items() if name.endswith(way)}
    each = {name: 1000 * median(taken) / asked for name, taken in own.items()}
    told = "; ".join(f"{name.split()[0]} tasks {one:.0f} ms an answer" for name, one in each.items())
    said = f"{asked} requests of a text each, two answers, tasks drawn at random, {way}; {told}"
    return Result(
        goal if last else f"{way}: bank of {size:,} / of {sizes[0]:,}",
        measure.ratios(own, f"{size:,} {way}", f"{sizes[0]:,} {way}"),
        said if last else f"as {sizes[-1]:,}",
        own if last else {},
        unit="times",
    )


def _round(url: str, size: int, texts: list[str], clients: int, requests: int) -> Callable[[int], object]:
    """So many requests for tasks drawn at random; every size is asked the same texts in the same order."""
    draw = random.Random(size)

    def timed(number: int) -> object:
        asked = [(name_of(draw.randrange(size)), texts[i % len(texts)]) for i in range(requests)]
        return asyncio.run(_closed(url, asked, clients))

    return timed


async def _closed(url: str, asked: list[tuple[str, str]], clients: int) -> None:
    """Requests of clients who wait for each answer."""
    waiting = iter(asked)

    async def client(http: httpx.AsyncClient) -> None:
        for task, text in waiting:
            asked = {"model": task, "inputs": [text]}
            while (reply := await http.post("/v1/classify", json=asked)).status_code == 429:
                await asyncio.sleep(0.2)
            assert reply.status_code == 200, f"status {reply.status_code}"

    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))


def overload(settings: Settings) -> list[Result]:
    """Ten times as many requests as the server answers, whether it keeps up or not."""
    texts = inputs.texts(settings, TEXTS)
    path = _bank(settings, _backbone(settings), TASKS, "http-overload")
    refused: dict[str, list[float]] = {"median": [], "p99": []}
    facts: list[dict[str, Any]] = []
    threads = max(1, (os.cpu_count() or 2) - 1)  # a core for those who ask, and for the server's own process
    with serving(path, "--set", f"deadline_seconds={DEADLINE}", threads=threads) as url:
        for number in range(settings.rounds):
            rate = _rate(url, texts, number)
            seconds = 1 if settings.quick else SECONDS
            replies, lags = asyncio.run(_flood(url, texts, TIMES * rate, seconds))
            found = {**_judged(replies), "client's own delay, p99 ms": 1000 * quantiles(lags, n=100)[98]}
            facts.append({"answers a second": round(rate, 1), **found})
            refused["median"].append(found["median ms"])
            refused["p99"].append(found["p99 ms"])
    text = (
        f"{TIMES} times as many requests as the server answered just before, for {SECONDS} s, from this "
        f"machine; one core is left to them and the server's own process; deadline {DEADLINE} s"
    )
    late = [one["late"] for one in facts]
    return [
        Result("http-refused", refused["median"], text, checks={"rounds": facts}, unit="ms"),
        Result("same, 99 of 100", refused["p99"], text, unit="ms"),
        Result("overload: admitted, not answered in time", late, text, unit="count"),
    ]


def _rate(url: str, texts: list[str], seed: int) -> float:
    """Answers a second of clients who wait."""
    draw = random.Random(seed)
    asked = [(name_of(draw.randrange(TASKS)), draw.choice(texts)) for _ in range(ASKED[CLIENTS])]
    began = time.perf_counter()
    asyncio.run(_closed(url, asked, CLIENTS))
    return len(asked) / (time.perf_counter() - began)


async def _flood(url: str, texts: list[str], rate: float, seconds: float) -> tuple[list[Reply], list[float]]:
    """Requests at a fixed pace, whatever becomes of those before; and how late this process itself was."""
    draw, began, lags = random.Random(0), time.perf_counter(), list[float]()
    asks = []
    for i in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + i / rate - time.perf_counter()))
        lags.append(max(0.0, time.perf_counter() - began - i / rate))
        task = name_of(draw.randrange(TASKS))
        asks.append(asyncio.create_task(_plain(url, task, draw.choice(texts))))
    return await asyncio.gather(*asks), lags


async def _plain(url: str, task: str, text: str) -> Reply:
    """A request by a connection of its own: a pool's bookkeeping grows with what is open."""
    began, place = time.perf_counter(), httpx.URL(url)
    body = json.dumps({"model": task, "inputs": [text]}).encode()
    lines = ("POST /v1/classify HTTP/1.1", f"host: {place.host}", "content-type: application/json")
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "connection: close", "", ""])
    reader, writer = await asyncio.open_connection(place.host, place.port)
    writer.write(head.encode() + body)
    told = (await reader.read()).partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    writer.close()
    after = next((line.partition(": ")[2] for line in told if line.startswith("retry-after: ")), "")
    return int(told[0].split()[1]), time.perf_counter() - began, after


def _judged(replies: list[Reply]) -> dict[str, Any]:
    """Counts, and milliseconds of refusals; whoever is refused is told when to come again."""
    answered = [one for code, one, _ in replies if code == 200]
    refused = [one for code, one, _ in replies if code == 429]
    missed = sum(code == 503 for code, _, _ in replies)
    others = sorted({code for code, _, _ in replies} - {200, 429, 503})
    assert not others, f"statuses {others}"
    assert all(after.isdigit() and int(after) >= 1 for code, _, after in replies if code != 200)
    cuts = quantiles(refused, n=100) if len(refused) > 1 else [float("nan")] * 99
    return {
        "answered": len(answered),
        "refused": len(refused),
        "late": missed + sum(one > DEADLINE for one in answered),
        "median ms": 1000 * cuts[49],
        "p99 ms": 1000 * cuts[98],
    }
