"""Plots of the whole table: score against trained numbers, few-shot curves, distance from a reference row."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from weft import storage
from weft.experiments.config import Entry
from weft.experiments.differences import compared
from weft.experiments.lines import Line
from weft.experiments.report import parts as parts
from weft.experiments.report import plots as plots

if TYPE_CHECKING:  # weft.experiments.jobs loads torch
    from weft.experiments.jobs import Plan

Axes = plots.Axes
Curve = list[tuple[int, Line]]  # training rows -> the line of the table
SHOTS = re.compile(r",? *(k *= *)?\d+$")  # at the end of a label
ROOM = 0.07  # of the axis, most between names that stand below one another


def sections(table: Sequence[Line], plan: "Plan") -> list[str]:
    """The plots that an experiment gives something for."""
    curves = few_shot_curves(table, plan)
    sized = [line for line in table if line.mean is not None and line.parameters]
    found = []
    if len(sized) > 1:
        said = "Average over targets; on the axis below the numbers that a task trains. MPT is blue."
        figure = parts.figure(sizes_plot(sized), said)
        found.append(parts.section("Score against trained numbers", figure))
    if curves:
        said = "Average over targets by training rows of a target, with the 95 % interval over seeds."
        found.append(parts.section("Few-shot curves", parts.figure(curves_plot(curves), said)))
    if compared(table):
        label = str(plan.experiment.compared_with)
        figure = parts.figure(gaps_plot(table, label), f"Difference from {label}, with its 95 % interval.")
        found.append(parts.section(f"Distance from {label}", figure))
    return found


def few_shot_curves(table: Sequence[Line], plan: "Plan") -> dict[str, Curve]:
    """Rows that differ by their shots alone, by their labels without the number; a curve has two or more."""
    by_label = {line.label: line for line in table}
    alike: dict[str, list[Entry]] = {}
    for row in plan.experiment.rows:
        if row.shots or row.shots_total:
            settings = row.model_dump(mode="json", exclude={"label", "shots", "shots_total"})
            per_answer = row.shots is not None
            alike.setdefault(storage.sha256_json([settings, per_answer]), []).append(row)
    curves = {}
    for rows in alike.values():
        known = [(row.shots or row.shots_total or 0, by_label[row.label]) for row in rows]
        done = [(shots, line) for shots, line in known if line.mean is not None]
        name = SHOTS.sub("", rows[0].label)
        if len(done) > 1:
            curves[name or rows[0].method.title] = sorted(done, key=lambda pair: pair[0])
    return curves


def sizes_plot(table: Sequence[Line]) -> str:
    """Averages by trained numbers of a task, on a logarithmic axis; names at the right are joined to dots."""
    label = "average score against trained numbers of a task"
    return plots.svg(lambda axes: _draw_sizes(axes, table), 1.2 + 0.22 * len(table), "sizes", label)


def _draw_sizes(axes: Axes, table: Sequence[Line]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for line in table:
        colour = plots.OURS if line.shares else plots.INK
        axes.errorbar(
            line.parameters, line.mean, yerr=line.half or 0.0, fmt="o", color=colour, ms=5, elinewidth=0.8
        )
    axes.set_xscale("log")
    counts = [line.parameters or 1.0 for line in table]
    wide = max(counts) > 100 * min(counts)  # else a power of ten may stand nowhere on the axis
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="trained numbers of a task", ylabel="average, percent")
    axes.grid(color=plots.INK, alpha=0.15, linewidth=0.8)
    axes.margins(x=0.08, y=0.08)
    low, high = axes.get_ylim()
    places = spread([((line.mean or 0.0) - low) / (high - low) for line in table])
    for line, place in zip(table, places, strict=True):
        colour = plots.OURS if line.shares else plots.INK
        axes.annotate(
            line.label,
            xy=(line.parameters, line.mean),
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            color=colour,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": colour,
                "alpha": 0.35,
                "linewidth": 0.7,
            },
        )


def _short(value: float) -> str:
    """`100`, `1K`, `10M`."""
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:,g}{unit}"
    return f"{value:g}"


def spread(heights: Sequence[float]) -> list[float]:
    """Heights moved apart, as little as that takes, so that they keep their order and stay within 0 and 1.

    Those that would touch become a block around their middle; blocks that touch become one.
    """
    room, order = min(ROOM, 1 / len(heights)), np.argsort(heights, kind="stable")
    blocks: list[tuple[float, int]] = []  # middle, how many
    for place in order:
        blocks.append((float(np.clip(heights[place], 0, 1)), 1))
        while len(blocks) > 1 and _touch(blocks[-2], blocks[-1], room):
            (low, m), (high, n) = blocks[-2:]
            half = room * (m + n - 1) / 2
            blocks[-2:] = [(float(np.clip((low * m + high * n) / (m + n), half, 1 - half)), m + n)]
    found = [middle + room * (i - (count - 1) / 2) for middle, count in blocks for i in range(count)]
    placed = dict(zip(order.tolist(), found, strict=True))
    return [placed[i] for i in range(len(heights))]


def _touch(below: tuple[float, int], above: tuple[float, int], room: float) -> bool:
    """Whether two blocks of names overlap."""
    return above[0] - below[0] < room * (below[1] + above[1]) / 2 - 1e-9


def curves_plot(curves: dict[str, Curve]) -> str:
    """Averages by training rows, a line for each method."""
    label = "average score by training rows"
    return plots.svg(lambda axes: _draw_curves(axes, curves), 3.4, "shots", label)


def _draw_curves(axes: Axes, curves: dict[str, Curve]) -> None:
    from matplotlib.ticker import NullLocator

    ticks = sorted({shots for curve in curves.values() for shots, _ in curve})
    others = iter(range(len(curves)))
    for i, (name, curve) in enumerate(curves.items()):
        colour, style = _look(0 if curve[0][1].shares else next(others) + 1)
        x, y = [shots for shots, _ in curve], [line.mean for _, line in curve]
        moved = np.array(x) * 2 ** (0.03 * (i - (len(curves) - 1) / 2))  # so that bars do not hide each other
        axes.errorbar(
            moved, y, yerr=[line.half or 0.0 for _, line in curve], fmt=f"o{style}", ms=4, capsize=2,
            linewidth=1.5, color=colour, label=name,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.set(xlabel="training rows of a target", ylabel="average, percent")
    axes.grid(axis="y", color=plots.INK, alpha=0.15, linewidth=0.8)
    axes.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def _look(number: int) -> tuple[str, str]:
    """Colour and dashes of a curve: MPT's, with number 0, is blue and solid."""
    rest = plots.COLOURS[1:]
    if not number:
        return plots.OURS, plots.DASHES[0]
    return rest[(number - 1) % len(rest)], plots.DASHES[(number - 1) // len(rest) % len(plots.DASHES)]


def gaps_plot(table: Sequence[Line], label: str) -> str:
    """Bars of every row's distance from the reference row, of the average over targets."""
    known = [line for line in table if line.average.against is not None]
    title = f"difference of every row from {label}"
    return plots.svg(lambda axes: _draw_gaps(axes, known), 0.9 + 0.26 * len(known), "gaps", title)


def _draw_gaps(axes: Axes, table: Sequence[Line]) -> None:
    for height, line in enumerate(table):
        gap = line.average.against
        assert gap is not None
        colour = plots.OURS if line.shares else plots.GREY
        axes.barh(height, gap.mean, height=0.62, color=colour, alpha=0.75)
        axes.plot([gap.low, gap.high], [height, height], color=plots.INK, linewidth=1.3)
    axes.axvline(0, color=plots.INK, linewidth=1)
    axes.set_yticks(range(len(table)), [line.label for line in table])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel("points")
    axes.grid(axis="x", color=plots.INK, alpha=0.15, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
