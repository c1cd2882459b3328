"""Whether the time of a step grows as batch times length does; with a plot."""

from pathlib import Path

import numpy as np

from benchmarks import inputs, measure, ours
from benchmarks.goals import Result, Settings
from weft.data.batch import Encoded
from weft.models.tuned import with_bank

PLOT = "performance-linear.png"


def run(settings: Settings) -> list[Result]:
    """Steps of every batch and length, a line through their times, and the farthest from it."""
    shape, length = ("tiny", 5) if settings.quick else ("small", 100)
    batches, texts = ((2, 4), (8, 16)) if settings.quick else ((8, 16, 32), (28, 92, 156))
    backbone = inputs.load(str(inputs.t5_folder(shape, settings.folder)), settings, length=length)
    model = with_bank(backbone, ours.bank(backbone, length))
    sizes = {f"{rows} x {length + text}": (rows, text) for rows in batches for text in texts}
    arms = {
        name: lambda i, rows=rows, text=text: ours.train(model, _rows(rows, text), rows)
        for name, (rows, text) in sizes.items()
    }
    seconds, _ = measure.interleave(arms, settings.rounds)
    tokens = np.array([rows * (length + text) for rows, text in sizes.values()], dtype=float)
    times = np.array([float(np.median(seconds[name])) for name in sizes])
    slope, start = np.polyfit(tokens, times, 1, w=1 / times)
    off = 100 * np.abs(times / (start + slope * tokens) - 1)
    plot(settings.folder / PLOT, tokens, times, slope, start)
    text = (
        f"t5-{shape} shape, prompt {length}, batches of {batches}, texts of {texts} tokens, all of one length"
    )
    found = {
        "seconds for 1,000 tokens": 1000 * slope,
        "seconds for none": start,
        "mean share off": off.mean(),
    }
    checks = {name: float(value) for name, value in found.items()}
    return [Result("linear", [float(off.max())], text, seconds, checks)]


def _rows(count: int, text: int) -> list[Encoded]:
    return [Encoded((5,) * text, (6, 7, inputs.END)) for _ in range(count)]


def plot(path: Path, tokens: np.ndarray, times: np.ndarray, slope: float, start: float) -> None:
    """Times of steps over batch x length, and the line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(tokens, times, "o", color="black")
    ends = np.array([0, tokens.max()])
    axes.plot(ends, start + slope * ends, color="gray")
    axes.set(
        xlabel="batch x (prompt + text), tokens", ylabel="seconds a step", ylim=(0, None), xlim=(0, None)
    )
    figure.savefig(path, dpi=120)
