"""From a file to answers: columns, rows, the task that is left, the runs, and what is said of them."""

import csv
import json
import sys
from contextlib import chdir

import numpy as np
import pytest
from conftest import build_lm, build_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_job import BAD, GOOD, NOUNS, command, rows_of

from weft import runs
from weft.errors import ArtifactError, ConfigError, DataError, UnsupportedError
from weft.evaluation.figures import Figures
from weft.evaluation.scores import Scores
from weft.learning import task_file, verdict
from weft.learning.columns import Columns, find
from weft.learning.drawing import shares
from weft.learning.rows import described, few, understand
from weft.learning.verdict import Scored
from weft.models.bundled import KNOWN
from weft.tasks import load_spec


def table(**columns):
    """Rows of named columns."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


LONG = ["the first text is long", "so is the second one here", "and the third of them", "and the fourth one"]


# columns


@pytest.mark.parametrize(
    ("columns", "texts", "answer"),
    [
        ({"id": "1234", "message": LONG, "kind": "abab"}, ("message",), "kind"),
        ({"Text": LONG, "LABEL": "abab"}, ("Text",), "LABEL"),
        ({"premise": LONG, "hypothesis": LONG, "label": "abab"}, ("premise", "hypothesis"), "label"),
        ({"hypothesis": LONG, "premise": LONG, "label": "abab"}, ("premise", "hypothesis"), "label"),
        ({"was_sagt_er": LONG, "was_ist_es": "abab"}, ("was_sagt_er",), "was_ist_es"),
        ({"row": "1234", "free": LONG, "gold": "abab"}, ("free",), "gold"),
    ],
)
def test_columns_are_found_by_name_pair_or_form(columns, texts, answer):
    """And it is said that they were found."""
    found = find(table(**columns))
    assert (found.texts, found.answer, found.found) == (texts, answer, (*texts, answer))


def test_columns_that_are_named_are_taken():
    """Whatever they are called; what is not named is found among the others."""
    rows = table(text=LONG, label="abab", other=LONG, mark="xyxy")
    assert find(rows, ["other"], "mark") == Columns(("other",), "mark")
    assert find(rows, ["other", "text"]) == Columns(("other", "text"), "label", ("label",))
    assert find(rows, (), "mark") == Columns(("text",), "mark", ("text",))


@pytest.mark.parametrize(
    ("columns", "options", "kind", "message", "fix"),
    [
        ({"text": LONG, "label": "abab"}, (["txt"], None), DataError, "no column 'txt'", "'text'"),
        ({"text": LONG, "label": "abab"}, ((), "lable"), DataError, "no column 'lable'", "'label'"),
        ({"text": LONG, "label": "abab"}, (["text"], "text"), ConfigError, "both text and answer", ""),
        ({"text": LONG, "one": "abab", "two": "cdcd"}, ((), None), ConfigError, "'one', 'two'", "--answer"),
        (
            {"text": LONG, "label": "abab", "kind": "cdcd"},
            ((), None),
            ConfigError,
            "'label', 'kind'",
            "--answer",
        ),
        ({"text": LONG, "body": LONG, "label": "abab"}, ((), None), ConfigError, "'text', 'body'", "--text"),
        ({"text": LONG}, ((), None), ConfigError, "holds the answers", "--answer"),
    ],
)
def test_columns_that_are_not_plain_are_asked_for(columns, options, kind, message, fix):
    """With those in question, and the option that names one."""
    with pytest.raises(kind, match=message) as caught:
        find(table(**columns), *options)
    assert fix in caught.value.fix


# rows


def test_rows_that_cannot_be_learnt_from_are_left_out_and_counted():
    """By their numbers in the file; values become text, answers lose the spaces around them."""
    rows = [
        {"text": "one", "label": " a "},
        {"text": " ", "label": "a"},
        {"text": None, "label": "a"},
        {"text": "two", "label": None},
        {"text": "three", "label": float("nan")},
        {"text": "four", "label": ""},
        {"text": "five", "label": "b"},
        {"text": "six", "label": ["a"]},
        {"text": 7, "label": "b"},
    ]
    found = understand(rows, Columns(("text",), "label"))
    assert [row["label"] for row in found.rows] == ["a", "b", "a", "b"]
    assert [row["text"] for row in found.rows] == ["one", "five", "six", "7"]
    assert found.left_out == {"no text": [2, 3], "no answer": [4, 5, 6]}
    assert (found.counts, found.kind) == ({"a": 2, "b": 2}, "closed")
    said = "\n".join(described(found, len(rows)))
    assert "left out: 2 rows with no text (row 2, 3)" in said
    assert "left out: 3 rows with no answer (row 4, 5, 6)" in said


@pytest.mark.parametrize(
    ("answers", "kind", "message"),
    [
        ([["a", "b"], "a", "b", "a"], UnsupportedError, "list of 2 answers"),
        (["a;b", "a", "b", "a;b"], UnsupportedError, "'a;b' join others by ';'"),
        (["a, b", "b, c", "a, c", "b, c"], UnsupportedError, "join others by ','"),
        (["0.5", "1.25", "3", "4"], UnsupportedError, "different numbers"),
        (["a", "a", "a", "a"], DataError, "every row has the answer 'a'"),
        (["", "", "", ""], DataError, "no row has text and answer"),
    ],
)
def test_answers_that_are_no_choice_are_refused(answers, kind, message):
    """Several in a row, numbers on a scale, one for all; with what to do instead."""
    with pytest.raises(kind, match=message) as caught:
        understand(table(text=LONG, label=answers), Columns(("text",), "label"))
    assert caught.value.fix


def test_an_answer_with_a_comma_may_be_one_answer():
    """Where its parts are no answers of their own, or the user says so."""
    columns = Columns(("text",), "label")
    assert understand(table(text=LONG, label=["bed, bath", "toys"] * 2), columns).kind == "closed"
    joined = table(text=LONG, label=["a, b", "a", "b", "a, b"])
    assert understand(joined, columns, whole=True).counts == {"a, b": 2, "a": 1, "b": 1}


def test_what_is_odd_is_said():
    """Answers that differ in case alone, and those with one row."""
    rows = table(text=[*LONG, *LONG], label=["Yes", "yes", "yes", "no", "no", "no", "no", "Yes"])
    said = described(understand([*rows, {"text": "x", "label": "rare"}], Columns(("text",), "label")), 9)
    assert "odd: 'Yes' and 'yes' differ in case alone" in said
    assert "odd: 1 answers have one row, too few to tell how well they do: 'rare'" in said


def test_answers_that_hardly_repeat_are_open():
    """They are texts to write, not a set to choose from."""
    assert understand(table(text=LONG, label=LONG), Columns(("text",), "label")).kind == "open"


# large files


def large(count, kind="closed"):
    """Rows with answers of very unlike shares, or with open ones; texts end with their places."""
    answers = ["often", "some", "often", "often"] * (count // 4)
    answers[7::1000] = ["rare"] * len(answers[7::1000])
    answers[11], answers[13] = "alone", "alone"
    said = answers if kind == "closed" else [f"answer {i}" for i in range(count)]
    return table(text=[f"text {i}" for i in range(count)], label=said)


def test_of_a_large_file_every_answer_keeps_its_share_and_a_few_rows():
    """In the order of the file, and the same ones of one seed; the answers keep their places."""
    whole = understand(large(20_000), Columns(("text",), "label"))
    rows = few(whole, 2000, 0)
    places = [int(row["text"].split()[1]) for row in rows.rows]
    assert len(places) == len(set(places)) == 2000
    assert places == sorted(places)
    assert rows.answers == whole.answers
    assert (rows.counts["alone"], whole.counts["alone"]) == (2, 2)
    assert rows.counts["rare"] >= 8
    for answer in ("often", "some"):
        assert abs(rows.counts[answer] / 2000 - whole.counts[answer] / 20_000) < 0.01
    assert few(whole, 2000, 0) == rows
    assert few(whole, 2000, 1).rows != rows.rows


@given(
    counts=st.lists(st.integers(1, 3000), min_size=1, max_size=60).filter(lambda counts: sum(counts) > 100),
    most=st.integers(1, 100),
)
def test_shares_are_as_many_rows_as_are_wanted(counts, most):
    """Or two of each answer, where these are more; no answer has more than its rows."""
    found = shares(dict(enumerate(counts)), most)
    assert all(min(2, counts[i]) <= share <= counts[i] for i, share in found.items())
    assert sum(found.values()) == max(most, sum(min(2, count) for count in counts))


@pytest.mark.parametrize("kind", ["closed", "open"])
def test_a_large_file_is_not_learnt_whole_in_silence(tmp_path, base, capsys, monkeypatch, kind):
    """What is said and left, with --rows and without; nothing is trained here."""
    monkeypatch.setattr("weft.learning.learn.validation.check_runs", lambda *_: sys.exit(99))
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, large(3000, kind))), "utf-8")
    for words, count in (((), 2000), (("--rows", 500), 500), (("--rows", 3000), None)):
        assert learn(tmp_path, base, file, *words) == 99
        said = f"learning from {count or 0:,} of 3,000 rows; --rows N for more\n"
        assert (said in capsys.readouterr().out) == (count is not None)
        left = [path.read_text("utf-8") for path in (tmp_path / "tasks").glob("*.jsonl")]
        assert len("".join(left).splitlines()) == (count or 3000)
    assert learn(tmp_path, base, file, "--rows", 0) == 2


def test_rows_of_an_earlier_run_stay_beside_those_of_a_large_file():
    """They were few enough to be learnt from, and the user asks for them."""
    earlier = [{"text": f"old {i}", "label": "often"} for i in range(30)]
    rows = few(understand(large(3000), Columns(("text",), "label"), earlier=earlier), 100, 0)
    assert (rows.rows[:30], len(rows.rows), rows.before) == (earlier, 130, 30)
    assert sum(rows.counts.values()) == 130


# the task that is left


@pytest.mark.parametrize(
    ("file", "name"), [("My Tickets.v2.csv", "my-tickets"), ("2024_x.jsonl.gz", "2024_x")]
)
def test_a_task_has_the_name_of_its_file(file, name):
    """In the letters that names may have."""
    assert task_file.name_of(file) == name


def test_a_name_of_no_letter_is_asked_for():
    """Instead of made up."""
    with pytest.raises(ConfigError, match="no task can be named"):
        task_file.name_of("票.csv")


@pytest.mark.parametrize(
    "answers",
    [
        *(["yes", "no"], ["1", "0"], ["null", "~"], ["a: b", "# c"], ["ja", "nö 👍"]),
        ["a\x85b", "a\x1f" + 9 * "\U00010000" + "0 0"],
    ],
)
def test_a_task_file_reads_back_as_it_was_meant(tmp_path, answers):
    """Also where answers are words of YAML; rows lie beside it, held ones apart."""
    rows = understand(table(text=[*LONG, *LONG], label=answers * 4), Columns(("text",), "label"))
    spec = task_file.write(tmp_path, "mine", rows, held=[1, 2])
    assert spec == load_spec(tmp_path / "mine.yaml")
    assert spec.labels == {answer: answer for answer in answers}
    lines = {
        split: (tmp_path / file).read_text("utf-8").split("\n")[:-1] for split, file in spec.files.items()
    }
    assert [len(lines[split]) for split in ("train", "test")] == [6, 2]
    assert json.loads(lines["test"][0]) == rows.rows[1]


# the command


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny base model."""
    folder = tmp_path_factory.mktemp("base")
    build_lm("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def write(path, start=0, count=40, answers=("good", "bad")):
    """A file of rows that a tiny model can learn."""
    rows = [json.loads(line) for line in rows_of("alpha", (GOOD, BAD), count, start).splitlines()]
    with path.open("w", encoding="utf-8", newline="") as file:
        made = csv.writer(file)
        made.writerow(["number", "message", "kind"])
        made.writerows([i, row["text"], answers["yn".index(row["label"])]] for i, row in enumerate(rows))
    return path


def learn(folder, base, *arguments):
    """Exit code of `weft learn` with its task and runs in a folder."""
    places = ("--tasks", folder / "tasks", "--runs", folder / "runs", "--base", base, "--quiet")
    return command("learn", *arguments, *places)


def test_learn_leaves_a_task_a_run_and_an_honest_table(tmp_path, base, capsys):
    """Scores are those of the runs; again, nothing is run; its last line is a command that works."""
    file = write(tmp_path / "tickets.csv")
    assert learn(tmp_path, base, file, "--folds", 3) == 0
    said = capsys.readouterr().out
    assert "40 rows; text: message (found); answer: kind (found)" in said
    assert "2 answers: good 20, bad 20" in said
    finished = {run.id: run for run in runs.finished(tmp_path / "runs")}
    [adapted] = [run for name, run in finished.items() if name.startswith("adapt-weft-tickets")]
    scores = {}
    for run in finished.values():
        if run.config().stage == "evaluate":
            assert (run.config().folds, run.config().split) == (3, "train")
            lines = run.lines("predictions.jsonl")
            assert len(lines) == 40
            own = 100 * sum(one["answer"] == one["references"][0] for one in lines) / 40
            assert run.scores("tickets", "accuracy")["metrics"]["accuracy"] == own
            scores[run.config().method.name] = own
    assert set(scores) == {"weft", "tfidf", "frozen_features", "majority"}
    for label, name in (("weft", "weft"), ("TF-IDF + LR", "tfidf"), ("majority", "majority")):
        assert f"{scores[name]:.1f}" in next(line for line in said.splitlines() if line.startswith(label))
    best = max(scores, key=lambda name: scores[name])
    assert ("weft is the best" in said) == (best == "weft" and list(scores.values()).count(scores[best]) == 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("manifest.json")}
    assert learn(tmp_path, base, file, "--folds", 3) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("manifest.json")} == before
    new = write(tmp_path / "new.csv", start=50, count=4)
    capsys.readouterr()
    assert command("predict", adapted.path, new) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["task"] for one in answers] == ["tickets"] * 4
    assert {one["answer"] for one in answers} <= {"good", "bad"}


def test_semicolons_of_a_spreadsheet_are_said(tmp_path, base, capsys):
    """Learnt, scored and answered as with commas; the runs have the same names."""
    file, other = write(tmp_path / "tickets.csv"), tmp_path / "sheet" / "tickets.csv"
    other.parent.mkdir()
    other.write_text("\ufeff" + file.read_text("utf-8").replace(",", ";"), "utf-8")
    assert learn(tmp_path, base, file, "--folds", 2, "--json") == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert learn(tmp_path, base, other, "--folds", 2) == 0
    said = capsys.readouterr().out
    assert "\ncolumns are separated by semicolons\n" in said
    assert f"run:      {run}\n" in said
    assert command("predict", run, other) == 0
    assert len(capsys.readouterr().out.splitlines()) == 40
    assert command("evaluate", run, other, "--json") == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["tickets"]["rows"] == 40


def test_learn_goes_on_from_a_run_with_new_rows_and_a_new_answer(tmp_path, base, capsys):
    """Earlier rows stay; of one text the new answer stands; the task and the places of its answers stay."""
    assert learn(tmp_path, base, write(tmp_path / "tickets.csv"), "--folds", 2, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    old = (tmp_path / "tasks" / "tickets.jsonl").read_text("utf-8").splitlines()
    changed = {**json.loads(old[0]), "kind": "odd"}
    extra = [changed, {"message": "the hotel was odd", "kind": "odd"}]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, extra)), "utf-8")
    arguments = (tmp_path / "more.jsonl", "--from", first["run"].rpartition("/")[2], "--folds", 2, "--json")
    assert learn(tmp_path, base, *arguments) == 0
    again = json.loads(capsys.readouterr().out)
    rows = [
        json.loads(line) for line in (tmp_path / "tasks" / "tickets.jsonl").read_text("utf-8").splitlines()
    ]
    assert rows == [*map(json.loads, old[1:]), *extra]
    assert list(load_spec(tmp_path / "tasks" / "tickets.yaml").labels or ()) == ["good", "bad", "odd"]
    assert again["run"] != first["run"]


def test_open_answers_are_learnt_by_a_prompt(tmp_path, base, capsys):
    """It is scored on a fifth of the rows, which it did not see, beside the bare model and the majority."""
    rows = [
        {"text": f"the {word} {noun}", "answer": f"{noun} is {word}"} for noun in NOUNS[:5] for word in GOOD
    ]
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert learn(tmp_path, base, tmp_path / "notes.jsonl") == 0
    said = capsys.readouterr().out
    assert "25 different answers in 25 rows: open answers" in said
    seen = (tmp_path / "tasks" / "notes.jsonl").read_text("utf-8").splitlines()
    held = (tmp_path / "tasks" / "notes.test.jsonl").read_text("utf-8").splitlines()
    assert (len(seen), len(held)) == (20, 5)
    assert not set(seen) & set(held)
    assert all(f"\n{label} " in said for label in ("prompt tuning", "bare model", "majority"))
    assert "5 rows" in said


def test_a_prompt_for_peft_stands_before_the_text_and_is_exported(tmp_path, base, capsys):
    """The last line is a command that works."""
    assert learn(tmp_path, base, write(tmp_path / "tickets.csv"), "--for", "peft") == 0
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if line.startswith("adapter:")]
    words = [str(tmp_path / "adapter") if word == "FOLDER" else word for word in line.split()[2:]]
    assert command(*words, "--runs", tmp_path / "runs") == 0
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_learn_with_json_prints_one_object(tmp_path, base, capsys):
    """With every score's run, and nothing else on standard output."""
    assert learn(tmp_path, base, write(tmp_path / "tickets.csv"), "--folds", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == {"read": 40, "learnt": 40}
    assert set(found["scores"]) == {"weft", "frozen features + LR", "TF-IDF + LR", "majority"}
    assert found["scores"]["majority"]["metrics"]["accuracy"] == 50.0
    assert (tmp_path / "tasks" / "tickets.yaml").samefile(found["task_file"])


def test_faults_of_the_file_are_told_before_anything_is_written(tmp_path, base, capsys):
    """A column that is not there ends with exit code 3, and leaves no task."""
    assert learn(tmp_path, base, write(tmp_path / "tickets.csv"), "--text", "massage") == 3
    assert "there is no column 'massage'" in capsys.readouterr().err
    assert not (tmp_path / "tasks").exists()


@pytest.mark.parametrize(
    ("config", "message", "code"),
    [
        (None, "there is no base model", 4),
        ("{}", "config.json does not say what kind of model", 4),
        ('{"model_type": "mamba"}', "weft does not know models of type 'mamba'", 2),
    ],
)
def test_a_base_model_that_is_none_is_refused_before_anything_is_written(
    tmp_path, capsys, config, message, code
):
    """What is written is what can be learnt."""
    if config is not None:
        (tmp_path / "base").mkdir()
        (tmp_path / "base" / "config.json").write_text(config, "utf-8")
    assert learn(tmp_path, tmp_path / "base", write(tmp_path / "tickets.csv")) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "tasks").exists()


def test_longer_texts_are_read_where_they_are_asked_for(tmp_path, base, capsys):
    """In the run, in its scores, and in a run that goes on from it; a text of no token is refused."""
    file = write(tmp_path / "tickets.csv")
    assert learn(tmp_path, base, file, "--tokens", 0) == 2
    assert "texts of 0 tokens are none to learn from" in capsys.readouterr().err
    assert not (tmp_path / "tasks").exists()
    assert learn(tmp_path, base, file, "--tokens", 3, "--folds", 2, "--json") == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert {one.config().limits.source_tokens for one in runs.finished(tmp_path / "runs")} == {3}
    assert learn(tmp_path, base, file, "--from", run, "--folds", 2, "--json") == 0
    again = json.loads(capsys.readouterr().out)["run"]
    assert runs.find(tmp_path, again).config().limits.source_tokens == 3


def test_an_encoder_that_is_not_installed_is_told_before_anything_is_written(
    tmp_path, base, capsys, monkeypatch
):
    """With what to install; a prompt for PEFT reads with none, and is not held up."""

    def gone():
        raise ArtifactError("the wheel is not installed", where="base.model", fix="install it", code="A01")

    monkeypatch.setitem(KNOWN, "minilm", gone)
    assert learn(tmp_path, base, write(tmp_path / "tickets.csv")) == 4
    said = capsys.readouterr().err
    assert "the wheel is not installed" in said
    assert not (tmp_path / "tasks").exists()
    assert learn(tmp_path, base, write(tmp_path / "tickets.csv"), "--for", "peft") == 0


def test_a_base_model_is_found_again_from_elsewhere(tmp_path, base, capsys):
    """A relative name is one of the folder that the command ran in; the run has the whole path."""
    with chdir(base.parent):
        assert learn(tmp_path, base.name, write(tmp_path / "tickets.csv"), "--folds", 2, "--json") == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert runs.find(tmp_path, run).config().base.model == str(base)


# what is said


def scored(label, points):
    """A row of the table with these points; of its figures the mean counts alone."""
    scores = Scores(len(points), {"accuracy": float(np.mean(points))})
    return Scored(label, Figures("t", "accuracy", scores, {"accuracy": None}, ("a", 50.0)), tuple(points))


def test_the_difference_is_that_of_the_same_rows():
    """Its interval is that of paired rows, as scipy has it; of few rows there is none."""
    draw = np.random.default_rng(0)
    own = 100.0 * (draw.random(200) < 0.9)
    other = np.where(draw.random(200) < 0.9, own, 100 - own)
    gap, low, high = verdict.difference(scored("a", own), scored("b", other))
    found = stats.norm.interval(0.95, *(lambda d: (d.mean(), stats.sem(d)))(own - other))
    assert gap == round(float((own - other).mean()), 1)
    assert (low, high) == pytest.approx(found)
    assert verdict.difference(scored("a", own[:9]), scored("b", other[:9]))[2] == np.inf


@pytest.mark.parametrize(
    ("own", "best", "said"),
    [
        ([100.0] * 30, [100.0, 0.0] * 15, "weft is the best, 50.0 points above other (95 %"),
        ([100.0, 0.0] * 15, [100.0] * 30, "other is better than weft here, by 50.0 points (95 %"),
        ([100.0, 0.0] * 15, [0.0, 100.0] * 15, "weft and other have the same score"),
        ([100.0] * 4, [0.0] * 4, "weft is the best, 100.0 points above other. | The rows are too few"),
        ([100.0, 0.0] * 15, [100.0, 0.0] * 14 + [0.0, 0.0], "points above other (95 %"),
    ],
)
def test_the_best_is_named_whoever_it_is(own, best, said):
    """And where the rows cannot tell the two apart, that is said."""
    found = verdict.sentences([scored("weft", own), scored("other", best), scored("worse", [0.0] * len(own))])
    assert said in " | ".join(found)
    low, high = verdict.difference(scored("weft", own), scored("other", best))[1:]
    unsure = low <= 0 <= high and np.mean(own) != np.mean(best)
    assert unsure == ("too few to tell" in " | ".join(found))
