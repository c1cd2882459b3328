"""Figures of an evaluation against scikit-learn, scipy and cases worked by hand."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, precision_recall_fscore_support

from weft.errors import DataError
from weft.evaluation.figures import confusion, figures, sureness
from weft.evaluation.intervals import Interval, interval, wilson
from weft.tasks import Task
from weft.tasks.metrics import metric

WORDS = ("red", "green", "blue", "grey")


def task(choices=WORDS, metrics=("accuracy",)):
    """A task of which nothing but its answers and metrics is asked."""
    made = {name: metric(name, labels=choices) for name in metrics}
    return Task("t", lambda split: [], lambda row: [], lambda row: "", made, choices=choices)


def line(true, answer, probabilities=None, written=None, name="t"):
    """A line of predictions.jsonl."""
    accepted = [true] if isinstance(true, str) else true
    said = {"task": name, "row": 0, "text": "x", "references": accepted, "answer": answer}
    return {**said, "written": written, "probabilities": probabilities}


def sharp(rows, seed, least=0.3):
    """Probabilities of rows and their true answers, which are likelier where the probability is higher."""
    chance = np.random.default_rng(seed)
    shares = chance.dirichlet(np.full(len(WORDS), least), rows)
    return shares, np.array([chance.choice(len(WORDS), p=row**0.5 / (row**0.5).sum()) for row in shares])


def drawn(rows=200, seed=1):
    """Lines of a closed task."""
    shares, true = sharp(rows, seed)
    return [
        line(WORDS[k], WORDS[int(row.argmax())], dict(zip(WORDS, row.tolist(), strict=True)))
        for row, k in zip(shares, true, strict=True)
    ]


def test_each_answer_is_as_scikit_learn_has_it():
    """Precision, recall, F1 and rows, the confusions, and the majority."""
    lines = drawn()
    true, given = [one["references"][0] for one in lines], [one["answer"] for one in lines]
    found = figures(task(), lines)
    assert found.confusion.answers == WORDS
    assert np.array_equal(found.confusion.counts, confusion_matrix(true, given, labels=WORDS))
    expected = zip(*precision_recall_fscore_support(true, given, labels=WORDS), strict=True)
    for one, (precision, recall, f1, rows) in zip(found.confusion.per_answer(), expected, strict=True):
        assert (one.precision, one.recall, one.f1) == pytest.approx((100 * precision, 100 * recall, 100 * f1))
        assert (one.rows, one.answered) == (rows, given.count(one.answer))
    share = max(true.count(word) for word in WORDS) / 2
    assert found.majority[1] == share
    assert true.count(found.majority[0]) == 2 * share


def test_how_sure_is_as_scikit_learn_has_it():
    """Log loss, Brier score, and the calibration error from its own bins."""
    shares, true = sharp(400, seed=2)
    found, top, right = sureness(shares, true), shares.max(1), shares.argmax(1) == true
    assert found.log_loss == pytest.approx(log_loss(true, shares, labels=range(4)))
    assert found.brier == pytest.approx(brier_score_loss(true, shares, labels=range(4), scale_by_half=False))
    shown, meant = calibration_curve(right, top, n_bins=10)
    sizes = np.histogram(top, np.linspace(0, 1, 11))[0]
    assert found.calibration_error == pytest.approx(100 * (sizes[sizes > 0] / 400) @ abs(shown - meant))
    assert (found.mean, found.right) == pytest.approx((100 * top.mean(), 100 * right.mean()))


def test_how_sure_by_hand():
    """An edge of a bin belongs to the bin below; what had no probability costs a finite loss."""
    found = sureness([[0.5, 0.25, 0.25], [0.45, 0.35, 0.2], [0.0, 1.0, 0.0]], [0, 1, 0])
    assert found.calibration_error == pytest.approx(100 * (abs(1 + 0 - 0.5 - 0.45) + 1.0) / 3)
    assert found.log_loss == pytest.approx(-np.log([0.5, 0.35, np.finfo(float).eps]).mean())
    squares = 0.5**2 + 2 * 0.25**2, 0.45**2 + 0.65**2 + 0.2**2, 2
    assert found.brier == pytest.approx(sum(squares) / 3)
    outside = sureness([[0.75, 0.25]], [-1])
    assert (outside.right, outside.brier) == (0, pytest.approx(0.75**2 + 0.25**2 + 1))


@pytest.mark.parametrize(("right", "rows"), [(0, 1), (12, 12), (0, 12), (7, 12), (2345, 3000)])
def test_wilson_is_as_scipy_has_it(right, rows):
    low, high = stats.binomtest(right, rows).proportion_ci(method="wilson")
    found = wilson(right, rows)
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=1e-9)
    assert found.method == "Wilson"


def test_bootstraps_are_near_those_of_scipy():
    """Of a metric over classes, and of one that is a mean over rows."""
    lines = drawn(150)
    given, true = [one["answer"] for one in lines], [one["references"][0] for one in lines]
    f1 = metric("f1_macro", labels=WORDS)

    def of(places):
        return f1([given[i] for i in places], [(true[i],) for i in places])

    expected = stats.bootstrap(
        (range(150),), of, vectorized=False, n_resamples=999, method="percentile", rng=3
    )
    found = interval("f1_macro", f1, given, [(one,) for one in true])
    low, high = expected.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=1.5)
    guesses, texts = ["a b"] * 60 + ["b c"] * 40, [("b",)] * 100
    means = interval("squad_f1", metric("squad_f1"), guesses, texts)
    whole = interval("other", metric("squad_f1"), guesses, texts)
    assert means.method == "bootstrap"
    assert (means.low, means.high) == pytest.approx((whole.low, whole.high), abs=1e-9)
    assert means.low < 100 * (0.6 * 1 + 0.4 * 2 / 3) < means.high


def test_an_interval_that_says_nothing_is_none():
    """All draws are alike where all rows are right: no sign that all others are."""
    given, true = ["red", "blue"] * 6, [("red",), ("blue",)] * 6
    assert interval("f1_macro", metric("f1_macro"), given, true) is None
    assert interval("accuracy", metric("accuracy"), given, true).low == pytest.approx(75.75, abs=0.01)
    assert interval("pearson", metric("pearson"), ["1"] * 5, [("1",), ("2",)] * 2 + [("3",)]) is None


def test_closed_answers_have_an_accuracy_whatever_the_metric():
    lines = drawn(50)
    found = figures(task(metrics=("f1_macro",)), lines)
    right = sum(one["answer"] == one["references"][0] for one in lines)
    assert found.metric == "f1_macro"
    assert found.scores.metrics["accuracy"] == 2 * right
    assert found.intervals["accuracy"] == wilson(right, 50)
    assert found.intervals["f1_macro"].method == "bootstrap"


def test_accepted_answers_and_answers_outside_the_set():
    """Any accepted answer is right; spaces at an end count nothing; what is never given has no precision."""
    lines = [line(["red", "blue"], "blue"), line("red ", "red"), line("pink", "red")]
    found = figures(task(), lines)
    assert found.scores.metrics["accuracy"] == pytest.approx(200 / 3)
    assert found.confusion.answers == (*WORDS, "pink")
    assert found.confusion.mistakes() == [(1, "pink", "red")]
    by_name = {one.answer: one for one in found.confusion.per_answer()}
    assert (by_name["green"].precision, by_name["green"].recall, by_name["green"].f1) == (None, None, None)
    assert (by_name["pink"].precision, by_name["pink"].recall, by_name["pink"].f1) == (None, 0, 0)
    assert by_name["blue"].f1 == 100
    assert found.sureness is None  # a line without probabilities


def test_mistakes_come_by_their_number():
    true, given = ["red"] * 5 + ["blue"] * 3, ["red"] + ["blue"] * 3 + ["green"] + ["red"] * 2 + ["blue"]
    found = confusion(WORDS, true, given).mistakes()
    assert found == [(3, "red", "blue"), (2, "blue", "red"), (1, "red", "green")]


def test_open_answers_have_their_metrics_and_the_empty_ones():
    lines = [line("c b", word, written=word) for word in ("c b", "b", " ", "")]
    found = figures(task((), ("squad_em", "squad_f1")), lines)
    assert (found.confusion, found.sureness, found.empty) == (None, None, 50)
    assert found.scores.metrics == {"squad_em": 25, "squad_f1": pytest.approx(100 * (1 + 2 / 3) / 4)}
    assert found.intervals["squad_em"] == wilson(1, 4)


def test_figures_are_of_one_task_and_become_json():
    """The document that `weft evaluate --json` prints."""
    lines = [*drawn(20), *(line("x", "x", name="other") for _ in range(5))]
    lines = [{**one, "written": "red" if i % 2 else "no"} for i, one in enumerate(lines)]
    found = json.loads(json.dumps(figures(task(), lines).as_dict(), allow_nan=False))
    assert (found["task"], found["rows"], found["unparsable"]) == ("t", 20, 50)
    assert set(found) == {
        *("task", "metric", "rows", "metrics", "intervals", "majority", "answers", "confusion"),
        *("sureness", "written", "unparsable", "empty", "groups"),
    }
    assert found["answers"][1]["answer"] == "green"
    assert Interval(**found["intervals"]["accuracy"]) == wilson(round(found["metrics"]["accuracy"] / 5), 20)
    assert sum(map(sum, found["confusion"]["counts"])) == 20
    with pytest.raises(DataError, match="no rows"):
        figures(task(), [])
