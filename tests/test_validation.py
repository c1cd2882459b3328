"""The pass over a plan: leaks against a slow oracle, rows counted, warnings, and what a table says of it."""

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bad_inputs import (
    EXPERIMENT,
    SIZES,
    TASK,
    Edit,
    base,
    blocks,
    both,
    cell,
    command,
    model,
    rows,
    seen,
    setting,
    swap,
    task,
    texts,
    world,
)

from weft import storage
from weft.checks.overlap import SENTENCE, leaks, normal, repeats, shared
from weft.config.files import load_config
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.config.training import LimitsConfig
from weft.errors import DataError
from weft.experiments import jobs, notes, results, tables
from weft.experiments.config import Experiment
from weft.experiments.report import parts
from weft.experiments.validation import check_evaluation, check_file, check_runs
from weft.methods.frozen_features import FrozenFeatures
from weft.methods.no_prompt import NoPrompt
from weft.methods.tfidf import TfIdf
from weft.runs.config import AdaptRun, EvaluateRun
from weft.runs.workspace import Workspace
from weft.tasks import from_spec, load_spec
from weft.tasks.template import fields

__all__ = ["base", "world"]  # fixtures
Capture = pytest.CaptureFixture[str]
modest = settings(max_examples=200, deadline=None)
sentence = st.text("aB+ .,!-é", max_size=6)
inputs = st.lists(st.tuples(sentence), max_size=8)


# leaks


def same(one: str, other: str) -> bool:
    """The oracle: the same letters and plus signs, read one by one; without any, the same text."""
    left, right = (
        [sign for sign in text.casefold() if sign.isalpha() or sign == "+"] for text in (one, other)
    )
    return left == right if left and right else one == other


@modest
@given(train=inputs, test=inputs)
def test_leaks_are_those_of_comparing_every_pair(train: list[tuple[str]], test: list[tuple[str]]) -> None:
    """A row leaks if, and only if, some training row is the same; an exact partner goes first."""
    found = {leak.scored: leak for leak in leaks(train, test)}
    for place, (text,) in enumerate(test):
        partners = [i for i, (other,) in enumerate(train) if same(text, other)]
        assert (place in found) == bool(partners)
        if partners:
            assert found[place].seen in partners
            assert found[place].exact == any(train[i] == (text,) for i in partners)


@modest
@given(data=st.data(), count=st.integers(1, 6))
def test_planted_leaks_are_all_found_and_none_is_invented(data: st.DataObject, count: int) -> None:
    """Disguised copies of training rows among rows of other words."""
    train = [(f"seen {i} of many", "a sentence") for i in range(12)]
    picks = data.draw(st.lists(st.integers(0, 11), min_size=count, max_size=count))
    disguise = st.sampled_from([str, str.upper, str.title, lambda text: f" {text.replace(' ', ', ')}?! "])
    planted = [tuple(data.draw(disguise)(text) for text in train[i]) for i in picks]
    clean = [(f"fresh {i} of many", "a sentence") for i in range(count)]
    order = data.draw(st.permutations(range(2 * count)))
    mixed = [[*planted, *clean][i] for i in order]
    found = {leak.scored: leak.seen for leak in leaks(train, mixed)}
    assert found == {place: picks[i] for place, i in enumerate(order) if i < count}


@pytest.mark.parametrize(("one", "other", "alike"), [
    ("Good film.", "good FILM", True), ("a-b", "ab", True), ("Straße", "STRASSE", True), ("one 1", "one 2", False),
    ("!!!", "!!!", True), ("!!!", "???", False), ("a_b", "ab", True), ("", "!", False),
    ("“well” …", "Well.", True), ("it - is", "it is", True), ("cafe\u0301", "CAFÉ", True), ("a\u200bb", "ab", True),
    ("covid-19", "Covid 19", True), ("(see: a)", "see a", True), ("in 2019, 7 men", "in 2019 7 men", True),
    ("3 + 4", "3 - 4", False), ("4 − 3", "4-3", True), ("-3 degrees", "3 degrees", False), ("3.5", "35", False),
    ("12, 18", "1, 218", False), ("a < b", "a > b", False), ("a != b", "a = b", False), ("2 * 3", "2 / 3", False),
    ("5 %", "5", False), ("$5", "€5", False), ("food 👍", "food 👎", False), ("food 👍\ufe0f", "food👍", True),
    ("so :)", "so :(", False), ("so :-)", "so :-) !", True), ("so ✓", "so ✗", False), ("कि", "का", False),
])  # fmt: skip
def test_normal_forms(one: str, other: str, alike: bool) -> None:
    """By hand: case, spaces and punctuation do not count; letters, digits and signs that may decide do."""
    assert (normal(one) == normal(other)) is alike


def test_sentences_are_counted_apart_from_whole_inputs() -> None:
    """One long field in common counts; a whole input or a short field does not."""
    long, other, third = ("x" * SENTENCE, "y" * SENTENCE, "z" * SENTENCE)
    train = [(long, other), ("yes", "short")]
    assert shared(train, [(long, third)]) == 1
    assert shared(train, [(third, other), (other, long)]) == 2
    assert shared(train, [(long, other)]) == 0
    assert shared(train, [("yes", third), ("x" * (SENTENCE - 1), third)]) == 0


@modest
@given(values=st.tuples(sentence, sentence))
def test_fields_come_back_from_a_text(values: tuple[str, str]) -> None:
    """A template's fields are read back from the text it makes, if they do not hold its words."""
    template = "first: {one} # second: {two}"
    text = template.replace("{one}", values[0]).replace("{two}", values[1])
    assert fields(template, text) == values
    assert fields(template, "of another form") == ("of another form",)
    assert fields("no field", "no field") == ("no field",)


def test_repeats_are_those_after_the_first() -> None:
    """Places of copies, by hand."""
    assert repeats(["a", "b", "a", "a", "c", "b"]) == [2, 3, 5]


# rows


@modest
@given(data=st.data())
def test_rows_read_are_rows_used_and_rows_dropped(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """read = used + dropped, for a format that drops rows without answers."""
    folder = tmp_path_factory.mktemp("rows")
    counts = [1, *data.draw(st.lists(st.integers(0, 2), max_size=8))]
    lines = [json.dumps({"question": "q", "context": "c", "answers": ["a"] * n}) for n in counts]
    (folder / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    spec = TaskSpec(
        name="t", files={"train": "rows.jsonl"}, folder=str(folder), format="qa", source="{question} {context}",
        target="{answer}", references="answers",
    )  # fmt: skip
    counted = from_spec(spec).accounting("train")
    assert counted["read"] == len(counts)
    assert counted["used"] == sum(n > 0 for n in counts)
    assert counted["read"] == counted["used"] + sum(counted["dropped"].values())


def test_pass_says_what_becomes_of_the_rows(world: Path, capsys: Capture) -> None:
    """Rows read, taken after the draws of both seeds, and cut, for each task and split."""
    setting("limits: {source_tokens: 12}", "limits: {source_tokens: 12, train_rows: 20, dev_rows: 5}")(world)
    cell("alpha-dev.csv", 3, f"{'the dog ' * 7},n")(world)
    setting("dev_rows: 5", "dev_rows: 8")(world)
    checked = check_file(world / "small.yaml", {}, Workspace(world / "runs"))
    assert checked.rows["alpha"]["train"] == {"read": 24, "used": 24, "dropped": {}, "taken": 20, "cut": 0}
    assert checked.rows["alpha"]["dev"] == {"read": 8, "used": 8, "dropped": {}, "taken": 8, "cut": 1}
    assert checked.rows["gamma"]["test"]["taken"] == SIZES["test"]
    assert 8 < checked.rows["gamma"]["train"]["taken"] <= 16
    command("validate", "small.yaml")
    assert "alpha dev: 8 rows read, 8 taken, 1 cut" in capsys.readouterr().out


def test_only_used_rows_are_compared(world: Path) -> None:
    """A test row that stands in a training row which no draw takes is no leak, and one that is taken is."""
    setting("shots: 4", "shots: 1")(world)
    train = texts()["gamma-train.csv"]
    picked = []
    for text in train:
        cell("gamma-test.csv", 2, f"{text},y")(world)
        checked = check_file(world / "small.yaml", {}, Workspace(world / "runs"))
        picked.append(bool(checked.findings.errors))
    assert sum(picked) == checked.rows["gamma"]["train"]["taken"]
    assert 2 <= sum(picked) <= 4


@pytest.mark.parametrize(
    "word", ["None", "NA", "N/A", "null", "nan", "01", "1e5", "2026-11-21", "True", "0.0"]
)
def test_words_that_others_retype_stay_text(world: Path, capsys: Capture, word: str) -> None:
    """D04, D20: as a label and as a text, a word is the word it is; YAML and CSV agree on it."""
    task('"y": "yes"', f'"{word}": "yes"')(world)
    for name in ("gamma-train.csv", "gamma-dev.csv", "gamma-test.csv"):
        rows(name, lambda lines: [line[:-1] + word if line.endswith(",y") else line for line in lines])(world)
    cell("gamma-test.csv", 2, f"{word},{word}")(world)
    assert command("validate", "small.yaml") == 0
    specs = jobs.specs_of(load_config(world / "small.yaml", Experiment))
    first = from_spec(specs["gamma"]).load("test")[0]
    assert (first.source, first.target) == (word, "yes")


def test_files_of_glue_with_quotes_are_read(world: Path) -> None:
    """A TSV cell that begins with a quote, as in the public files, is a text like any other."""
    task("gamma-test.csv", "gamma-test.tsv")(world)
    lines = [
        f'"the {a} {b}\t{label}'
        for (a, b), label in zip(itertools.permutations("abcd", 2), "ynynyn", strict=False)
    ]
    (world / "tasks" / "gamma-test.tsv").write_text("\n".join(["text\tlabel", *lines]), "utf-8")
    assert command("validate", "small.yaml") == 0


def test_changed_file_stops_the_runs_that_read_it(world: Path) -> None:
    """D21: a file that changes after its rows were read is noticed before a run starts; others go on."""
    workspace = Workspace(world / "runs")
    experiment = load_config(world / "small.yaml", Experiment)
    plan = jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
    cell("alpha-train.csv", 3, "another text,n")(world)
    config = {job.label: job.config for job in plan.jobs}
    with pytest.raises(DataError, match="the train rows of 'alpha' changed while weft was at work") as caught:
        workspace.check_data(config["teacher alpha"])
    assert caught.value.code == "D21"
    workspace.check_data(config["teacher beta"])


# warnings

TEST = "gamma-test.csv"


def pair(text: str, more: str, count: int = 12) -> Edit:
    """The first rows of a task of two fields, with nothing but a space between them in its template."""

    def edit(world: Path) -> None:
        swap("tasks/alpha.yaml", '"{text}"', '"{text} {more}"')(world)
        for name, size in SIZES.items():
            cells = [f"{i} {text}" if name == "train" and i < count else f"book {i}" for i in range(size)]
            ends = [more if name == "train" and i < count else f"film {i} {name}" for i in range(size)]
            lines = [
                f"{one},{end},{'yn'[i % 2]}" for i, (one, end) in enumerate(zip(cells, ends, strict=True))
            ]
            path = world / "tasks" / f"alpha-{name}.csv"
            path.write_text("\n".join(["text,more,label", *lines]) + "\n", "utf-8")

    return edit


WARNINGS = {
    "no distillation": (setting("weight: 0.9", "weight: 0"), "C05", "no distillation: the source stage does not learn from the teachers"),
    "no term": (setting("weight: 0.9", "logits: false, hidden: false"), "C05", "no distillation: the source stage does not learn"),
    "target is a source": (setting("[gamma]", "[gamma, beta]"), "C11", "target 'beta' is also a source"),
    "batch over rows": (setting("steps: 6, batch_size: 6, eval", "steps: 6, batch_size: 25, eval"), "C17", "a batch of 25 rows is more than the 24 training rows"),
    "one copy": (cell("alpha-train.csv", 3, f"{texts()['alpha-train.csv'][0]},y"), "D10", "1 of 24 (4.2 %) training rows are copies"),
    "class without rows": (both(*(swap(f"tasks/{name}.yaml", '"n": "no"', '"n": "no", "m": "maybe"') for name in ("alpha",))), "D12", "1 of 3 answers have no row: 'maybe'"),
    "some texts cut": (cell("alpha-train.csv", 3, f"{'dog ' * 13},n"), "D14", "1 of 24 (4.2 %) texts are cut to 12 tokens; the longest has 13"),
    "an id that rows share": (rows("gamma-test.csv", lambda lines: [f"{line},{n // 2 if n else 'id'}" for n, line in enumerate(lines)]), "D09", "4 rows have an 'id' that stands before, with another text"),
    "dev row in training": (seen("alpha-train.csv", "alpha-dev.csv"), "D11", "1 of 8 (12.5 %) dev rows stand in the training rows of alpha"),
    "more shots than rows": (setting("shots: 4", "shots: 13"), "D13", "13 rows of 'no' are asked for, and there are 12: all are taken; that makes 12 of 'no', 12 of 'yes'"),
    "more shots in all than rows": (setting("shots: 4", "shots_total: 26"), "D13", "13 rows of 'no' are asked for, and there are 12: all are taken"),
    "the text shows the answer": (swap("tasks/alpha.yaml", '"{text}"', '"{text} {label}"'), "D20", "the text shows 'label', the column of the answer"),
    "one text with two answers": (rows("alpha-train.csv", lambda lines: [*lines[:-1], f"{lines[1].partition(',')[0].upper()}!,n"]), "D10", "2 of 24 (8.3 %) rows have the text of another row, and another answer"),
    "unlike signs that are one token": (rows("alpha-train.csv", lambda lines: [*lines[:-2], "good 👍,y", "good 👎,n"]), "D18", "2 of 24 (8.3 %) rows are the same tokens as one with another answer"),
    "the end that decides cut off": (rows("alpha-train.csv", lambda lines: [*lines[:-2], f"{'dog ' * 12}yes,y", f"{'dog ' * 12}no,n"]), "D18", "2 of 24 (8.3 %) rows are the same tokens as one with another answer"),
    "signs the model lacks": (rows(TEST, lambda lines: [*lines[:-2], "👍 добро,y", "悪い。,n"]), "D03", "2 of 10 (20.0 %) texts have a field of which the model knows less than half"),
    "an empty field beside another": (pair("a book", ""), "D02", "12 of 24 (50.0 %) rows have an empty field beside others: 'more' in 12"),
    "an invisible field beside another": (pair("a book", "\u200b"), "D02", "12 of 24 (50.0 %) rows have an empty field beside others: 'more' in 12"),
    "a field that is cut away": (pair("dog " * 12, "a book", 2), "D14", "2 of 24 (8.3 %) texts lose a whole field where they are cut: 'more' in 2"),
    "every text ends with its answer": (rows("alpha-train.csv", lambda lines: [lines[0], *(f"{line[:-2]} ({'yes' if line[-1] == 'y' else 'No'}),{line[-1]}" for line in lines[1:])]), "D20", "every text holds its own answer's word, and no other answer's"),
    "one first token": (both(*(swap(f"tasks/{name}.yaml", '"y": "yes"', '"y": "no fine"') for name in ("alpha",))), "D18", "label words begin with the same token: 'no fine', 'no'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNINGS)
def test_what_is_likely_not_meant_is_a_warning(world: Path, capsys: Capture, name: str) -> None:
    """Exit code 0, and a warning with its code."""
    edit, code, cause = WARNINGS[name]
    edit(world)
    assert command("validate", "small.yaml") == 0
    found = [block for block in blocks(capsys.readouterr().out) if block.startswith("warning: ")]
    assert [block for block in found if block.startswith(f"warning: WEFT-{code}: {cause}")]


# stages, adapters, origins


def test_stage_files_are_checked_too(world: Path, capsys: Capture) -> None:
    """A teacher's file with a long text and a leak: warnings; with a broken row: refused before weights load."""
    text = "tasks: [tasks/alpha.yaml]\nbase: {model: base, dtype: float32}\nprompt: {length: 4}\n"
    (world / "teacher.yaml").write_text(
        text + "optim: {lr: {prompt: 0.1}, steps: 2, eval_every: 1, batch_size: 4}\n"
    )
    seen("alpha-train.csv", "alpha-dev.csv")(world)
    assert command("teachers", "teacher.yaml", "--dry-run") == 0
    assert "warning: WEFT-D11" in capsys.readouterr().err
    cell("alpha-dev.csv", 3, "a,b,c")(world)
    assert command("teachers", "teacher.yaml") == 3
    assert "WEFT-D07" in capsys.readouterr().err


def test_test_rows_among_dev_rows_are_named_before_one_stage(world: Path, capsys: Capture) -> None:
    """They chose the state that is kept; without dev scores nothing was chosen."""
    seen("gamma-dev.csv", TEST)(world)
    text = (
        "tasks: [tasks/gamma.yaml]\nbase: {model: base, dtype: float32}\nprompt: {length: 4}\n"
        "method: {name: prompt_tuning}\noptim: {lr: {prompt: 0.1}, steps: 2, batch_size: 4EVERY}\n"
    )
    for every in (", eval_every: 1", ""):
        (world / "adapt.yaml").write_text(text.replace("EVERY", every), "utf-8")
        assert command("adapt", "adapt.yaml", "--dry-run") == 0
        said = " ".join(capsys.readouterr().err.split())
        assert ("WEFT-D11: 1 of 10 (10.0 %) test rows stand in the dev rows of gamma" in said) == bool(every)


def test_rows_that_are_scored_are_looked_at(world: Path) -> None:
    """An evaluation says what the model receives of its rows, and refuses a text without any sign."""
    spec = load_spec(world / "tasks" / "gamma.yaml")
    limits = LimitsConfig(source_tokens=12)
    base = BaseConfig(model="base")
    config = EvaluateRun(base=base, tasks=(spec,), method=NoPrompt(), limits=limits)

    def faults() -> dict[str, str]:
        found = check_evaluation(config, Workspace(Path("runs"))).findings.found
        return {f"{one.level} {one.fault.code}": one.fault.cause for one in found}

    assert faults() == {}
    rows(TEST, lambda lines: [*lines[:-3], f"{'dog ' * 13},y", "👍,n", "a </s> book,y"])(world)
    assert faults() == {
        "warning D03": "1 of 10 (10.0 %) texts have a field of which the model knows less than half",
        "warning D14": "1 of 10 (10.0 %) texts are cut to 12 tokens; the longest has 13",
        "warning D19": "1 texts hold a special token of the model: '</s>'",
    }
    rows(TEST, lambda lines: [*lines[:-1], "\u200b\u200b,y"])(world)
    assert faults()["error D02"].startswith("1 texts are nothing but white space")


def test_tokens_are_those_of_the_models_that_read(world: Path) -> None:
    """A method without a model is told of no cut text."""
    spec = load_spec(world / "tasks" / "alpha.yaml")
    cell("alpha-train.csv", 3, f"{'dog ' * 13},n")(world)
    for method, cut in ((TfIdf(), None), (FrozenFeatures(), 1)):
        common = {
            "base": BaseConfig(model="base"),
            "tasks": (spec,),
            "limits": LimitsConfig(source_tokens=12),
        }
        checked = check_runs([AdaptRun(method=method, **common)], Workspace(Path("runs")))
        assert checked.rows["alpha"]["train"]["cut"] == cut
        codes = [one.fault.code for one in checked.findings.found]
        assert ("D14" in codes) == bool(cut)


@pytest.mark.parametrize(("parent", "code"), [("nothing", "C12"), ("peft", "C16")])
def test_parent_that_is_no_run_is_refused(world: Path, capsys: Capture, parent: str, code: str) -> None:
    """A teacher that is not there, or is an adapter of PEFT, is named before weights load."""
    (world / "peft").mkdir()
    (world / "peft" / "adapter_config.json").write_text("{}")
    text = (
        f"tasks: [tasks/alpha.yaml, tasks/beta.yaml]\nteachers: {{alpha: {parent}}}\nprompt: {{length: 4}}\n"
    )
    rest = "base: {model: base, dtype: float32}\noptim: {lr: {shared: 0.1, factors: 0.1}, steps: 2, batch_size: 4}\n"
    (world / "source.yaml").write_text(text + rest)
    assert command("source", "source.yaml") in (2, 4)
    err = capsys.readouterr().err
    assert f"WEFT-{code}" in err
    assert "task 'beta' has no teacher" in err


METHODS = {  # what is asked: code, cause
    "{name: prompt_tuning, start: sentiment}": ("C12", "SPoT (start: sentiment) starts from finished runs"),
    "{name: dept, start: nearest}": ("C12", "none is named as teachers"),
    "{name: attempt, start: fresh}": ("C12", "ATTEMPT (start: fresh) starts from finished runs"),
    "{name: mpt}": ("C12", "none is named as source"),
    "{name: weft, encoders: []}": ("C12", "none is named as source or teachers"),
    "{name: weft, sources: false, encoders: [nowhere]}": ("C24", "there is no base model 'nowhere'"),
    "{name: weft, sources: false, encoders: [base]}": ("C08", "/base' is no encoder"),
    "{name: dept, length: 5}": ("C06", "method.length (5) exceeds prompt.length (4)"),
    "{name: lora, dropout: 0.1}": ("", "dropout is on only where the model's is"),
    "{name: lora, targets: [q_prj]}": ("", "the model has no linear layer 'q_prj'"),
    "{name: alora, targets: [q_prj]}": ("", "the model has no linear layer 'q_prj'"),
    "{name: alora, invocation: ' '}": ("", "the invocation has no token"),
    "{name: frozen_features, layers: [0, 3]}": ("C06", "layer 3 does not exist"),
    "{name: in_context, context_tokens: 3, instruction: yes no yes no}": ("C07", "there is room for 3"),
    "{name: in_context, context_tokens: 5, instruction: yes no yes no}": ("C07", "the first has more"),
}
GROUPS = {"prompt_tuning": "prompt", "dept": "prompt: 0.1, offsets", "attempt": "prompt: 0.1, attention"}
GROUPS |= {"mpt": "shared: 0.1, factors", "lora": "lora", "alora": "lora"}


def stage_of(method: str, prompt: str = "length: 4") -> str:
    """The file of a run that adapts a method to gamma."""
    name = method.partition("name: ")[2].split(",")[0].rstrip("}")
    optim = f"optim: {{lr: {{{GROUPS[name]}: 0.1}}, steps: 2, batch_size: 4}}\n" if name in GROUPS else ""
    return (
        f"base: {{model: base, dtype: float32}}\ntasks: [tasks/gamma.yaml]\nprompt: {{{prompt}}}\n"
        f"limits: {{source_tokens: 12}}\nshots: 4\nmethod: {method}\n{optim}"
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_would_refuse_is_found_before_it_runs(
    world: Path, capsys: Capture, method: str
) -> None:
    """Dry or not: the same code and cause, no weights, and no run."""
    code, cause = METHODS[method]
    (world / "adapt.yaml").write_text(stage_of(method), "utf-8")
    for dry in (["--dry-run"], []):
        assert command("adapt", "adapt.yaml", *dry) in (2, 4)
        said = " ".join(capsys.readouterr().err.split())
        assert f"error: {f'WEFT-{code}: ' if code else ''}" in said
        assert cause in said
        assert "fix: " in said
    assert not list((world / "runs").glob("adapt-*"))


def test_methods_that_can_work_are_not_refused(world: Path) -> None:
    """The same methods as they should be."""
    for method in (
        "{name: prompt_tuning}", "{name: dept, length: 4}", "{name: lora, targets: [q_proj, down_proj]}",
        "{name: alora}", "{name: frozen_features, layers: [0, 2]}", "{name: in_context}", "{name: tfidf}",
        "{name: weft, sources: false, encoders: []}",
    ):  # fmt: skip
        (world / "adapt.yaml").write_text(stage_of(method), "utf-8")
        assert command("adapt", "adapt.yaml", "--dry-run") == 0, method


def test_a_prompt_before_the_text_does_not_suit_all(world: Path, capsys: Capture) -> None:
    """Activated LoRA needs the text first; a text to start from needs a token that is text."""
    (world / "adapt.yaml").write_text(stage_of("{name: alora}", "length: 4, position: prefix"), "utf-8")
    assert command("adapt", "adapt.yaml", "--dry-run") == 2
    assert "must read the text before the additions act" in " ".join(capsys.readouterr().err.split())
    text = stage_of("{name: prompt_tuning}", "length: 4, init: text, init_text: </s>")
    (world / "adapt.yaml").write_text(text, "utf-8")
    assert command("adapt", "adapt.yaml", "--dry-run") == 2
    assert "the text that should start the prompt has no token" in " ".join(capsys.readouterr().err.split())


def test_rows_without_words_do_not_suit_tfidf(world: Path, capsys: Capture) -> None:
    """Found in the rows that are drawn, before anything is fitted."""
    signs = [f"{'!' * (i // 9 + 1)} {'?' * (i % 9 + 1)},{'yn'[i % 2]}" for i in range(24)]
    rows("gamma-train.csv", lambda lines: [lines[0], *signs])(world)
    (world / "adapt.yaml").write_text(stage_of("{name: tfidf}"), "utf-8")
    assert command("adapt", "adapt.yaml", "--dry-run") == 3
    assert "finds no word of two signs or more in the 8 training texts" in " ".join(
        capsys.readouterr().err.split()
    )


def test_origins_of_values(world: Path, capsys: Capture) -> None:
    """C21: each value comes from --set, from a line of the file, or is the default."""
    assert command("config", "--explain", "small.yaml", "--set", "shots=5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "shots = 5  # --set" in lines
    assert "prompt.length = 4  # small.yaml:3" in lines
    line = 1 + EXPERIMENT.splitlines().index("    optim: {lr: {prompt: 0.1}, steps: 4, batch_size: 6}")
    assert f"rows.1.optim.steps = 4  # small.yaml:{line}" in lines
    assert 'prompt.init = "vocabulary"  # default' in lines


# beside the scores


def test_table_names_allowances_leaks_and_shared_sentences(world: Path) -> None:
    """What `weft run` keeps of its checks stands in the footnote; of another experiment it does not."""
    long = "the good film is very good and the song is not"
    for name in ("alpha", "beta", "gamma"):
        both(swap(f"tasks/{name}.yaml", '"{text}"', '"{text} # {more}"'))(world)
    for name, found in texts().items():
        with (world / "tasks" / name).open("w", newline="") as file:
            same = [
                long if name in ("alpha-train.csv", "gamma-test.csv") and i < 2 else text
                for i, text in enumerate(found)
            ]
            csv.writer(file).writerows(
                [("text", "more", "label"), *zip(found, same, "yn" * 12, strict=False)]
            )
    first = texts()["beta-train.csv"][0]
    rows("gamma-test.csv", lambda lines: [*lines[:5], f"{first},{first},y", *lines[6:]])(world)
    setting("shots: 4", "shots: 4\nallow: [leaks, cuts]")(world)
    setting("[gamma]", "[gamma, beta]")(world)
    workspace = Workspace(world / "runs")
    checked = check_file(world / "small.yaml", {}, workspace)
    assert not checked.findings.errors
    assert checked.leaks["gamma"] == {"rows": 1, "by_task": {"beta": 1}}
    assert checked.shared == {"gamma": 2, "beta": 0}
    experiment = load_config(world / "small.yaml", Experiment)
    plan = jobs.plan(experiment, jobs.specs_of(experiment), workspace.run_id)
    before = " ".join(notes.notes(tables.collect(plan, workspace.root), plan))
    checked.save(workspace.root, experiment)
    after = " ".join(notes.notes(tables.collect(plan, workspace.root), plan))
    assert "Allowed in the data: leaks, cuts." in before
    assert "Targets that are also sources: beta." in before
    assert "Scored rows that are whole in training rows: gamma 1." in after
    assert "Scored rows that share a sentence with training rows: gamma 2." in after
    assert "training rows: gamma" not in before
    page = parts.rows_used(plan, workspace.root, tables.collect(plan, workspace.root))
    assert '<th scope="row">alpha train</th><td>24</td><td>24</td><td>0</td><td>24</td><td>2</td>' in page
    other = experiment.model_copy(update={"shots": 5})
    assert not results.checks_path(workspace.root, other).exists()
    assert storage.read_json(results.checks_path(workspace.root, experiment))["shared"]["gamma"] == 2


@pytest.mark.data
def test_real_experiment_passes_quickly() -> None:
    """The experiment on public data has no error, and its rows, most of them SNLI's, take seconds of a processor."""
    if not os.environ.get("WEFT_DATA"):
        pytest.skip("needs the real task data, given by WEFT_DATA")
    pytest.importorskip("gguf")
    path = Path(__file__).resolve().parents[1] / "configs" / "experiments" / "local" / "first.yaml"
    weft = [
        sys.executable,
        "-c",
        "from weft.cli import main; main()",
    ]  # without the shape checks of the tests
    before = os.times().children_user
    done = subprocess.run([*weft, "validate", str(path)], capture_output=True, text=True, check=True)
    assert "sst2 train: 59,988 rows read, 1,000 taken" in done.stdout
    assert "\n0 errors, " in done.stdout
    assert os.times().children_user - before < 20  # of which the imports take a third


def test_names_of_the_template_hold(world: Path) -> None:
    """The task template of these tests is a sound task."""
    (world / "one.yaml").write_text(TASK.replace("NAME", "one"), "utf-8")
    assert load_config(world / "one.yaml", TaskSpec).name == "one"
    model()(world)  # the copied base folder is as good as the linked one
    assert command("validate", "small.yaml") == 0
