"""What people read on a terminal: tables that fit, whatever the names, and say what is wrong."""

import csv
from io import StringIO

import pytest
from rich.cells import cell_len
from test_figures import line, task

from weft.cli import figures_text, predictions_text
from weft.errors import ConfigError
from weft.evaluation.figures import figures
from weft.serving.predictor import Prediction
from weft.text_table import filled, fitted, plain, render, shorten


def widest(text):
    return max(cell_len(one) for one in text.split("\n"))


def cells(text, start):
    """The words of the first line that starts so."""
    return next(one for one in text.split("\n") if one.startswith(start)).split()


@pytest.mark.parametrize(
    "name", ["plain words only", "日本語の長い名前です", "👍👨‍👩‍👧👍👍👍👍", "e\u0301" * 12]
)
def test_a_shortened_name_fits_and_keeps_both_ends(name):
    for most in (3, 7, 8, 9):
        found = shorten(name, most)
        assert cell_len(found) <= most
        assert found.count("…") == 1
        start, end = found.split("…")
        assert name.startswith(start)
        assert name.endswith(end)
    assert shorten(name, cell_len(name)) == name


def test_texts_cannot_steer_the_terminal():
    """Escapes, line ends and turns of direction are gone; emoji and joined letters stay."""
    assert plain("a\x1b[2J\nb\tc\u202ed\x9b1m\u2028e") == "a [2J b cd 1m e"
    assert plain("👨‍👩‍👧 می‌خواهم") == "👨‍👩‍👧 می‌خواهم"


def test_columns_stand_below_each_other_with_wide_signs():
    body = fitted(("name", "n"), [["日本語日本語日本語", "1"], ["x", "22"]], 14)
    lines = render(("name", "n"), body, "<>", most=14).split("\n")
    assert {cell_len(lines[0]), cell_len(lines[2]), cell_len(lines[3])} == {cell_len(lines[1])}
    assert lines[2].startswith("日本語")
    assert widest(filled("日本語 " * 20, 30)) <= 30


def test_the_table_of_two_answers():
    """Rows, score and interval; each answer; the matrix; one sentence on sureness."""
    sure = {"up": 0.75, "down": 0.25}
    other = {"up": 0.25, "down": 0.75}
    lines = [line("up", "up", sure, "up")] * 7 + [line("down", "up", sure, "odd")] * 2
    lines += [line("down", "down", other, "down")] * 3
    shown = figures_text.text([figures(task(("up", "down")), lines)], 80)
    assert cells(shown, "t ") == ["t", "12", "accuracy", "83.3", "55.2", "to", "95.3", "58.3"]
    assert cells(shown, "up ") == ["up", "77.8", "100.0", "87.5", "7"]
    assert cells(shown, "down ") == ["down", "100.0", "60.0", "75.0", "5"]
    matrix = shown.split("confusions")[1]
    assert (cells(matrix, "up "), cells(matrix, "down ")) == (["up", "7", "0"], ["down", "2", "3"])
    said = " ".join(shown.split())
    assert (
        "a probability of 75.0 % in the mean, and 83.3 % of them are right: probabilities are too low" in said
    )
    assert "a rough estimate from 12 rows" in said
    assert "calibration error 8.3 points" in said
    assert "Not surely better than always answering 'up', which is right for 58.3 %." in said
    assert "Written freely: accuracy 83.3; 16.7 % outside the answers." in said


@pytest.mark.parametrize("most", [60, 80, 200])
@pytest.mark.parametrize("count", [2, 10, 11, 77])
@pytest.mark.parametrize(
    "name",
    [
        "word {}",
        "the customer asks why a payment {} was refused at a shop on a journey abroad",
        "質問の番号は{}です",
    ],
)
def test_tables_fit_the_screen(most, count, name):
    """With many answers, long ones and wide ones; those that are cut are told apart by their numbers."""
    choices = tuple(name.format(i) for i in range(count))
    lines = [line(choices[i % count], choices[(i * i) % count]) for i in range(300)]
    shown = figures_text.text([figures(task(choices), lines)], most)
    assert widest(shown) <= most
    listed = shown.split("t: answers")[1].split("t: confusions")[0].strip().split("\n")[-min(count, 20) :]
    assert len({one.rsplit(None, 4)[0] for one in listed}) == min(count, 20)
    if count > 20:
        assert "the 20 of 77 with the lowest F1 (all: --json)" in " ".join(shown.split())
    if count > 10:
        assert "given answer" in shown


def test_sureness_in_words():
    """Probabilities that are right, too high, and off both ways."""

    def said(*parts):
        lines = []
        for share, right, wrong in parts:
            shares = {"up": share, "down": 1 - share}
            lines += [line("up", "up", shares)] * right + [line("down", "up", shares)] * wrong
        return " ".join(figures_text.text([figures(task(("up", "down")), lines)], 200).split())

    assert "probabilities can be taken at their word." in said((0.8, 80, 20))
    assert "probabilities are too high." in said((0.99, 60, 40))
    assert "some probabilities are too high, some too low." in said((0.99, 40, 10), (0.6, 40, 10))


def test_open_answers_show_what_is_empty():
    lines = [line("a", word, written=word) for word in ("a", "")] * 2
    shown = figures_text.text([figures(task((), ("exact_match",)), lines)], 80)
    assert cells(shown, "t ")[:4] == ["t", "4", "exact_match", "50.0"]
    assert "t: 50.0 % of the answers are empty." in shown
    assert "answers, " not in shown
    assert "confusions" not in shown


def test_no_mistakes_no_matrix():
    shown = figures_text.text([figures(task(("up", "down")), [line("up", "up")] * 3)], 80)
    assert "t: confusions: none" in shown
    assert cells(shown, "down ") == ["down", "—", "—", "—", "0"]


SOURCES = {"t": lambda row: f"text: {row['text']}", "u": lambda row: f"other: {row['text']}"}
ROWS = [{"text": "the good film\nwas long"}, {"text": ""}, {"text": "日本語の文章 " * 20}]
FOUND = [
    Prediction(0, "t", "up", None, {"up": 0.975, "down": 0.025}),
    Prediction(1, "t", None, error="the row has no text: its fields are blank (complete the row)"),
    Prediction(2, "t", "down", None, {"up": 0.25, "down": 0.75}),
]


@pytest.mark.parametrize("most", [60, 80, 200])
def test_answers_on_a_screen(most):
    """Rows from 1; how sure; the text on one line; why a row has no answer, in full."""
    shown = predictions_text.table(FOUND, ROWS, {"t": SOURCES["t"]}, most)
    assert widest(shown) <= most
    assert shown.split("\n")[0].split() == ["row", "answer", "sure", "text"]
    assert cells(shown, "  1 ")[:7] == ["1", "up", "97.5", "%", "text:", "the", "good"]
    assert "not answered: the row has no text: its fields are blank (complete the row)" in " ".join(
        shown.split()
    )
    assert "…" in next(one for one in shown.split("\n") if one.startswith("  3 "))
    assert shown.endswith("\n\n2 answers, 1 fault")


def test_answers_for_several_tasks_name_them_and_open_ones_have_no_share():
    found = [
        Prediction(0, "t", "up"),
        Prediction(0, "u", "long " * 30),
        Prediction(2, None, None, error="no task"),
    ]
    shown = predictions_text.table(found, ROWS, SOURCES, 80)
    assert widest(shown) <= 80
    assert shown.split("\n")[0].split() == ["row", "task", "answer", "text"]
    assert cells(shown, "  1  u ")[2] == "long"
    assert "other: the good film was long" in shown
    assert cells(shown, "  3 ") == ["3", "—", "—", "not", "answered:", "no", "task"]


def test_a_screen_shows_the_first_thousand():
    found = [Prediction(i, "t", "up") for i in range(1200)]
    shown = predictions_text.table(found, [{"text": "x"}] * 1200, {"t": SOURCES["t"]}, 80)
    assert shown.count("text: x") == 1000
    assert shown.endswith("1,200 answers, 0 faults; the first 1,000 are shown, --out FILE keeps all")


def test_answers_as_csv(tmp_path):
    """Fields of the JSON lines; the answer's probability besides."""
    found = list(csv.DictReader(StringIO(predictions_text.csv_text(FOUND))))
    assert [one["answer"] for one in found] == ["up", "", "down"]
    assert [one["probability"] for one in found] == ["0.975", "", "0.75"]
    assert found[0]["probabilities"] == '{"up": 0.975, "down": 0.025}'
    assert found[1]["error"] == FOUND[1].error
    assert predictions_text.is_csv(tmp_path / "new.CSV")
    predictions_text.check_ending(tmp_path / "new.jsonl")
    with pytest.raises(ConfigError, match=r"not written as \.parquet"):
        predictions_text.check_ending(tmp_path / "new.parquet")
