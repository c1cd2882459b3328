"""A bank at 1, 1,000, 100,000 and 1,000,000 tasks: what opening it, looking a task up and adding one cost.

Tasks are of a prompt of 100 tokens of a model 768 wide, rank one, bfloat16; their numbers are drawn. One bank
grows from size to size. Names are in no order, every task has scores of its own, and a hundred come from one
run; ten text formats are shared out among them.
"""

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.goals import Result, Settings
from weft import bank, storage
from weft.bank import BaseFacts, Definition, verification
from weft.bank.compaction import compact
from weft.bank.draft import Row, Shared
from weft.bank.forms import Form, encoded
from weft.bank.manifest import Group
from weft.bank.writer import change
from weft.config.task import TaskSpec

LENGTH, WIDTH = 100, 768
SIZES, QUICK = (1, 1_000, 100_000, 1_000_000), (1, 50, 500)
LOOKUPS, ADDS, BLOCK = 2_000, 25, 4_096
FORM = Form("factors", (LENGTH, 1, WIDTH), "bfloat16")
OPENED = """
import sys, time
clock = time.perf_counter()
from weft import bank
snapshot = bank.open(sys.argv[1]).snapshot()
snapshot.prompt(snapshot.find(sys.argv[2]))
[most] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(time.perf_counter() - clock, most)
"""


def run(settings: Settings) -> list[Result]:
    """Bytes, seconds and milliseconds at every size, and how flat they are."""
    sizes = QUICK if settings.quick else SIZES
    folder = settings.folder / "bank"
    shared, texts = _shared(), _definitions()
    bank.create(folder, _base(), dtype="bfloat16")
    found, before, made = {}, 0, 0.0
    for size in sizes:
        clock = time.perf_counter()
        change(folder, _rows(before, size, *texts), shared=shared)
        made += time.perf_counter() - clock
        found[size] = _measured(folder, size, settings, texts[0])
        before = size
    return [*_results(found, sizes[-1], sizes[1]), *_whole(folder, sizes[-1], made)]


def _base() -> BaseFacts:
    digests = {name: storage.sha256_bytes(name.encode()) for name in ("base_hash", "embedding_hash")}
    return BaseFacts(name="drawn", model="drawn", **digests, tokenizer_hash="0" * 64, position="prefix")


def _shared() -> Shared:
    values = np.random.default_rng(0).normal(size=(LENGTH, WIDTH)).astype(np.float32)
    digest = storage.sha256_bytes(encoded(values, "float32"))
    return Shared({digest: values}, {digest: Group(kind="factors", arrays={"P*": digest})})


def _definitions() -> tuple[str, ...]:
    """The group, and ten text formats of two answers."""
    [group] = _shared().groups
    tasks = [
        TaskSpec(
            name="task", source=f"question {i}: {{text}}", target="{label}", labels={"0": "no", "1": "yes"}
        )
        for i in range(10)
    ]
    return (group, *(Definition(task=task, source_tokens=256).text for task in tasks))


def name_of(number: int) -> str:
    """Names whose order is not that in which they are added."""
    return f"customer-{number * 2654435761 % (1 << 32):08x}"


def _rows(first: int, end: int, group: str, *texts: str) -> Iterator[Row]:
    """Tasks with drawn factors near one, a block at a time."""
    for start in range(first, end, BLOCK):
        count = min(BLOCK, end - start)
        numbers = np.random.default_rng(start).normal(1, 0.1, size=(count, FORM.numbers))
        data = encoded(numbers, "bfloat16")
        for i in range(count):
            number, place = start + i, i * FORM.row_bytes
            scores = f'{{"accuracy":{50 + number % 5000 / 100}}}'
            said = (group, texts[number % len(texts)], scores, f"adapt-mpt-{number // 100:06d}")
            yield Row(name_of(number), FORM, data[place : place + FORM.row_bytes], *said)


def _measured(folder: Path, size: int, settings: Settings, group: str) -> dict[str, list[float]]:
    """What is measured at one size; adds are taken out again, so that the size stays."""
    draw = random.Random(size)
    names = [name_of(draw.randrange(size)) for _ in range(50 if settings.quick else LOOKUPS)]
    opened = bank.open(folder)
    snapshot = opened.snapshot()
    found: dict[str, list[float]] = {
        "lookup": _times(names, lambda name: snapshot.find(name)),
        "compose": _times(names[:200], lambda name: snapshot.prompt(snapshot.find(name))),
    }
    count = 3 if settings.quick else ADDS
    rows = list(_rows(10**9, 10**9 + count, group, _definitions()[1]))
    found["add"] = _times(rows, lambda row: change(folder, [row]))
    found["flush"] = _times(rows, lambda row: _flushed(settings.folder / "flushed", row.data))
    change(folder, remove=[row.name for row in rows])
    found["open"], found["memory"] = _opened(folder, name_of(0), 1 if settings.quick else 5)
    return found


def _times(values: list[object], work: Callable[[object], object]) -> list[float]:
    """Milliseconds of some work on each value."""
    found = []
    for value in values:
        clock = time.perf_counter()
        work(value)
        found.append(1e3 * (time.perf_counter() - clock))
    return found


def _flushed(path: Path, data: bytes) -> None:
    """What the disk needs for the least that can last: so many bytes behind a file."""
    storage.append_bytes(path, data, path.stat().st_size if path.exists() else 0)
    storage.flush_log(path)


def _opened(folder: Path, name: str, times: int) -> tuple[list[float], list[float]]:
    """Seconds until a task is composed in a new process, with all that it loads, and its megabytes."""
    each = []
    for _ in range(times):
        out = subprocess.run(
            [sys.executable, "-c", OPENED, str(folder), name], check=True, capture_output=True, text=True
        )
        seconds, memory = map(float, out.stdout.split())
        each.append((seconds, memory / 1024))
    return [one for one, _ in each], [one for _, one in each]


def _results(found: dict[int, dict[str, list[float]]], most: int, few: int) -> list[Result]:
    """The largest bank, and how much more it costs than a small one."""
    large, small = found[most], found[few]
    told = "; ".join(
        f"{size:,}: opened in {_mid(one['open']):.3f} s with {_mid(one['memory']):.0f} MB, looked up in "
        f"{_mid(one['lookup']):.3f} ms, added in {_mid(one['add']):.1f} ms"
        for size, one in found.items()
    )
    flush = f"one flush of the disk takes {_mid(large['flush']):.1f} ms there, and an add needs three"
    where = f"{most:,} tasks of {LENGTH} x {WIDTH}, rank one, bfloat16"
    return [
        Result(
            "bank-open",
            large["open"],
            f"{where}; new process with all that it loads, a task composed. At {told}",
        ),
        Result("bank-lookup", [_mid(large["lookup"])], f"{where}; random tasks, held against their hashes"),
        Result("bank-add", [_mid(large["add"])], f"{where}; one task, lasting; {flush}", large),
        Result(
            "bank: a lookup / among 1,000 tasks",
            [_mid(large["lookup"]) / _mid(small["lookup"])],
            f"time of a lookup among {most:,} tasks over that among {few:,}",
        ),
        Result(
            "bank: an add / to 1,000 tasks",
            [_mid(large["add"]) / _mid(small["add"])],
            f"time of an add to {most:,} tasks over that to {few:,}",
        ),
    ]


def _mid(values: list[float]) -> float:
    return statistics.median(values)


def _whole(folder: Path, most: int, made: float) -> list[Result]:
    """Bytes of the largest bank, and what is done to all of it."""
    rows = sum(path.stat().st_size for path in folder.glob("*.rows"))
    every = sum(path.stat().st_size for path in folder.iterdir())
    clock = time.perf_counter()
    assert verification.damage(folder) == []
    verified, clock = time.perf_counter() - clock, time.perf_counter()
    compact(folder)
    compacted = time.perf_counter() - clock
    after = sum(path.stat().st_size for path in folder.iterdir())
    with bank.open(folder).snapshot() as snapshot:
        assert len(snapshot) == most
    told = (
        f"{most:,} tasks: made in {made:.0f} s, verified in {verified:.0f} s, compacted in {compacted:.0f} s "
        f"(then {after / 1e9:.2f} GB), on {os.cpu_count()} cores that others used too"
    )
    return [
        Result("bank-rows", [rows / most / 1e3], f"bytes of shards for each of {most:,} tasks"),
        Result("bank-size", [every / most * 1e6 / 1e9], f"all files, for a million tasks; {told}"),
    ]
