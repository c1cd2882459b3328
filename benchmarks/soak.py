"""Mixed traffic for long, with reloads, kills, cancels and slow clients: nobody may get another's answer."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
from cyclopts import App, Parameter

from benchmarks import server_process, soak_oracle
from benchmarks.goals import Result, Settings
from benchmarks.soak_traffic import Clients, Tally, slow
from weft.bank.writer import change

REQUESTS, QUICK = 200_000, 2_000
CLIENTS, SLOW = 24, 8
KILL, RELOAD, SAMPLE = 60.0, 10.0, 5.0  # seconds between
CHANGED = 5  # tasks of a reload
MIB = 1 << 20
app = App(name="soak", result_action="return_value")


def run(settings: Settings) -> list[Result]:
    """The soak as a benchmark: what must be 0, and the server's memory at the end over that at a fifth."""
    found = asyncio.run(soak(settings.folder, QUICK if settings.quick else REQUESTS))
    text = (
        f"{found['requests']:,} mixed requests of {CLIENTS} clients, 30 % cancelled, to {found['tasks']} "
        f"tasks on a tiny model; {SLOW} slow ones, {found['kills']} kills, {found['reloads']} reloads"
    )
    return [
        Result("soak: wrong-task answers", [found["wrong"]], text, checks=found, unit="count"),
        Result("soak: lost requests", [found["lost"]], text, unit="count"),
        Result("soak: memory, end over begin", [found["memory"]], text),
    ]


@app.default
def main(
    folder: Path,
    *,
    requests: int = REQUESTS,
    seconds: float = 0.0,
    mutant: Annotated[str, Parameter(help="prompts, or answers: a server that is broken on purpose")] = "",
) -> None:
    """Run a soak by itself; exit code 1 if anything was wrong or lost.

    Args:
        folder: for its bank, new.
        requests: how many.
        seconds: after which no more are begun; 0: all of them are.
    """
    found = asyncio.run(soak(folder, requests, seconds=seconds, mutant=mutant))
    for name, value in found.items():
        print(f"{name}: {value}")
    raise SystemExit(1 if found["wrong"] or found["lost"] else 0)


async def soak(folder: Path, requests: int, *, seconds: float = 0.0, mutant: str = "") -> dict[str, Any]:
    """What became of so many requests."""
    path = folder / "bank"
    small = requests <= QUICK
    size = {"tasks": 40, "texts": 8} if small else {"tasks": 200, "texts": 20}
    oracle = soak_oracle.make(path, **size, versions=3, changing=20)
    options = ["PORT", mutant] if mutant else ["PORT"]
    process, url = await asyncio.to_thread(server_process.start, "benchmarks.soak_server", path, *options)
    tally, samples, events, stop = Tally(), list[int](), {"kills": 0, "reloads": 0}, asyncio.Event()
    clients = Clients(url, oracle, tally, requests)
    beside = [
        asyncio.create_task(work)
        for work in (
            _kills(process.pid, events, 5.0 if small else KILL),
            _reloads(path, oracle, events, 2.0 if small else RELOAD),
            _sampled(process.pid, samples),
            *(slow(url, stop) for _ in range(SLOW)),
        )
    ]
    began = time.monotonic()
    if seconds:
        asyncio.get_running_loop().call_later(seconds, lambda: setattr(clients, "total", 0))
    await clients.run(CLIENTS)
    took = time.monotonic() - began
    stop.set()
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    left = await _idle(url)
    await asyncio.to_thread(server_process.end, process)
    return {
        "requests": tally.requests,
        "answers": tally.answers,
        "wrong": tally.counts["wrong"],
        "lost": tally.counts["lost"],
        **dict(sorted(tally.counts.items())),
        **events,
        "generations": len(tally.generations),
        "tasks": len(oracle.tasks),
        "told apart": round(oracle.share, 4),
        "seconds": round(took, 1),
        "memory": _growth(samples),
        "MiB": [round(one / MIB) for one in samples[:: max(1, len(samples) // 8)]],
        "left running": left,
        "faults": tally.faults,
    }


async def _kills(server: int, events: dict[str, int], seconds: float) -> None:
    """End the worker, in turn by SIGKILL and by stopping it for good."""
    while True:
        await asyncio.sleep(seconds)
        if (worker := _worker(server)) is not None:
            os.kill(worker, signal.SIGSTOP if events["kills"] % 5 == 4 else signal.SIGKILL)
            events["kills"] += 1


def _worker(server: int) -> int | None:
    """The child of the server that holds the model: the one with the most memory."""
    children = Path(f"/proc/{server}/task").glob("*/children")
    pids = [int(word) for file in children for word in file.read_text().split()]
    return max(pids, key=_resident, default=None)


def _resident(pid: int) -> int:
    """Bytes of memory of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


async def _reloads(path: Path, oracle: soak_oracle.Oracle, events: dict[str, int], seconds: float) -> None:
    """Replace some tasks by other versions of them."""
    draw = random.Random(2)
    several = [rows for rows in oracle.rows.values() if len(rows) > 1]
    while True:
        await asyncio.sleep(seconds)
        rows = [draw.choice(versions) for versions in draw.sample(several, CHANGED)]
        await asyncio.to_thread(change, path, rows, shared=oracle.shared, replace=True)
        events["reloads"] += 1


async def _sampled(server: int, samples: list[int]) -> None:
    while True:
        samples.append(_resident(server))
        await asyncio.sleep(SAMPLE)


async def _idle(url: str) -> float:
    """Answers that the server still works on or holds when every client has left: it must come to 0."""
    async with httpx.AsyncClient(trust_env=False) as http:
        left = 1.0
        for _ in range(100):
            lines = (await http.get(f"{url}/metrics")).text.splitlines()
            names = ("weft_running_answers ", "weft_waiting_answers ")
            left = sum(float(line.split()[1]) for line in lines if line.startswith(names))
            if not left:
                break
            await asyncio.sleep(0.1)
        return left


def _growth(samples: list[int]) -> float:
    """The server's memory in the last fifth over that of the second one; 1 of a run too short to tell."""
    fifth = len(samples) // 5
    if not fifth:
        return 1.0
    return sum(samples[-fifth:]) / sum(samples[fifth : 2 * fifth])


if __name__ == "__main__":
    app()
