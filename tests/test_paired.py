"""Comparison with a reference row: the bootstrap against plain loops, averages, constant answers, rates."""

import csv
import json
import zlib
from io import StringIO

import numpy as np
import pytest
from test_reporting import fill, make_plan, quick_disk  # noqa: F401 - a fixture of that file

from weft import storage
from weft.errors import ConfigError
from weft.evaluation.paired import difference, drawn_scores
from weft.experiments import lines, notes, tables
from weft.experiments.config import Experiment
from weft.experiments.entries import interval
from weft.experiments.report.html_page import page
from weft.runs import Run
from weft.runs.config import EvaluateRun
from weft.tasks.metrics import metric

GOLD = [("yes",), ("no",)] * 10
OPTIM = {"lr": {"prompt": 0.1}, "steps": 4}
BANK = {"lr": {"shared": 0.1, "factors": 0.1}, "steps": 4}
ROWS = [
    {"label": "majority", "method": {"name": "majority"}},
    {"label": "PT", "method": {"name": "prompt_tuning"}, "optim": OPTIM},
    {"label": "MPT", "method": {"name": "mpt"}, "optim": BANK},
]


def answers(right, of=20):
    """So many right answers of alternating rows, from the first on."""
    return [gold if i < right else {"yes": "no", "no": "yes"}[gold] for i, (gold,) in enumerate(GOLD[:of])]


def answer(plan, root, given):
    """A plan's folders, with answers of every row and seed: `given` is row -> answers of each seed."""
    fill(plan, root, {label: [0.0] * 3 for label in given})
    cells = {cell.run: cell for cell in plan.cells}
    for job in plan.jobs:
        if isinstance(job.config, EvaluateRun):
            cell, run = cells[job.id], Run(root / job.id)
            (run.path / storage.MANIFEST).unlink()
            of_seeds = given[cell.row]
            texts = of_seeds[min(plan.experiment.seeds.index(cell.seed), len(of_seeds) - 1)]
            run.files = [path.name for path in run.path.iterdir()]
            run.write("predictions.jsonl", "".join(map(line_of(cell.target), enumerate(texts))))
            task = job.config.tasks[0]
            score = metric(task.metrics[0], labels=("yes", "no"))(texts, GOLD)
            scores = dict.fromkeys(task.metrics, score)
            found = {"rows": len(texts), "metrics": scores, "written": None, "unparsable": None}
            run.write_json("result.json", {"scores": {task.name: found}, "split": "test"})
            storage.seal(run.path, run.files)
    return tables.collect(plan, root)


def line_of(task):
    def line(pair):
        place, text = pair
        known = {"task": task, "row": place, "text": "a", "references": list(GOLD[place]), "answer": text}
        return json.dumps({**known, "written": None, "probabilities": None}) + "\n"

    return line


def of(entries, row, target):
    return next(one for one in entries if (one.row, one.target) == (row, target))


# the bootstrap


@pytest.mark.parametrize("name", ["accuracy", "matthews"])
def test_drawn_scores_equal_a_plain_loop(name):
    """Every answerer's score on every draw, with an undefined one as 0."""
    function, given = metric(name), [answers(15), answers(9), ["yes"] * 20]
    found = drawn_scores(name, function, given, GOLD, "cb")
    generator = np.random.default_rng(zlib.crc32(b"cb"))
    for draw in range(20):
        places = generator.integers(20, size=20)
        for one, texts in enumerate(given):
            expected = function([texts[i] for i in places], [GOLD[i] for i in places]) or 0.0
            assert found[one, draw] == pytest.approx(expected)
    assert found.shape == (3, 1000)


def test_rows_of_a_group_are_drawn_together():
    """A group is right or wrong as a whole in every draw, however often it is drawn."""
    gold, groups = [("yes",)] * 12, [str(i // 3) for i in range(12)]
    given = ["yes"] * 6 + ["no"] * 6
    for name in ("group_em", "accuracy"):
        [found] = drawn_scores(name, metric(name), [given], gold, "multirc", groups)
        generator = np.random.default_rng(zlib.crc32(b"multirc"))
        for draw in range(20):
            assert found[draw] == pytest.approx(100 * np.mean(generator.integers(4, size=4) < 2))


def test_draws_of_a_summed_metric_are_scores_of_the_drawn_rows():
    """BLEU of a draw, from sums over its rows, is BLEU of its texts."""
    pytest.importorskip("sacrebleu")
    texts = [
        f"the {a} is {b} and not {c}" for a in ("inn", "bar") for b in ("near", "far") for c in ("old", "new")
    ]
    gold = [(f"{text} at all",) for text in texts[::-1]]
    [found] = drawn_scores("bleu", metric("bleu"), [texts], gold, "e2e")
    generator = np.random.default_rng(zlib.crc32(b"e2e"))
    for draw in range(5):
        places = generator.integers(8, size=8)
        expected = metric("bleu")([texts[i] for i in places], [gold[i] for i in places])
        assert found[draw] == pytest.approx(expected)


def test_draws_of_another_name_differ_and_of_the_same_do_not():
    """Targets of one size must not share their draws: their average would vary too little or too much."""
    one, two, again = (drawn_scores("accuracy", metric("accuracy"), [answers(15)], GOLD, n) for n in "aba")
    assert (one == again).all()
    assert (one != two).any()


def test_difference_is_percentiles_and_twice_the_share_beyond_0():
    """Against the definition, for draws of which 3 of 99 lie at 0 or below."""
    draws = np.array([-2.0, -1.0, 0.0, *np.linspace(1, 9, 96)])
    found = difference(4.0, draws)
    assert (found.low, found.high) == (np.percentile(draws, 2.5), np.percentile(draws, 97.5))
    assert found.p == pytest.approx(2 * (3 + 1) / 100)
    assert difference(-4.0, -draws).p == found.p
    assert difference(0.0, np.zeros(99)).p == 1.0


def test_paired_draws_are_surer_than_apart():
    """Two answerers that are wrong on the same rows but for three: pairing takes out what they share."""
    scores = drawn_scores("accuracy", metric("accuracy"), [answers(14), answers(11)], GOLD, "x")
    assert (scores[0] - scores[1]).std() < 0.7 * np.hypot(*scores.std(1))


# the table


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two targets; MPT above prompt tuning on every seed, and a majority that answers as it must."""
    plan, root = make_plan(targets=("urgency", "banking"), rows=ROWS), tmp_path_factory.mktemp("compared")
    given = {
        "majority": [["yes"] * 20],
        "PT": [answers(12), answers(10), answers(11)],
        "MPT": [answers(19), answers(18), answers(20)],
    }
    return plan, root, answer(plan, root, given), given


def test_rows_are_compared_with_mpt_over_the_same_draws_and_seeds(compared):
    """The difference of means over seeds, with percentiles of the draws, by a plain loop."""
    _, _, entries, given = compared
    one = of(entries, "PT", "urgency")
    generator, gaps = np.random.default_rng(zlib.crc32(b"urgency")), []
    right = {
        row: np.array([[a == g for a, (g,) in zip(x, GOLD, strict=True)] for x in given[row]])
        for row in given
    }
    for _ in range(1000):
        drawn = generator.integers(20, size=20)
        gaps.append(100 * (right["PT"][:, drawn].mean() - right["MPT"][:, drawn].mean()))
    assert one.against.mean == pytest.approx(100 * (33 - 57) / 60)
    assert (one.against.low, one.against.high) == pytest.approx(tuple(np.percentile(gaps, [2.5, 97.5])))
    assert one.against.p == pytest.approx(2 / 1001)
    assert of(entries, "MPT", "urgency").against is None
    assert of(entries, "majority", "urgency").against.mean == pytest.approx(50 - 95)


def test_the_average_is_compared_over_draws_of_each_target(compared):
    """Mean of the targets' draws, so that the interval is narrower than one target's."""
    plan, _, entries, _ = compared
    found = lines.lines(entries, plan)[1].average.against
    gaps = np.mean([of(entries, "PT", name).gaps for name in ("urgency", "banking")], axis=0)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(gaps, [2.5, 97.5])))
    alone = of(entries, "PT", "urgency").against
    assert found.high - found.low < alone.high - alone.low


def test_differences_stand_in_every_table(compared):
    """Text, Markdown, CSV and page, with a note of how they were made."""
    plan, root, entries, _ = compared
    text, markdown = tables.table_text(entries, plan), tables.table_markdown(entries, plan)
    one = lines.lines(entries, plan)[1].average.against
    shown = f"−40.0 | −{-one.low:.1f} to −{-one.high:.1f} | 0.002 | 0 | 2"
    assert f"| PT | {shown} |" in markdown
    assert "Differences from MPT, average:" in text
    assert " ".join(shown.replace("|", "").split()) in " ".join(text.split())
    assert max(map(len, text.split("\n"))) <= 80
    assert "<td>0.002</td>" in page(plan, root, None)
    assert "1,000 draws with return" in " ".join(text.split())
    rows = {(r["row"], r["target"]): r for r in csv.DictReader(StringIO(tables.table_csv(entries)))}
    gap = of(entries, "PT", "banking").against
    assert float(rows["PT", "banking"]["difference"]) == gap.mean
    assert [float(rows["PT", "banking"][key]) for key in ("low", "high", "p")] == [gap.low, gap.high, gap.p]
    assert rows["MPT", "banking"]["difference"] == ""


def test_another_reference_may_be_named_and_without_mpt_there_is_none(tmp_path):
    """`reference` is a label; what is no row is refused."""
    named = make_plan(targets=("urgency",), rows=ROWS, reference="PT")
    assert named.experiment.compared_with == "PT"
    given = {"majority": [["yes"] * 20], "PT": [answers(12)], "MPT": [answers(19)]}
    entries = answer(named, tmp_path, given)
    assert of(entries, "MPT", "urgency").against.mean == pytest.approx(35)
    assert of(entries, "PT", "urgency").against is None
    plain = make_plan(targets=("urgency",), rows=ROWS[:2])
    assert plain.experiment.compared_with is None
    entries = tables.collect(plain, tmp_path)
    assert all(one.against is None for one in entries)
    assert "Differences" not in tables.table_text(entries, plain)
    with pytest.raises(ValueError, match="no row is called 'LoRA'"):
        make_plan(rows=ROWS, reference="LoRA")


def test_a_missing_run_leaves_a_dash_and_no_average_difference(tmp_path):
    """What is not finished is compared with nothing, and an average needs every target."""
    plan = make_plan(targets=("urgency", "banking"), rows=ROWS)
    given = {"majority": [["yes"] * 20], "PT": [answers(12)], "MPT": [answers(19)]}
    answer(plan, tmp_path, given)
    gone = next(c.run for c in plan.cells if (c.row, c.target, c.seed) == ("PT", "banking", 1))
    (tmp_path / gone / storage.MANIFEST).unlink()
    entries = tables.collect(plan, tmp_path)
    assert of(entries, "PT", "banking").against is None
    assert of(entries, "PT", "urgency").against is not None
    assert lines.lines(entries, plan)[1].average.against is None
    assert "| PT | — | — | — | 0 | 1 |" in tables.table_markdown(entries, plan)


# further metrics


def test_further_metrics_stand_in_small_tables(tmp_path):
    """Mean and interval over seeds of each, out of the same runs; a dash where a run is missing."""
    plan = make_plan(
        targets=("urgency", "banking"),
        rows=ROWS,
        further={"urgency": ["f1_macro"]},
        metrics=("accuracy", "f1_macro"),
    )
    given = {"majority": [["yes"] * 20], "PT": [answers(12)], "MPT": [answers(19)]}
    answer(plan, tmp_path, given)
    for cell in plan.cells:
        if cell.target == "urgency":
            rewrite(Run(tmp_path / cell.run), "urgency", f1_macro=10.0 * cell.seed)
    entries = tables.collect(plan, tmp_path)
    assert of(entries, "PT", "urgency").others["f1_macro"] == pytest.approx(
        (10.0, interval((0.0, 10.0, 20.0)))
    )
    assert of(entries, "PT", "banking").others == {}
    told = tables.table_markdown(entries, plan)
    assert "Further metrics of urgency:\n\n| method | f1_macro |" in told
    assert "| PT | 10.0 ± 24.8 |" in told
    assert "Further metrics of urgency:" in tables.table_text(entries, plan)
    gone = next(c.run for c in plan.cells if (c.row, c.target, c.seed) == ("PT", "urgency", 1))
    (tmp_path / gone / storage.MANIFEST).unlink()
    assert "| PT | — |" in tables.table_markdown(tables.collect(plan, tmp_path), plan)


def rewrite(run, task, **metrics):
    """A finished evaluation with other scores."""
    result = run.result()
    result["scores"][task]["metrics"] |= metrics
    (run.path / storage.MANIFEST).unlink()
    files = [path.name for path in run.path.iterdir()]
    Run(run.path).write_json("result.json", result)
    storage.seal(run.path, files)


def test_further_metrics_are_those_of_a_target():
    """Another task, or a metric that the task is not scored by, is refused with those that it has."""
    with pytest.raises(ValueError, match="'alpha' in further is no target"):
        make_plan(targets=("urgency",), rows=ROWS, further={"alpha": ["f1_macro"]})
    with pytest.raises(ConfigError, match="is not scored by 'bleu'"):
        make_plan(
            targets=("urgency",), rows=ROWS, further={"urgency": ["bleu"]}, metrics=("accuracy", "f1_macro")
        )


# averages of benchmarks


def test_named_averages_stand_beside_that_of_all(tmp_path):
    """Of each benchmark's targets, seed by seed, in every table."""
    targets = ("urgency", "banking", "formality")
    plan = make_plan(targets=targets, averages={"glue": ("urgency", "banking"), "other": ("formality",)})
    fill(plan, tmp_path)
    entries = tables.collect(plan, tmp_path)
    mpt = lines.lines(entries, plan)[3]
    assert [one.head for one in mpt.averages] == ["average of glue", "average of other", "average"]
    assert mpt.averages[0].scores == pytest.approx((80.5, 82.5, 87.5))
    assert mpt.averages[1].mean == pytest.approx(85.0)
    assert mpt.mean == pytest.approx(84.0)
    text = tables.table_text(entries, plan)
    assert max(map(len, text.split("\n"))) <= 80
    assert "average of glue | average of other | average | parameters" in tables.table_markdown(entries, plan)
    assert "average of glue</th>" in page(plan, tmp_path, None)


def test_an_average_of_what_is_no_target_is_refused():
    """A misspelt target, an empty list, one named twice."""
    for faulty, said in (
        (("urgencyx",), "no target"), ((), "has no target"), (("urgency", "urgency"), "twice"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            make_plan(averages={"glue": faulty})


# constant answers


def test_one_answer_for_all_rows_is_marked(tmp_path):
    """As WSC's 67.3 in published tables: the cell of a trained row, and not the majority's, with a note."""
    plan = make_plan(targets=("urgency",), rows=ROWS)
    given = {
        "majority": [["yes"] * 20],
        "PT": [["yes"] * 20, answers(12), ["no"] * 20],
        "MPT": [answers(19), answers(18), answers(20)],
    }
    entries = answer(plan, tmp_path, given)
    assert [one.constant for one in entries] == [0, 2, 0]
    assert "° One answer for all rows: PT on urgency (2 of 3 seeds)." in notes.notes(entries, plan)
    shown = of(entries, "PT", "urgency").text()
    assert shown.endswith(" °")
    for text in (tables.table_text(entries, plan), tables.table_markdown(entries, plan)):
        assert shown in text
    html = page(plan, tmp_path, None)
    assert html.count(shown) == 1
    rows = csv.DictReader(StringIO(tables.table_csv(entries)))
    assert [row["constant"] for row in rows] == ["0", "2", "0"]


# rates


def grid(*rates, **settings):
    """A plan whose rows differ by the rate, with a row of another method."""
    rows = [
        {
            "label": f"PT {rate}",
            "method": {"name": "prompt_tuning"},
            "optim": {"lr": {"prompt": rate}, "steps": 4},
        }
        for rate in rates
    ]
    return make_plan(targets=("urgency",), rows=[*rows, ROWS[0], ROWS[2]], **settings)


SCORED = {
    "PT 0.1": [70.0, 71.0, 72.0],
    "PT 0.3": [75.0, 76.0, 77.0],
    "PT 1": [60.0, 61.0, 62.0],
    "MPT": [1.0, 2.0, 3.0],
}


def test_dev_rows_name_the_best_rate_of_each_method(tmp_path):
    """The rows that differ by the rate alone, in order, and the one with the best average."""
    plan = grid(0.1, 0.3, 1, split="dev")
    fill(plan, tmp_path, {**SCORED, "majority": [50.0]})
    said = [one for one in tables.verdict(tables.collect(plan, tmp_path), plan) if "rate" in one]
    assert said == [
        "Best rate on dev rows of prompt tuning from scratch (prompt 0.1, prompt 0.3, prompt 1): prompt 0.3, "
        "average 76.0 ± 2.5."
    ]


def test_a_rate_at_the_end_of_its_grid_is_said_to_be_so(tmp_path):
    """A better one may lie beyond; an unfinished grid chooses nothing; test rows never do."""
    plan = grid(0.1, 0.3, split="dev")
    fill(plan, tmp_path / "a", {**SCORED, "majority": [50.0]})
    said = tables.verdict(tables.collect(plan, tmp_path / "a"), plan)
    assert any("prompt 0.3, average 76.0 ± 2.5; it lies at the end of the grid" in one for one in said)
    missing = next(cell.run for cell in plan.cells if cell.row == "PT 0.3")
    fill(plan, tmp_path / "b", {**SCORED, "majority": [50.0]}, skip=(missing,))
    said = tables.verdict(tables.collect(plan, tmp_path / "b"), plan)
    assert any("is not chosen: a row of the grid is not finished" in one for one in said)
    tested = grid(0.1, 0.3)
    fill(tested, tmp_path / "c", {**SCORED, "majority": [50.0]})
    assert not any("rate" in one for one in tables.verdict(tables.collect(tested, tmp_path / "c"), tested))


def test_rows_that_differ_by_more_than_rates_are_no_grid(tmp_path):
    """Other steps are another training."""
    rows = [ROWS[1], {**ROWS[1], "label": "long", "optim": {"lr": {"prompt": 0.3}, "steps": 8}}, ROWS[2]]
    plan = make_plan(targets=("urgency",), rows=rows, split="dev")
    fill(plan, tmp_path, {label: [1.0, 2.0, 3.0] for label in ("PT", "long", "MPT")})
    assert not any("rate" in one for one in tables.verdict(tables.collect(plan, tmp_path), plan))
    assert isinstance(plan.experiment, Experiment)
