"""Training steps alone and beside a busy process, with threads that wait briefly, and as libgomp has them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import apart, measure
from benchmarks.goals import Result, Settings

LIBRARY = {"GOMP_SPINCOUNT": "300000"}  # as libgomp waits where nobody says how
WAYS = {"weft": {}, "libgomp": LIBRARY}


def run(settings: Settings) -> list[Result]:
    """How many times longer steps take beside a neighbour, and what the setting is worth there and alone."""
    steps = 1 if settings.quick else 5
    seconds: measure.Seconds = {f"{way}, {place}": [] for place in ("alone", "busy") for way in WAYS}
    for _ in range(settings.rounds):
        for way, environment in WAYS.items():
            seconds[f"{way}, alone"].append(apart.seconds(settings, steps, environment))
            with busy():
                seconds[f"{way}, busy"].append(apart.seconds(settings, steps, environment))
    text = f"{apart.TEXT.format(steps)}; the neighbour is one process that never rests"
    return [
        Result(name, measure.ratios(seconds, slow, fast), text, seconds, unit=unit)
        for name, slow, fast, unit in (
            ("beside a busy process / alone", "weft, busy", "weft, alone", "times"),
            ("same, threads wait as libgomp's do", "libgomp, busy", "libgomp, alone", "times"),
            ("waiting briefly, beside a process", "libgomp, busy", "weft, busy", "x"),
            ("waiting briefly, alone", "libgomp, alone", "weft, alone", "x"),
        )
    ]


@contextmanager
def busy() -> Iterator[None]:
    """Another process that uses all of a core."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()
