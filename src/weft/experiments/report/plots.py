"""Plots of the report as SVG that stands inside an HTML page: text and axes take the colour of the page."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.experiments.lines import Line

Axes = Any
Curve = Sequence[tuple[float, float]]

INK = "#010203"  # becomes the colour of the page's text
OURS = "#3f8fdc"
GREY = "#8d9196"
COLOURS = (OURS, "#e0821f", "#2fa374", "#b274d8", "#dd5a68", GREY)
DASHES = ("-", "--", ":", "-.")
RINGS_BELOW = 0.28  # rows
WIDTH = 4.7  # inches; a phone shows it nearly at full size
LOWEST, HIGHEST, MARGIN = 0.0, 100.0, 2.0  # percent
CORRELATIONS = ("matthews", "pearson", "spearman")  # these go down to -100
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "weft",  # the same report for the same runs
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.5,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def scores_plot(table: Sequence[Line], place: int) -> str:
    """All scores on one target: a ring for each seed, a dot for the mean, a bar for the interval."""
    target = table[0].entries[place].target
    label = f"{target}: {table[0].entries[place].metric} of every method and seed"
    return svg(
        lambda axes: _draw_scores(axes, table, place), 0.9 + 0.34 * len(table), f"scores{place}", label
    )


def _draw_scores(axes: Axes, table: Sequence[Line], place: int) -> None:
    ends: list[float] = []
    for height, line in enumerate(table):
        entry, colour = line.entries[place], OURS if line.shares else INK
        if len(entry.scores) > 1 or entry.mean is None:
            axes.plot(
                entry.scores, [height + RINGS_BELOW] * len(entry.scores), "o", mfc="none", mec=colour, ms=4
            )
        if entry.mean is not None:
            half = entry.half or 0.0
            axes.errorbar(entry.mean, height, xerr=half, fmt="o", color=colour, ms=5, capsize=3)
            ends += [entry.mean - half, entry.mean + half]
        ends += entry.scores
    _score_axis(axes, ends, table[0].entries[place].metric)
    axes.set_yticks(range(len(table)), [line.label for line in table])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _score_axis(axes: Axes, ends: list[float], metric: str) -> None:
    """From the lowest to the highest value, but no further than the metric goes."""
    low, high = (min(ends), max(ends)) if ends else (LOWEST, HIGHEST)
    floor = -HIGHEST if metric in CORRELATIONS else LOWEST
    axes.set_xlim(max(low, floor) - MARGIN, min(high, HIGHEST) + MARGIN)
    axes.set_xlabel(f"{metric}, percent")
    axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.8)


def curves_plot(curves: Mapping[str, Curve], name: str, label: str) -> str:
    """Losses by step, on a logarithmic axis."""
    return svg(lambda axes: _draw_curves(axes, curves), 3.1, name, label)


def _draw_curves(axes: Axes, curves: Mapping[str, Curve]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for i, (name, curve) in enumerate(curves.items()):
        points = [(step, value) for step, value in curve if value > 0]  # 0 has no logarithm
        colour, dashes = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        axes.plot(
            *zip(*points, strict=True), dashes, color=colour, linewidth=1.6, label=name
        ) if points else None
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.8)
    axes.legend(fontsize=8.5)


def similarity_plot(values: NDArray[np.float64], names: Sequence[str], sources: int, label: str) -> str:
    """A heat map of cosines with its numbers; a gap parts the first `sources` names from the others."""
    size = 1.0 + 0.46 * len(names)
    return svg(lambda axes: _draw_similarity(axes, values, names, sources), size, "similarity", label)


def _draw_similarity(axes: Axes, values: NDArray[np.float64], names: Sequence[str], sources: int) -> None:
    axes.pcolormesh(values, cmap="RdBu_r", vmin=-1, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        colour = "#ffffff" if abs(value) > 0.6 else "#000000"
        text = f"{value:.2f}".replace("-", "−")
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8, color=colour)
    for draw in (axes.axhline, axes.axvline) if sources < len(names) else ():
        draw(sources, color="#000000", linewidth=1.5)
    places = np.arange(len(names)) + 0.5
    axes.set_xticks(places, names, rotation=40, ha="right")
    axes.set_yticks(places, names)
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0), aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def svg(draw: Callable[[Axes], None], height: float, name: str, label: str) -> str:
    """What `draw` draws, as an SVG element. No plotting state of the process is read or changed."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    out = StringIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the browser chooses the font
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), name, label)


def _inline(svg: str, name: str, label: str) -> str:
    """An SVG file as an element of a page: names of its own, no links, the page's colour, a title."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|\sxmlns(:\w+)?=\"[^\"]*\"", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg).replace("xlink:href", "href")
    svg = svg.replace(INK, "currentColor")
    title = escape(label)
    head = f'<svg role="img" aria-label="{title}"'
    return svg.replace("<svg", head, 1).replace(">", f"><title>{title}</title>", 1)
