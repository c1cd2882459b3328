"""Plots of the whole table: what stands in them, and names that do not overlap."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reporting import check, fill, make_plan, quick_disk  # noqa: F401 - a fixture of that file

from weft import storage
from weft.errors import ArtifactError
from weft.experiments import lines, tables
from weft.experiments.report import overviews, parts, plots
from weft.experiments.report.html_page import page
from weft.runs import TENSORS, Run

OPTIM = {"lr": {"prompt": 0.1}, "steps": 4}
BANK = {"lr": {"shared": 0.1, "factors": 0.1}, "steps": 4}


def row(label, k, *, bank=False, **changes):
    method = {"name": "mpt"} if bank else {"name": "prompt_tuning"}
    shots = {"shots_total": k} if k else {}
    return {"label": label, "method": method, "optim": BANK if bank else OPTIM, **shots, **changes}


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=40))
def test_names_keep_their_order_and_do_not_overlap(heights):
    """Neighbours lie apart, all stay beside the axis, and a name with room around it stays where it is."""
    found = overviews.spread(heights)
    room = min(overviews.ROOM, 1 / len(heights))
    order = np.argsort(heights, kind="stable")
    assert (np.diff(np.array(found)[order]) >= room - 1e-6).all()
    assert min(found) >= -1e-6
    assert max(found) <= 1 + 1e-6


def test_names_with_room_stay_and_close_ones_part_around_their_middle():
    """By hand."""
    assert overviews.spread([0.9, 0.2, 0.5]) == [0.9, 0.2, 0.5]
    apart = overviews.ROOM / 2
    assert overviews.spread([0.5, 0.9, 0.5]) == pytest.approx([0.5 - apart, 0.9, 0.5 + apart])


@pytest.fixture
def drawn(tmp_path):
    """An experiment with two methods at three numbers of rows, one of all rows, and one of other steps."""
    rows = [row(f"PT, k = {k}", k) for k in (16, 4, 32)] + [row(f"MPT {k}", k, bank=True) for k in (4, 16)]
    rows += [row("all rows", None), row("long, k = 4", 4, optim={**OPTIM, "steps": 8})]
    plan = make_plan(targets=("urgency",), rows=rows, shots=None)
    fill(plan, tmp_path, {one["label"]: [60.0 + i, 62.0 + i, 64.0 + i] for i, one in enumerate(rows)})
    return plan, tmp_path, lines.lines(tables.collect(plan, tmp_path), plan)


def test_few_shot_curves_are_rows_that_differ_by_shots_alone(drawn):
    """Named by their labels without the number, in the order of the rows; other steps are another curve."""
    plan, _, table = drawn
    curves = overviews.few_shot_curves(table, plan)
    found = {name: [(shots, line.mean) for shots, line in curve] for name, curve in curves.items()}
    assert found == {"PT": [(4, 63.0), (16, 62.0), (32, 64.0)], "MPT": [(4, 65.0), (16, 66.0)]}


def test_the_page_has_the_plots_that_there_is_something_for(drawn):
    """Names of all curves and methods as text, MPT in its colour; no empty plots."""
    plan, root, table = drawn
    html = page(plan, root, None)
    check(html)
    for title in ("Score against trained numbers", "Few-shot curves", "Distance from MPT 4"):
        assert f"<h2>{title}</h2>" in html
    curves = overviews.curves_plot(overviews.few_shot_curves(table, plan))
    assert re.findall(r">(PT|MPT|long)<", curves) == ["PT", "MPT"]
    assert plots.OURS in curves
    sizes = overviews.sizes_plot(table)
    assert all(f">{line.label}<" in sizes for line in table)


@pytest.mark.parametrize(
    ("sizes", "shown"), [((1_500.0, 6_000.0), ["2K", "5K"]), ((600.0, 2e6), ["1K", "10K", "100K", "1M"])]
)
def test_the_axis_of_trained_numbers_has_numbers(drawn, sizes, shown):
    """Within one decade as over several."""
    _, _, table = drawn
    two = [replace(line, parameters=size) for line, size in zip(table, sizes, strict=False)]
    found = re.findall(r">(\d+[KM]?)</text>", overviews.sizes_plot(two))
    assert [text for text in found if text in shown] == shown


def test_runs_without_logs_have_no_curves(tmp_path):
    """As runs that were passed on: a plot with nothing in it warns, and shows nothing."""
    plan = make_plan(targets=("urgency",), rows=[row("MPT", 4, bank=True)], shots=None)
    fill(plan, tmp_path, {"MPT": [60.0, 62.0, 64.0]})
    source = Run(tmp_path / plan.source)
    assert source.done
    assert "<svg" in parts.losses(plan, tmp_path)
    logs = [*tmp_path.glob("*/metrics.jsonl")]
    for folder in {path.parent for path in logs}:
        (folder / "metrics.jsonl").unlink()
        storage.seal(folder, [name for name in storage.names(folder) if name != "metrics.jsonl"])
    bare = parts.losses(plan, tmp_path)
    assert "<svg" not in bare
    assert parts.UNLOGGED in bare


def test_runs_without_prompts_have_no_map(tmp_path):
    """As runs that were passed on: the page says so, and all else is there; what asks for them is told."""
    plan = make_plan(targets=("urgency",), rows=[row("MPT", 4, bank=True)], shots=None)
    fill(plan, tmp_path, {"MPT": [60.0, 62.0, 64.0]})
    assert parts.PROMPTLESS not in page(plan, tmp_path, None)
    trained = Run(tmp_path / plan.cells[0].trained)
    storage.seal(trained.path, [name for name in storage.names(trained.path) if name != TENSORS])
    bare = page(plan, tmp_path, None)
    check(bare)
    assert parts.PROMPTLESS in bare
    with pytest.raises(ArtifactError, match="remove the folder"):
        trained.tensors()


def test_nothing_to_compare_gives_no_plot(tmp_path):
    """One row that trains, without MPT."""
    plan = make_plan(targets=("urgency",), rows=[row("PT", None)])
    fill(plan, tmp_path, {"PT": [60.0, 62.0, 64.0]})
    assert overviews.sections(lines.lines(tables.collect(plan, tmp_path), plan), plan) == []


def test_bars_are_of_every_row_but_the_reference(drawn):
    """A row that is not compared has no bar."""
    _, _, table = drawn
    gaps = overviews.gaps_plot(table, "MPT 4")
    assert ">MPT 4<" not in gaps
    assert all(f">{line.label}<" in gaps for line in table if line.label != "MPT 4")
