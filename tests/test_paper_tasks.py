"""The paper's benchmark: its tasks, the sizes of their splits, rows that belong together, and E2E."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from weft.cli import figures_text
from weft.config.task import TaskSpec
from weft.data.selection import subset
from weft.errors import DataError
from weft.evaluation.answers import Answer
from weft.evaluation.figures import figures
from weft.evaluation.intervals import interval
from weft.evaluation.scores import score
from weft.runs import answer_blocks, bundled
from weft.runs.folder import Run
from weft.runs.identity import NUMERICS, identity
from weft.tasks import BUILTIN, Example, find_specs, from_spec, groups, holdout
from weft.tasks.metrics import accuracy, group_em, measured

SPECS = find_specs([BUILTIN])
DATA = Path(os.environ["WEFT_DATA"]) if os.environ.get("WEFT_DATA") else None
SPLITS = ("train", "dev", "test")
BENCHMARKS = {
    "glue": ["mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "rte", "cola"],
    "superglue": ["multirc", "boolq", "wic", "wsc.fixed", "cb", "copa", "record"],
    "mrqa": ["nq", "hotpotqa", "searchqa", "newsqa"],
    "others": ["winogrande", "yelp_polarity", "scitail", "paws"],
    "nlg": ["e2e", "web_nlg"],
}
SIZES = {  # arXiv:2502.04501, table 4, which prints the counts of ATTEMPT's and DePT's public splits
    "mnli": (392_702, 9_832, 9_815), "qqp": (362_846, 1_000, 40_431), "qnli": (103_743, 1_000, 5_463),
    "sst2": (66_349, 1_000, 872), "stsb": (5_749, 750, 750), "mrpc": (3_668, 204, 204),
    "rte": (2_490, 138, 139), "cola": (8_551, 521, 522), "multirc": (27_243, 2_424, 2_424),
    "boolq": (9_427, 1_635, 1_635), "wic": (5_428, 319, 319), "wsc.fixed": (554, 52, 52), "cb": (250, 28, 28),
    "nq": (103_071, 1_000, 12_836), "hotpotqa": (71_928, 1_000, 5_901),
    "searchqa": (116_384, 1_000, 16_980), "newsqa": (73_160, 1_000, 4_212),
    "winogrande": (39_398, 1_000, 1_267), "yelp_polarity": (100_000, 1_000, 38_000),
    "scitail": (23_596, 652, 652), "paws": (49_401, 8_000, 8_000),
}  # fmt: skip
FILES = {"yelp_polarity": 560_000}  # rows of a train file of which not all are used


def attempt(count):
    """Row numbers as ATTEMPT's public code shuffles them."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(42)).tolist()


def public_rows(name):
    """How many rows the public data set's files have, of which the splits of the table are made."""
    train, dev, test = SIZES[name]
    rule = SPECS[name].drawn("attempt").holdout
    if rule == "halve_dev":
        return {"train": train, "dev": dev + test}
    if rule == "from_train":
        return {"train": FILES.get(name, train + dev), "dev": test}
    return dict(zip(SPLITS, SIZES[name], strict=True))


def test_all_of_the_papers_data_sets_are_there():
    """8 + 5 + 4 + 4 + 2 targets, with COPA and ReCoRD; and SQuAD, a source."""
    for benchmark, names in BENCHMARKS.items():
        assert sorted(names) == sorted(name for name, spec in SPECS.items() if spec.benchmark == benchmark)
    assert "squad" in SPECS
    assert all(spec.benchmark and spec.licence for spec in SPECS.values())


@pytest.mark.parametrize("draw", ["weft", "attempt"])
@pytest.mark.parametrize("name", SIZES)
def test_splits_have_the_papers_sizes(name, draw):
    """Of as many rows as the public files have. SST-2 keeps a folder's test file, but for `attempt`."""
    spec, there = SPECS[name].drawn(draw), public_rows(name)
    if name == "sst2" and draw == "weft":
        assert (spec.holdout, set(spec.files)) == ("none", set(SPLITS))
        spec = SPECS[name].drawn("attempt")
    assert set(spec.files) == set(there)
    numbers = {file: range(rows) for file, rows in there.items()}
    parts = [
        holdout.part(
            spec.holdout, split, [{"n": n} for n in numbers[holdout.origin(spec.holdout, split)]],
            draw=draw, train_rows=spec.train_rows,
        )
        for split in SPLITS
    ]  # fmt: skip
    assert tuple(map(len, parts)) == SIZES[name]


@pytest.mark.parametrize("name", SIZES)
def test_the_hub_has_the_same_splits(name):
    """Where rows come from changes no split."""
    spec = SPECS[name].drawn("attempt")
    assert spec.hub is not None
    assert (spec.hub.holdout, set(spec.hub.splits)) == (spec.holdout, set(spec.files))


@pytest.mark.skipif(DATA is None, reason="needs the real task data, given by WEFT_DATA")
@pytest.mark.data
def test_real_splits_have_the_papers_sizes():
    """Of every split whose whole public file is at hand; QNLI's whole dev file stands beside ours."""
    equal = set()
    for name in SIZES:
        spec, there = SPECS[name].drawn("attempt"), public_rows(name)
        if name == "qnli":
            spec = spec.model_copy(update={"files": {**spec.files, "dev": "qnli/validation_full.parquet"}})
        paths = {split: DATA / file for split, file in spec.files.items()}
        if not all(path.is_file() for path in paths.values()):
            continue
        rows = {split: pyarrow.parquet.read_metadata(path).num_rows for split, path in paths.items()}
        task = from_spec(spec, DATA)
        for split, size in zip(SPLITS, SIZES[name], strict=True):
            origin = holdout.origin(spec.holdout, split)
            if rows[origin] == there[origin]:
                assert len(task.load(split)) == size, (name, split)
                equal.add(f"{name} {split}")
    assert equal >= {
        *(f"{name} {split}" for name in ("cola", "cb", "rte") for split in SPLITS),
        *(f"{name} {split}" for name in ("stsb", "mrpc", "boolq", "wic", "scitail") for split in SPLITS[1:]),
        "sst2 test", "qnli test",
    }  # fmt: skip


def test_attempts_splits_leave_other_test_rows_aside():
    """Where a folder has a test file that the public set lacks; else only the draw changes."""
    spec = SPECS["sst2"].drawn("attempt")
    assert spec.holdout == "from_train"
    assert spec.files == {"train": "sst2/train.parquet", "dev": "sst2/validation.parquet"}
    assert SPECS["sst2"].drawn("weft") == SPECS["sst2"]
    for name in ("rte", "mnli", "ag_news", "snips", "e2e"):
        assert SPECS[name].drawn("attempt") == SPECS[name].model_copy(update={"holdout_draw": "attempt"})


@settings(max_examples=40, deadline=None)
@given(st.integers(1001, 3000), st.integers(1, 3000), st.sampled_from(["weft", "attempt"]))
def test_train_has_so_many_rows_at_most(count, most, draw):
    """Some of those that no other split has; ATTEMPT's follow those of dev in its shuffle."""
    rows = [{"n": n} for n in range(count)]
    parts = {
        split: [row["n"] for row in holdout.part("from_train", split, rows, draw=draw, train_rows=most)]
        for split in ("train", "dev")
    }
    assert len(parts["train"]) == min(most, count - 1000)
    assert not {*parts["train"]} & {*parts["dev"]}
    assert all(part == sorted(part) for part in parts.values())
    assert parts["dev"] == [
        row["n"] for row in holdout.part("from_train", "dev", rows, draw=draw)
    ]  # whatever the cap
    if draw == "attempt":
        assert parts["train"] == sorted(attempt(count)[1000 : 1000 + most])


@pytest.mark.skipif(DATA is None, reason="needs the real task data, given by WEFT_DATA")
@pytest.mark.data
def test_runs_from_before_there_were_these_keys_keep_their_names():
    """A teacher that comes with weft: its name follows from its configuration, rows and base, as it did."""
    run = Run(bundled.FOLDER / "smollm2" / "teachers-scitail-s0-fc57a908")
    config, env = run.config(), json.loads((run.path / "env.json").read_text("utf-8"))
    if env["numerics"] != NUMERICS:
        pytest.skip("weft's numbers have changed since, and with them all names")
    task = from_spec(config.tasks[0], DATA)
    hashes = {f"scitail/{split}": task.data_hash(split) for split in ("train", "dev")}
    assert identity(config, base_hash=env["base_hash"], data_hashes=hashes) == env["identity"]


# rows that belong together


sizes = st.lists(st.integers(1, 6), min_size=2, max_size=60)


@settings(max_examples=150, deadline=None)
@given(sizes, st.randoms(use_true_random=False), st.integers(0, 5))
def test_a_draw_cuts_no_group(counts, chance, seed):
    """Each group is in it or not; what is left over fits no group that is outside."""
    names = [f"g{k}" for k, size in enumerate(counts) for _ in range(size)]
    chance.shuffle(names)
    most = len(names) // 2
    chosen = groups.draw(names, most, seed)
    inside = {names[i] for i in chosen}
    assert {i for i, name in enumerate(names) if name in inside} == chosen
    assert len(chosen) <= most
    assert all(names.count(name) > most - len(chosen) for name in {*names} - inside)
    assert groups.draw(names, most, seed) == chosen


def test_rows_without_a_group_are_alone():
    """They are drawn one by one."""
    assert groups.members(["", "a", "", "a"]) == [[0], [1, 3], [2]]
    assert len(groups.draw([""] * 9, 4, 0)) == 4


def questions(count, chance):
    """Rows of MultiRC's columns, with one to six answers a question, and the paragraphs' ids."""
    rows = []
    for question in range(count):
        for answer in range(chance.randint(1, 6)):
            idx = {"paragraph": question // 3, "question": question, "answer": answer}
            text = {"paragraph": f"p{question // 3}", "question": f"q{question}", "answer": f"a{answer}"}
            rows.append({**text, "idx": idx, "label": chance.randint(0, 1)})
    return rows


def multirc(folder, rows, **settings):
    """MultiRC on rows made by hand, as train and dev file alike."""
    (folder / "multirc").mkdir(exist_ok=True)
    for name in ("train", "validation"):
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / "multirc" / f"{name}.parquet")
    return from_spec(SPECS["multirc"].model_copy(update=settings), folder)


def test_halves_of_multirc_cut_no_question(tmp_path):
    """Each question's answers are in one half, of equal size; ATTEMPT's halves are as they were published."""
    rows = questions(300, random.Random(1))
    task = multirc(tmp_path, rows)
    dev, test = ({one.group for one in task.load(split)} for split in ("dev", "test"))
    assert not dev & test
    assert len(dev | test) == 300
    assert len(task.load("dev")) == len(rows) // 2
    assert sorted(row["idx"]["answer"] for split in ("dev", "test") for row in task.rows(split)) == sorted(
        row["idx"]["answer"] for row in rows
    )
    theirs = multirc(tmp_path, rows, holdout_draw="attempt")
    order = attempt(len(rows))[: len(rows) // 2]
    assert theirs.rows("dev") == [rows[i] for i in sorted(order)]
    assert {one.group for one in theirs.load("dev")} & {one.group for one in theirs.load("test")}


def test_one_question_cannot_be_halved(tmp_path):
    """The fault names the groups."""
    rows = [row for row in questions(9, random.Random(0)) if row["idx"]["question"] == 0]
    rows += [{**row, "idx": {**row["idx"], "answer": 9}} for row in rows]
    with pytest.raises(DataError, match=r"in groups \(\{idx.paragraph\}-\{idx.question\}\)") as caught:
        multirc(tmp_path, rows).load("dev")
    assert caught.value.code == "D13"


def test_rows_without_a_questions_number_are_refused(tmp_path):
    """As any column that is not there."""
    rows = [
        {key: value for key, value in row.items() if key != "idx"} for row in questions(9, random.Random(0))
    ]
    with pytest.raises(DataError, match=r"no column 'idx\.paragraph'") as caught:
        multirc(tmp_path, rows).load("train")
    assert caught.value.code == "D01"


def test_capped_rows_are_whole_groups():
    """Without groups, the rows that were always drawn."""
    examples = [Example(f"t{i}", "a", group=f"g{i // 3}") for i in range(30)]
    some = subset(examples, 10)
    assert len(some) == 9
    assert set(Counter(one.group for one in some).values()) == {3}
    bare = [Example(f"t{i}", "a") for i in range(30)]
    assert subset(bare, 10) == [bare[i] for i in sorted(random.Random(0).sample(range(30), 10))]


def by_hand(guesses, golds, names):
    """Exact match of questions and F1 over answers, as SuperGLUE's scorer counts them."""
    right = {}
    for guess, gold, name in zip(guesses, golds, names, strict=True):
        right.setdefault(name, []).append(guess == gold)
    em = 100 * sum(all(each) for each in right.values()) / len(right)
    return em, 100 * f1_score(golds, guesses, pos_label="yes", zero_division=0)


rows_of_answers = st.lists(
    st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no"]), st.integers(0, 5)), min_size=1
)


@settings(max_examples=150, deadline=None)
@given(rows_of_answers)
def test_scores_of_multirc_are_those_of_superglue(rows):
    """EM over whole questions, F1 over all answers, against loops and scikit-learn."""
    guesses, golds, names = zip(*rows, strict=True)
    examples = [Example(f"t{i}", gold, group=f"g{name}") for i, (_, gold, name) in enumerate(rows)]
    found = score(from_spec(SPECS["multirc"]), examples, [Answer("multirc", chosen=one) for one in guesses])
    em, f1 = by_hand(guesses, golds, names)
    assert found.metrics["group_em"] == pytest.approx(em)
    assert (found.metrics["f1_binary"] or 0) == pytest.approx(f1)
    assert found.metrics["accuracy"] == pytest.approx(100 * np.mean([a == b for a, b, _ in rows]))


def test_group_em_without_groups_is_accuracy():
    """Each row is alone; no rows have no score."""
    guesses, golds = ["a", "b ", "c"], [("a",), ("b", "d"), ("d",)]
    assert group_em(guesses, golds) == accuracy(guesses, golds) == pytest.approx(200 / 3)
    assert measured(group_em, guesses, golds, ["x", "x", "y"]) == 50
    assert measured(group_em, guesses, golds, ["", "y", "y"]) == 50
    assert group_em([], []) is None


def test_group_em_needs_groups():
    """A task that does not say which rows belong together cannot ask for it."""
    with pytest.raises(ValueError, match="say under 'group'"):
        TaskSpec(name="a", source="{x}", target="{y}", metrics=("group_em",))


def test_intervals_draw_whole_groups():
    """Of rows that are copies within a group, as wide as of the groups alone; drawn ones count as often."""
    right = [i % 3 == 0 for i in range(60)]
    guesses = ["a" if one else "b" for one in right for _ in range(5)]
    golds, names = [("a",)] * 300, [f"g{i}" for i in range(60) for _ in range(5)]
    chance = np.random.default_rng(0)
    shares = [100 * np.mean(np.array(right)[chance.integers(60, size=60)]) for _ in range(1000)]
    low, high = np.percentile(shares, [2.5, 97.5])
    for metric in (accuracy, group_em):
        found = interval(metric.__name__, metric, guesses, golds, names)
        assert found.method == "bootstrap"
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    alone = interval("accuracy", accuracy, guesses, golds)
    assert alone.method == "Wilson"
    assert alone.high - alone.low < (high - low) / 2


def test_figures_find_the_groups_in_the_lines():
    """Lines of predictions carry the group where a row has one, and only there."""
    task = from_spec(SPECS["multirc"])
    examples = [
        Example("t", "yes", group="1-2"),
        Example("u", "no", group="1-2"),
        Example("v", "no", group="3"),
    ]
    given = [
        Answer("multirc", chosen=one, probabilities={"no": 0.5, "yes": 0.5}) for one in ("yes", "yes", "no")
    ]
    pairs = zip(examples, given, strict=True)
    lines = [json.loads(answer_blocks.line(i, task, *pair)) for i, pair in enumerate(pairs)]
    assert [line["group"] for line in lines] == ["1-2", "1-2", "3"]
    found = figures(task, lines)
    assert (found.scores.metrics["group_em"], found.groups) == (50, 2)
    assert "The rows make 2 groups; intervals draw whole groups." in figures_text.text([found], 200)
    assert "group" not in json.loads(answer_blocks.line(0, task, Example("t", "yes"), given[0]))


# E2E: several references, a row each


def e2e(folder, rows):
    """E2E on rows made by hand, in all three files."""
    (folder / "e2e").mkdir()
    for name in ("train", "validation", "test"):
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / "e2e" / f"{name}.parquet")
    return from_spec(SPECS["e2e"], folder)


def test_references_of_one_meaning_are_put_together(tmp_path):
    """In train an example for each, in dev and test one with all of them, also where they stand apart."""
    rows = [("m1", "a b"), ("m2", "c"), ("m1", "d"), ("m1", "a b")]
    task = e2e(tmp_path, [{"meaning_representation": m, "human_reference": text} for m, text in rows])
    both = ("a b", "d")
    for split in ("dev", "test"):
        assert task.load(split) == [
            Example("meaning: m1", "a b", both),
            Example("meaning: m2", "c", ("c",)),
        ]
    assert [(one.source, one.target) for one in task.load("train")] == [
        ("meaning: m1", "a b"),
        ("meaning: m1", "d"),
        ("meaning: m2", "c"),
    ]
    assert task.accounting("test") == {"read": 2, "used": 2, "dropped": {}}


def test_references_in_a_list_are_the_same(tmp_path):
    """One row a meaning, as other copies of the data set have it."""
    rows = [
        {"meaning_representation": "m1", "references": ["a b", "d"]},
        {"meaning_representation": "m2", "references": ["c"]},
    ]
    task = e2e(tmp_path, rows)
    assert [one.accepted for one in task.load("test")] == [("a b", "d"), ("c",)]
    assert [one.target for one in task.load("train")] == ["a b", "d", "c"]


def test_faults_of_e2e_name_the_row_of_the_file(tmp_path):
    """Rows are counted before they are put together."""
    rows = [{"meaning_representation": text, "human_reference": "a"} for text in ("m1", "m1", None)]
    with pytest.raises(DataError) as caught:
        e2e(tmp_path, rows).load("train")
    assert caught.value.code == "D02"
    assert caught.value.where.endswith("train.parquet, row 3")
