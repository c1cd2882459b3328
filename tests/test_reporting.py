"""Reports of made-up runs: numbers against numpy and scipy, gaps, sentences, and the page itself."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
import torch
from scipy import stats

from weft import runs, storage
from weft.config.describe import to_yaml
from weft.config.task import TaskSpec
from weft.errors import ArtifactError
from weft.experiments import jobs, lines, notes, results, tables
from weft.experiments.config import Experiment
from weft.experiments.report import html_page, plots
from weft.experiments.report.html_page import page
from weft.runs import Run
from weft.runs.config import EvaluateRun, SourceRun
from weft.storage import durable

LENGTH, WIDTH = 4, 6
ANSWERS = ["yes", "no"]
SCORES = {
    "majority": [50.0],
    "prompt tuning": [70.0, 74.0, 78.0],
    "SPoT": [72.0, 75.0, 75.0],
    "MPT": [80.0, 82.0, 87.0],
    "MPT nearest": [79.0, 79.5, 80.0],
}


def make_plan(
    *,
    targets=("urgency", "banking", "formality"),
    seeds=(0, 1, 2),
    metrics=("accuracy",),
    opened=(),
    **settings,
):
    """The plan of a small experiment, with names made without a base model; `opened` targets are open."""
    optim = {"lr": {"prompt": 0.1}, "steps": 4}
    bank = {"lr": {"shared": 0.1, "factors": 0.1}, "steps": 4}
    values = {
        "name": "small",
        "title": "Small & <made up>",
        "prompt": {"length": LENGTH},
        "tasks": ["tasks"],
        "sources": ["topic", "spam"],
        "targets": targets,
        "shots": 16,
        "seeds": seeds,
        "teachers": {"optim": optim},
        "source": {"optim": bank},
        "rows": [
            {"label": "majority", "method": {"name": "majority"}},
            {"label": "prompt tuning", "method": {"name": "prompt_tuning"}, "optim": optim},
            {"label": "SPoT", "method": {"name": "prompt_tuning", "start": "nearest"}, "optim": optim},
            {"label": "MPT", "method": {"name": "mpt"}, "optim": bank},
            {"label": "MPT nearest", "method": {"name": "mpt", "start": "nearest"}, "optim": bank},
        ],
        **settings,
    }
    experiment = Experiment.model_validate(values)
    specs = {name: task_spec(name, metrics) for name in (*experiment.sources, *experiment.targets)}
    specs |= {name: specs[name].model_copy(update={"labels": None}) for name in opened}
    return jobs.plan(experiment, specs, name_of)


def task_spec(name, metrics):
    labels = {word: word for word in ANSWERS}
    return TaskSpec(name=name, source="{text}", target="{label}", labels=labels, metrics=metrics)


def name_of(config):
    return runs.run_id(config, storage.sha256_json(config.model_dump(mode="json")))


def fill(plan, root, scores=None, *, skip=(), texts=("a text",), seen=(), written=40.0, silent=()):
    """Run folders of a plan, all but those skipped; `scores` gives row -> score of each seed.

    Rows in `silent` write no answers.
    """
    cells = {cell.run: cell for cell in plan.cells}
    for job in plan.jobs:
        if job.id in skip:
            continue
        run = Run(root / job.id)
        run.write("config.yaml", to_yaml(job.config))
        env = {"format": 1, "run": run.id, "base": "made up", "dtype": "float32", "versions": {"weft": "0"}}
        known = [task.name for task in job.config.tasks if task.name in seen]
        run.write_json("env.json", {**env, "seen_in_pretraining": known} if known else env)
        if isinstance(job.config, EvaluateRun):
            cell = cells[job.id]
            wrote = None if cell.row in silent else {"score": written}
            write_scores(run, job.config, score_of(plan, cell, scores or SCORES), texts, wrote)
        else:
            write_training(run, job.config)
        storage.seal(run.path, run.files)


def score_of(plan, cell, scores):
    """A row's score; every target lies one point above the one before."""
    row = scores[cell.row]
    score = row[plan.experiment.seeds.index(cell.seed)] if len(row) > 1 else row[0]
    return None if score is None else score + plan.experiment.targets.index(cell.target)


def write_scores(run, config, score, texts, wrote):
    """Sorted keys put `accuracy` first; the metric of the task need not be that one."""
    task = config.tasks[0]
    metrics = dict.fromkeys(("accuracy", "f1_macro"), 1.0) | {task.metrics[0]: score}
    written = wrote and dict.fromkeys(metrics, wrote["score"])
    found = {"rows": 120, "metrics": metrics, "written": written, "unparsable": wrote and 0.0}
    run.write_json("result.json", {"scores": {task.name: found}, "split": "test"})
    run.write_json("timing.json", {"seconds": 1.0})
    run.write("predictions.jsonl", "".join(prediction(task.name, i, text) for i, text in enumerate(texts)))


def prediction(task, row, text):
    shares = {"yes": 0.75, "no": 0.25}
    said = {"answer": ("yes", "maybe")[row % 2], "written": "yes"}  # wrong, and not always the same
    answer = {"text": text, "references": ["no"], **said, "probabilities": shares}
    return json.dumps({"task": task, "row": row, **answer}) + "\n"


def write_training(run, config):
    names = [task.name for task in config.tasks]
    draw = torch.Generator().manual_seed(len(run.id) + config.seed)
    K = len(names)
    shapes = {"prompts": (K, LENGTH, WIDTH)}
    if isinstance(config, SourceRun) or getattr(config, "source", None):
        shapes = {"shared": (LENGTH, WIDTH), "u": (K, LENGTH, 1), "v": (K, 1, WIDTH)}
    run.save_tensors({name: torch.randn(shape, generator=draw) for name, shape in shapes.items()})
    log = [{"step": i, "loss": 3 / i, "lm": 2 / i, "logits": 1 / i, "hidden": 0.0} for i in range(1, 5)]
    run.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    result = {
        "tasks": names,
        "steps": 4,
        "best_step": 2,
        "dev": 61.5,
        "dev_scores": [[2, 61.5]],
        "trained_parameters": 12345 * K,
        "parameters_per_task": 12345.0,
        "rows": {name: {"train": 32, "cut": 1} for name in names},
    }
    run.write_json("result.json", result)
    run.write_json("timing.json", {"seconds": 2.0 + config.seed})


@pytest.fixture(autouse=True, scope="module")
def quick_disk():
    """These runs need not outlive a power cut, and there are many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable.os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished experiment in which MPT wins: its plan, root and entries."""
    plan, root = make_plan(), tmp_path_factory.mktemp("done")
    fill(plan, root, texts=["fine", "<script>alert(1)</script> & more"])
    return plan, root, tables.collect(plan, root)


def entry(entries, row, target):
    return next(one for one in entries if (one.row, one.target) == (row, target))


def line(entries, plan, label):
    return next(one for one in lines.lines(entries, plan) if one.label == label)


def half(scores):
    """Half the width of the 95 % interval, as scipy gives it."""
    low, high = stats.t.interval(0.95, len(scores) - 1, np.mean(scores), stats.sem(scores))
    return pytest.approx((high - low) / 2)


def evaluation(plan, row, target, seed):
    return next(cell for cell in plan.cells if (cell.row, cell.target, cell.seed) == (row, target, seed)).run


# numbers


def test_means_and_intervals_equal_scipy(done):
    _, _, entries = done
    one, scores = entry(entries, "MPT", "banking"), [81.0, 83.0, 88.0]
    assert (one.scores, one.seeds, one.rows) == (tuple(scores), (0, 1, 2), 120)
    assert one.mean == pytest.approx(np.mean(scores))
    assert one.half == half(scores)
    assert (one.written, one.parameters, one.seconds) == (40.0, 12345.0, pytest.approx(3.0))
    assert (one.missing, one.undefined, one.dtype) == (0, 0, "float32")


def test_the_average_is_taken_over_targets_for_each_seed_first(done):
    plan, _, entries = done
    found, scores = line(entries, plan, "prompt tuning"), [71.0, 75.0, 79.0]
    assert found.average.scores == pytest.approx(tuple(scores))
    assert found.mean == pytest.approx(75.0)
    assert found.half == half(scores)


def test_what_does_not_train_counts_once_and_has_no_interval(done):
    plan, _, entries = done
    one = entry(entries, "majority", "urgency")
    assert (one.scores, one.mean, one.half, len(one.runs)) == ((50.0,), 50.0, None, 1)
    assert (one.parameters, one.seconds) == (None, None)
    assert tables.cost_texts(line(entries, plan, "majority")) == ("none", "none")


def test_one_seed_has_no_interval(tmp_path):
    plan = make_plan(targets=("urgency",), seeds=(5,))
    fill(plan, tmp_path)
    entries = tables.collect(plan, tmp_path)
    assert (entry(entries, "MPT", "urgency").half, line(entries, plan, "MPT").half) == (None, None)
    assert "seed 5 alone, so without an interval" in tables.table_text(entries, plan)
    assert "MPT is 10.0 points above prompt tuning from scratch (a single seed says little)." in (
        tables.verdict(entries, plan)
    )


def test_the_main_metric_is_the_task_s_first_although_results_are_sorted(tmp_path):
    plan = make_plan(targets=("urgency",), metrics=("f1_macro", "accuracy"))
    fill(plan, tmp_path)
    one = entry(tables.collect(plan, tmp_path), "MPT", "urgency")
    assert (one.metric, one.scores) == ("f1_macro", (80.0, 82.0, 87.0))


def test_a_task_that_the_base_model_has_seen_is_in_no_average(tmp_path):
    """Its scores stand with a mark; averages and their intervals are of the others; a note says so."""
    plan = make_plan()
    fill(plan, tmp_path, seen=("banking",))
    entries = tables.collect(plan, tmp_path)
    seen = {one.target: one.seen for one in entries}
    assert seen == {"urgency": False, "banking": True, "formality": False}
    found = line(entries, plan, "MPT")
    assert found.entries[1].mean == pytest.approx(83 + 1)
    assert found.average.scores == pytest.approx([80 + 1, 82 + 1, 87 + 1])  # of targets 0 and 2 points above
    text = " ".join(tables.table_text(entries, plan).split())
    assert "banking †" in text
    assert "† The base model was trained on data of banking before: left out of averages." in text
    assert "banking † | banking †, written" in tables.table_markdown(entries, plan)


def test_where_every_task_was_seen_there_is_no_average(tmp_path):
    """A dash, and scores all the same."""
    plan = make_plan(targets=("urgency",))
    fill(plan, tmp_path, seen=("urgency",))
    found = line(tables.collect(plan, tmp_path), plan, "MPT")
    assert (found.mean, found.half, found.average.scores, found.entries[0].mean) == (None, None, (), 83.0)


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory):
    """An experiment in which Matthews is undefined for one seed of MPT, and accuracy for none."""
    plan, root = make_plan(targets=("urgency",), metrics=("matthews",)), tmp_path_factory.mktemp("collapsed")
    fill(plan, root, {**SCORES, "MPT": [61.0, None, 58.0]})
    return plan, root, tables.collect(plan, root)


def test_an_undefined_score_counts_as_0(collapsed):
    """A seed that gives one answer to all rows: published tables count its Matthews correlation as 0."""
    plan, root, entries = collapsed
    one, scores = entry(entries, "MPT", "urgency"), [61.0, 0.0, 58.0]
    assert (one.scores, one.seeds, one.undefined) == (tuple(scores), (0, 1, 2), 1)
    assert round(one.mean, 1) == 39.7
    assert one.mean == pytest.approx(np.mean(scores))
    assert one.half == half(scores)
    found = line(entries, plan, "MPT")
    assert (found.average.scores, found.mean, found.half) == (tuple(scores), one.mean, one.half)
    stored = Run(root / evaluation(plan, "MPT", "urgency", 1)).result()["scores"]["urgency"]
    assert stored["metrics"]["matthews"] is None


def test_an_undefined_score_is_marked_in_every_table(collapsed):
    """Text, Markdown, CSV and page: a mark at the cell and at the average, and a note of how many seeds."""
    plan, root, entries = collapsed
    shown = score = f"39.7 ± {entry(entries, 'MPT', 'urgency').half:.1f} ‡"
    note = "‡ Counts as 0 where the metric is undefined: MPT on urgency (1 of 3 seeds)."
    text = tables.table_text(entries, plan)
    row = next(row for row in text.split("\n") if row.startswith("MPT "))
    assert row.count(score) == 2
    assert note in " ".join(text.split())
    assert text.count("‡") == 3
    markdown = tables.table_markdown(entries, plan)
    assert f"| MPT | {score} | 40.0 | {score} |" in markdown
    assert note in markdown
    (line,) = (
        one
        for one in csv.DictReader(StringIO(tables.table_csv(entries)))
        if (one["row"], one["target"]) == ("MPT", "urgency")
    )
    assert (line["scores"], line["undefined"], line["undefined_written"]) == ("61.0 0.0 58.0", "1", "0")
    assert float(line["mean"]) == pytest.approx(119 / 3)
    html = page(plan, root, None)
    assert html.count(shown) == 2
    assert note in html


def test_undefined_scores_of_written_answers_are_marked_apart(tmp_path):
    """The answers that were chosen have a score, those that were written have none."""
    plan = make_plan(targets=("urgency",), metrics=("matthews",))
    fill(plan, tmp_path, written=None)
    entries = tables.collect(plan, tmp_path)
    one = entry(entries, "MPT", "urgency")
    assert (one.undefined, one.undefined_written, one.written) == (0, 3, 0.0)
    assert "| 83.0 ± 9.0 | 0.0 ‡ | 83.0 ± 9.0 |" in tables.table_markdown(entries, plan)
    assert "<small>written 0.0 ‡</small>" in page(plan, tmp_path, None)
    assert "MPT on urgency, written (3 of 3 seeds)" in " ".join(tables.table_text(entries, plan).split())


@pytest.mark.parametrize(("other", "opened"), [(83.0, True), (82.0, False), (83.0, False)])
def test_a_score_of_open_answers_stands_once(tmp_path, other, opened):
    """Where answers are open all scores are those of what was written; else they may chance to be."""
    plan = make_plan(targets=("urgency",), opened=("urgency",) if opened else ())
    rows = list(dict.fromkeys(cell.row for cell in plan.cells))
    fill(plan, tmp_path, {row: [83.0 if row == rows[0] else other] for row in rows}, written=83.0)
    html = page(plan, tmp_path, None)
    assert html.count("<small>written 83.0</small>") == (0 if opened else len(rows))
    assert ("Written: the score" in html) != opened


def test_marks_fit_80_columns():
    """Three targets beside each other with wide scores, all of them marked."""
    plan = make_plan(targets=tuple(f"a-very-long-name-of-a-task-{i}" for i in range(3)))
    entries = [
        tables.Entry(
            cell.row, cell.target, "matthews", (0, 1), (0.0, 99.0), 54.0, 571.8, parameters=134515008.0,
            undefined=1,
        )
        for cell in plan.cells
        if cell.seed == 0
    ]  # fmt: skip
    text = tables.table_text(entries, plan)
    assert max(map(len, text.split("\n"))) <= 80
    assert text.count("571.8 ‡") == 5 * 3
    assert text.count("‡") == 5 * 4 + 1


# groups and shots


BANK = {"lr": {"shared": 0.1, "factors": 0.1}, "steps": 4}
GROUPED = {"label": "groups", "method": {"name": "mpt"}, "optim": BANK, "group": True}


def grouped_plan():
    """Four targets in two groups of unlike size, and one that is alone."""
    targets = ("urgency", "banking", "formality", "mood")
    groups = {"large": ("urgency", "banking", "mood"), "small": ("formality",)}
    return make_plan(targets=targets, groups=groups, rows=(GROUPED,))


def test_groups_of_unlike_size_have_their_own_parameters(tmp_path):
    """Each target's parameters are those of its group; the table says both numbers and names the groups."""
    plan = grouped_plan()
    fill(plan, tmp_path, {"groups": [70.0, 74.0, 78.0]})
    for cell in plan.cells:
        run = Run(tmp_path / cell.trained)
        result = {**run.result(), "parameters_per_task": {3: 10468.0, 1: 16228.0}[len(run.config().tasks)]}
        run.write_json("result.json", result)
        storage.seal(run.path, storage.names(run.path))
    entries = tables.collect(plan, tmp_path)
    assert [entry(entries, "groups", name).parameters for name in ("urgency", "formality", "mood")] == [
        10468.0,
        16228.0,
        10468.0,
    ]
    seconds = [entry(entries, "groups", name).seconds for name in ("urgency", "formality")]
    assert seconds == pytest.approx([3.0 / 3, 3.0])  # a run of seed s takes 2 + s
    text = tables.table_text(entries, plan)
    assert "10,468" in text
    assert "16,228" in text
    assert "| 10,468 / 16,228 |" in tables.table_markdown(entries, plan)
    assert "10,468 / 16,228" in page(plan, tmp_path, None)
    note = "Trained in one run by groups: large (urgency, banking, mood); small (formality)."
    assert note in " ".join(text.split())


def test_three_counts_of_parameters_are_shown_from_least_to_most(tmp_path):
    """A classifier's numbers differ by target; two counts stand side by side, more as a range."""
    plan = make_plan()
    fill(plan, tmp_path)
    entries = tables.collect(plan, tmp_path)
    counts = dict(zip(plan.experiment.targets, (2799.0, 4107.0, 1147.0), strict=True))
    entries = [replace(one, parameters=counts[one.target]) for one in entries]
    line = lines.lines(entries, plan)[1]
    assert tables.cost_texts(line)[0] == "1,147 to 4,107"
    assert tables.cost_texts(line, "\n")[0] == "1,147 to\n4,107"


def test_the_page_shows_the_prompt_of_each_target_of_a_group(tmp_path):
    """Targets of a group come from one run; each has its own prompt in the heat map, under its own name."""
    plan = grouped_plan()
    fill(plan, tmp_path, {"groups": [70.0, 74.0, 78.0]})
    parts = [composed(Run(tmp_path / plan.source))]
    for target in plan.experiment.targets:
        run = next(cell.trained for cell in plan.cells if (cell.target, cell.seed) == (target, 0))
        run = Run(tmp_path / run)
        parts.append(composed(run)[[run.result()["tasks"].index(target)]])
    flat = np.concatenate(parts).reshape(2 + 4, -1)
    flat = flat - flat.mean(0)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    html = page(plan, tmp_path, None)
    shown = html[html.index('aria-label="cosine') :]
    numbers = re.findall(r">(−?\d\.\d\d)</text>", shown[: shown.index("</svg>")])
    assert numbers[:36] == [f"{value:.2f}".replace("-", "−") for value in (flat @ flat.T).ravel()]
    assert f"−{1 / 5:.2f}" in html


def composed(run):
    """A bank's prompts, as numpy composes them."""
    bank = {name: value.numpy() for name, value in run.tensors().items()}
    return bank["shared"] * (bank["u"] @ bank["v"])


@pytest.mark.parametrize(
    ("settings", "trained", "said"),
    [
        ({"shots": 16}, 32, "16 per answer."),
        ({"shots": None, "shots_total": 32}, 32, "32 in total."),
        ({"shots": 17}, 32, "up to 17 per answer (urgency 32 rows)."),
        ({"shots": None, "shots_total": 33}, 32, "up to 33 in total (urgency 32 rows)."),
        ({"shots": None}, 32, "all."),
    ],
)
def test_the_note_says_which_rows_are_drawn(tmp_path, settings, trained, said):
    """Per answer or in all, and up to that where a target's runs had fewer rows."""
    plan = make_plan(targets=("urgency",), **settings)
    fill(plan, tmp_path)
    text = " ".join(tables.table_text(tables.collect(plan, tmp_path), plan).split())
    assert f"Training rows of targets: {said}" in text


# gaps


def test_a_missing_run_makes_its_cell_and_the_average_a_dash(tmp_path):
    plan = make_plan(targets=("urgency", "banking"))
    fill(plan, tmp_path, skip=[evaluation(plan, "MPT", "banking", 1)])
    entries = tables.collect(plan, tmp_path)
    one, whole = entry(entries, "MPT", "banking"), entry(entries, "MPT", "urgency")
    assert (one.mean, one.half, one.scores, one.missing) == (None, None, (81.0, 88.0), 1)
    assert whole.mean == 83.0
    assert line(entries, plan, "MPT").mean is None
    row = next(row for row in tables.table_text(entries, plan).split("\n") if row.startswith("MPT "))
    assert row.split() == ["MPT", "83.0", "±", "9.0", "—", "—", "12,345", "3.0"]
    assert "left out: MPT." in tables.verdict(entries, plan)[-1]


def test_an_unfinished_folder_counts_as_missing(tmp_path):
    plan = make_plan(targets=("urgency",))
    fill(plan, tmp_path)
    (tmp_path / evaluation(plan, "SPoT", "urgency", 2) / storage.MANIFEST).unlink()
    assert entry(tables.collect(plan, tmp_path), "SPoT", "urgency").mean is None


def classifier_rows():
    """A row of a method that needs closed answers, and one of a method that does not."""
    prompts = {"name": "prompt_tuning"}
    optim = {"lr": {"prompt": 0.1}, "steps": 4}
    return [
        {"label": "TF-IDF", "method": {"name": "tfidf"}},
        {"label": "prompt tuning", "method": prompts, "optim": optim},
    ]


def test_a_classifier_has_no_runs_and_a_mark_where_answers_are_open(tmp_path):
    """The other targets have its scores, there is no average, and the table says why."""
    plan = make_plan(rows=classifier_rows(), targets=("urgency", "likeness"), opened=("likeness",))
    fill(plan, tmp_path, {"TF-IDF": [60.0, 62.0, 64.0], "prompt tuning": [70.0, 70.0, 70.0]})
    assert {cell.target for cell in plan.cells if cell.row == "TF-IDF"} == {"urgency"}
    entries = results.collect(plan, tmp_path)
    tfidf, prompts = lines.lines(entries, plan)
    assert tfidf.entries[0].mean == pytest.approx(62.0)
    assert [tfidf.entries[1].text(), tfidf.entries[1].written_text, tfidf.text()] == ["·", "·", "—"]
    assert prompts.mean == pytest.approx(70.5)
    said = " ".join(notes.notes(entries, plan))
    assert "· The answers of likeness are open" in said
    assert "not finished" not in said
    assert tables.verdict(entries, plan)[-1].endswith("left out: TF-IDF.")
    for text in (tables.table_text(entries, plan), tables.table_markdown(entries, plan)):
        assert "· The answers of likeness are open" in text
    assert "<td>·</td>" in page(plan, tmp_path, seconds=1.0)


def test_a_row_without_written_answers_has_a_dot_and_no_dash(tmp_path):
    """A dash is for what is not finished; a classifier is, and writes nothing."""
    plan = make_plan(rows=classifier_rows(), targets=("urgency",))
    fill(
        plan,
        tmp_path,
        {"TF-IDF": [60.0, 62.0, 64.0], "prompt tuning": [70.0, 70.0, 70.0]},
        silent=("TF-IDF",),
    )
    tfidf, prompts = results.collect(plan, tmp_path)
    assert (tfidf.silent, tfidf.written_text) == (True, "·")
    assert (prompts.silent, prompts.written_text) == (False, "40.0")
    text = tables.table_markdown([tfidf, prompts], plan)
    assert "| TF-IDF | 62.0 ± 5.0 | · | 62.0 ± 5.0 |" in text
    assert "· TF-IDF: no written answers." in text
    (tmp_path / tfidf.runs[0] / storage.MANIFEST).unlink()
    assert results.collect(plan, tmp_path)[0].written_text == "—"


def test_written_answers_have_columns_where_they_are_asked_for(tmp_path):
    """Without them the table has one column a target, and no word of them."""
    plan = make_plan(generate=False)
    fill(plan, tmp_path, silent=tuple(SCORES))
    text = tables.table_markdown(results.collect(plan, tmp_path), plan)
    assert "| method | urgency | banking | formality | average |" in text
    assert "written" not in text


@pytest.mark.parametrize(
    ("decoding", "words"),
    [
        ({"num_beams": 4, "length_penalty": 0.5}, "4 beams, length penalty 0.5."),
        ({"temperature": 0.7, "seed": 2}, "drawn at temperature 0.7, top_p 1, seed 2."),
    ],
)
def test_a_table_says_how_answers_were_written(tmp_path, decoding, words):
    """Every evaluation of the plan writes so; of greedy answers nothing is said."""
    for said, plan in ((True, make_plan(decoding=decoding)), (False, make_plan())):
        fill(plan, tmp_path)
        text = tables.table_markdown(results.collect(plan, tmp_path), plan)
        assert (f"Written answers: {words}" in text) == said
        scored = [job.config for job in plan.jobs if job.config.stage == "evaluate"]
        assert scored
        assert {one.decoding.model_dump() == plan.experiment.decoding.model_dump() for one in scored} == {
            True
        }


def test_a_group_of_open_answers_alone_has_no_classifier():
    """Neither a named group nor all targets together."""
    rows = [{**classifier_rows()[0], "group": True}, classifier_rows()[1]]
    for groups in ({}, {"opened": ["likeness"]}):
        plan = make_plan(rows=rows, targets=("likeness",), opened=("likeness",), groups=groups)
        assert {cell.row for cell in plan.cells} == {"prompt tuning"}


def test_nothing_done_still_makes_a_table_and_a_page(tmp_path):
    plan = make_plan()
    entries = tables.collect(plan, tmp_path)
    assert tables.verdict(entries, plan) == [
        "No row is finished on all targets yet, so there is nothing to compare."
    ]
    assert "45 missing evaluations" not in tables.table_text(entries, plan)
    assert "39 missing evaluations" in tables.table_text(entries, plan)
    check(page(plan, tmp_path, None))


# tables


def test_the_table_fits_80_columns(done):
    plan, _, entries = done
    text = tables.table_text(entries, plan)
    assert max(map(len, text.split("\n"))) <= 80
    assert "accuracy in percent, mean ± 95 % t interval over seeds 0, 1, 2" in text
    assert "urgency 120, banking 120, formality 120" in text
    assert "16 per answer" in text
    assert "smollm2, float32" in text
    assert "Capped" not in text


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_long_names_wide_numbers_and_many_targets_fit_too(tmp_path, count):
    plan = make_plan(targets=tuple(f"a-very-long-name-of-a-task-{i}" for i in range(count)))
    entries = [
        tables.Entry(
            cell.row, cell.target, "accuracy", (0, 1), (9.0, 99.0), 54.0, 571.8, parameters=134515008.0
        )
        for cell in plan.cells
        if cell.seed == 0
    ]
    text = tables.table_text(entries, plan)
    assert max(map(len, text.split("\n"))) <= 80
    assert text.count("± 571.8") == 5 * (count + 1)
    assert text.count("134,515,008") == 4
    assert "…" not in text


def test_caps_and_own_shots_are_stated(tmp_path):
    rows = [row.model_dump() for row in make_plan().experiment.rows]
    rows[2]["shots"], rows[3]["shots"], rows[4]["shots_total"] = 4, 4, 9
    plan = make_plan(limits={"train_rows": 5000, "test_rows": 100}, rows=rows)
    text = " ".join(tables.table_text(tables.collect(plan, tmp_path), plan).split())
    assert "Capped: at most 5,000 training rows of a source, at most 100 scored rows of a target." in text
    said = f"16 per answer; 4 per answer for {rows[2]['label']}, MPT; 9 in total for MPT nearest."
    assert f"Training rows of targets: {said}" in text


def test_markdown_has_a_column_for_free_writing_and_names_the_source_run(done):
    plan, _, entries = done
    text = tables.table_markdown(entries, plan)
    rows = [row for row in text.split("\n\n")[1].split("\n") if row.startswith("|")]
    assert len(rows) == 2 + 5
    assert {row.count("|") for row in rows} == {1 + 1 + 6 + 3}
    assert "| MPT | 83.0 ± 9.0 | 40.0 |" in rows[5]
    assert f"Source run: `{plan.source}`." in text
    assert "**small**" in text


def test_csv_reads_back(done):
    _, _, entries = done
    rows = list(csv.DictReader(StringIO(tables.table_csv(entries))))
    assert len(rows) == 15
    row = next(row for row in rows if (row["row"], row["target"]) == ("MPT", "urgency"))
    one = entry(entries, "MPT", "urgency")
    assert (float(row["mean"]), float(row["half"])) == (one.mean, one.half)
    assert (row["scores"], row["seeds"], row["missing"]) == ("80.0 82.0 87.0", "0 1 2", "0")


# sentences


def test_the_verdict_says_that_mpt_is_ahead(done):
    plan, _, entries = done
    assert tables.verdict(entries, plan) == [
        "The best average over targets: MPT (84.0 ± 9.0).",
        "MPT is ahead: MPT is 9.0 points above the best other row, prompt tuning (within the intervals).",
        "MPT is 9.0 points above prompt tuning from scratch (within the intervals).",
        "MPT is 9.0 points above SPoT (within the intervals).",
        "The best of 2 MPT rows was picked by these very scores, which favours it.",
    ]


def test_mpt_wins_only_outside_of_the_intervals(tmp_path):
    plan = make_plan(targets=("urgency",))
    fill(plan, tmp_path, {**SCORES, "MPT": [95.0, 95.5, 96.0]})
    said = tables.verdict(tables.collect(plan, tmp_path), plan)
    assert said[1].startswith("MPT wins: MPT is ")
    assert said[1].endswith("(outside the intervals).")


def test_the_verdict_says_that_mpt_loses(tmp_path):
    plan = make_plan(targets=("urgency",))
    scores = {
        **SCORES,
        "MPT": [60.0, 60.5, 61.0],
        "MPT nearest": [40.0, 41.0, 42.0],
        "SPoT": [60.0, 60.5, 61.0],
    }
    fill(plan, tmp_path, scores)
    said = tables.verdict(tables.collect(plan, tmp_path), plan)
    assert said[0] == "The best average over targets: prompt tuning (74.0 ± 9.9)."
    assert said[1] == (
        "MPT does not win: its best row, MPT, is 13.5 points below prompt tuning (outside the intervals)."
    )
    assert said[3] == "MPT is level with SPoT (within the intervals)."


def test_the_verdict_without_rivals_or_without_mpt(tmp_path):
    """It compares with what is in the table, and says which of that is not finished."""
    rows = [row.model_dump() for row in make_plan().experiment.rows]
    plan = make_plan(targets=("urgency",), rows=[rows[i] for i in (0, 1)])
    fill(plan, tmp_path)
    assert "There is no MPT row" in " ".join(tables.verdict(tables.collect(plan, tmp_path), plan))
    plan = make_plan(targets=("urgency",), rows=[rows[i] for i in (0, 2, 3)])
    unfinished = evaluation(plan, "SPoT", "urgency", 2)
    fill(plan, tmp_path, skip=(unfinished,))
    (tmp_path / unfinished / storage.MANIFEST).unlink(missing_ok=True)
    said = tables.verdict(tables.collect(plan, tmp_path), plan)
    assert sum("no comparison with SPoT" in one for one in said) == 1
    assert not any("prompt tuning" in one for one in said)


# the page


class Checker(HTMLParser):
    """Collects elements, attributes and text, and insists that every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def check(html):
    """A page's parts, once it is seen to be well formed and to need nothing from outside."""
    parser = Checker()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert not {"script", "link", "img", "iframe", "image"} & set(parser.tags)
    assert "http" not in html
    assert "@import" not in html
    ids = [value for name, value in parser.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    links = [value for name, value in parser.attributes if name.endswith("href")]
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    return parser


def test_the_page_is_whole_and_escapes_texts(done, tmp_path):
    plan, root, _ = done
    path = tmp_path / "report.html"
    html_page.write_report(plan, root, path, 754.0)
    html = path.read_text("utf-8")
    parser = check(html)
    text = " ".join(parser.text)
    assert parser.tags.count("svg") == 2 + 3 + 2 + 1
    assert "<script>" not in html
    assert "<script>alert(1)</script> & more" in text
    assert "Small & <made up>" in text
    assert "The command that wrote this page took 12 min 34 s." in text
    assert "MPT, seed 0: 6 of 6 answers are wrong." in text
    assert "probability 75.0 %" in text
    assert "<strong>84.0 ± 9.0</strong>" in html
    assert plan.source in text


def test_mpt_alone_has_a_colour_in_the_scores(done):
    """Rows of other methods are drawn in the colour of the text."""
    plan, _, entries = done
    table = lines.lines(entries, plan)
    assert plots.OURS in plots.scores_plot(table, 0)
    others = [line for line in table if not line.label.startswith("MPT")]
    assert plots.OURS not in plots.scores_plot(others, 0)


def test_the_page_is_the_same_for_the_same_runs(done):
    plan, root, _ = done
    assert page(plan, root, 1.0) == page(plan, root, 1.0)


def test_similarities_are_those_of_the_composed_prompts(done):
    plan, root, _ = done
    cells = [cell for cell in plan.cells if (cell.row, cell.seed) == ("MPT", 0)]
    banks = [Run(root / name).tensors() for name in (plan.source, *(cell.trained for cell in cells))]
    parts = [bank["shared"].numpy() * (bank["u"].numpy() @ bank["v"].numpy()) for bank in banks]
    flat = np.concatenate(parts).reshape(5, -1)
    flat = flat - flat.mean(0)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    html = page(plan, root, None)
    shown = html[html.index('aria-label="cosine') :]
    for value in (flat @ flat.T).ravel():
        assert f">{value:.2f}<".replace("-", "−") in shown


def test_a_changed_result_is_refused(tmp_path):
    plan = make_plan(targets=("urgency",))
    fill(plan, tmp_path)
    path = tmp_path / evaluation(plan, "MPT", "urgency", 0) / "result.json"
    path.write_text(path.read_text().replace("80.0", "99.0"))
    with pytest.raises(ArtifactError, match="SHA-256"):
        tables.collect(plan, tmp_path)
