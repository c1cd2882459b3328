"""Training steps with the memory of a step kept for the next one, and given back to the system each time."""

from benchmarks import apart, measure
from benchmarks.goals import Result, Settings

WAYS = {"kept": {}, "given back": {"GLIBC_TUNABLES": ""}}  # a user's setting, if an empty one: weft sets none


def run(settings: Settings) -> list[Result]:
    """What it is worth to keep freed memory, on a system whose C library is glibc."""
    steps = 1 if settings.quick else 5
    seconds: measure.Seconds = {way: [] for way in WAYS}
    for _ in range(settings.rounds):
        for way, environment in WAYS.items():
            seconds[way].append(apart.seconds(settings, steps, environment))
    ratios = measure.ratios(seconds, "given back", "kept")
    return [Result("freed memory kept", ratios, apart.TEXT.format(steps), seconds)]
