"""Metrics against scikit-learn, scipy and cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from weft.tasks import metrics
from weft.tasks.generation_metrics import GENERATION
from weft.tasks.metrics import METRICS, NAMES, metric

modest = settings(max_examples=100, deadline=None)
LABELS = ["yes", "no", "maybe", ""]
GRID = [-3.0, -1.0, 0.0, 0.2, 0.25, 2.6, 4.8, 5.0]

label_rows = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30)
number_rows = st.lists(st.tuples(st.sampled_from(GRID), st.sampled_from(GRID)), min_size=3, max_size=30)
ALL = {name: metric(name, positive="yes") for name in NAMES}
OF_ANSWERS = {
    name: one for name, one in ALL.items() if name not in GENERATION
}  # others: test_generation_metrics


def split(rows):
    """Lists of predictions and of labels from pairs."""
    guesses, golds = zip(*rows, strict=True)
    return list(guesses), list(golds)


def alone(golds):
    """References with one accepted answer per row."""
    return [(str(gold),) for gold in golds]


def near(value):
    return pytest.approx(value, abs=1e-9)


# against scikit-learn and scipy


@modest
@given(label_rows)
def test_accuracy_and_exact_match_equal_sklearn(rows):
    guesses, golds = split(rows)
    expected = near(100 * accuracy_score(golds, guesses))
    assert metrics.accuracy(guesses, alone(golds)) == expected
    assert metrics.exact_match(guesses, alone(golds)) == expected


@modest
@given(label_rows)
def test_f1_macro_equals_sklearn(rows):
    guesses, golds = split(rows)
    expected = 100 * f1_score(golds, guesses, average="macro", zero_division=0)
    assert metrics.f1_macro(guesses, alone(golds)) == near(expected)


@modest
@given(label_rows, st.lists(st.sampled_from([*LABELS, "never"]), min_size=1, unique=True))
def test_f1_macro_of_a_closed_task_equals_sklearn_over_its_labels(rows, labels):
    """Classes that neither side has count as 0; predictions that are no class are errors, and no class."""
    guesses, golds = split(rows)
    assume(set(golds) & set(labels))
    expected = 100 * f1_score(golds, guesses, labels=labels, average="macro", zero_division=0)
    spaced = [f" {label}" for label in labels]
    assert metric("f1_macro", labels=spaced)(guesses, alone(golds)) == near(expected)


@modest
@given(label_rows)
def test_f1_binary_equals_sklearn(rows):
    guesses, golds = split(rows)
    assume("yes" in guesses + golds)
    expected = 100 * f1_score([g == "yes" for g in golds], [g == "yes" for g in guesses], zero_division=0)
    assert metrics.f1_binary(guesses, alone(golds), positive="yes") == near(expected)


@modest
@given(label_rows)
def test_matthews_equals_sklearn(rows):
    guesses, golds = split(rows)
    assume(len(set(guesses)) > 1 and len(set(golds)) > 1)
    assert metrics.matthews(guesses, alone(golds)) == near(100 * matthews_corrcoef(golds, guesses))


@modest
@given(number_rows)
def test_correlations_equal_scipy(rows):
    guesses, golds = split(rows)
    assume(len(set(guesses)) > 1 and len(set(golds)) > 1)
    texts = [str(guess) for guess in guesses]
    assert metrics.pearson(texts, alone(golds)) == near(100 * stats.pearsonr(guesses, golds).statistic)
    assert metrics.spearman(texts, alone(golds)) == near(100 * stats.spearmanr(guesses, golds).statistic)


# properties of all metrics


@modest
@given(number_rows)
def test_results_are_plain_percentages_and_ignore_the_order_of_rows(rows):
    for name, function in {**OF_ANSWERS, "f1_binary": metric("f1_binary", positive="0.2")}.items():
        guesses, golds = split([(str(guess), (str(gold),)) for guess, gold in rows])
        value = function(guesses, golds)
        if value is not None:
            least = -100 if name in {"matthews", "pearson", "spearman"} else 0
            assert type(value) is float
            assert least <= value <= 100
        assert function(guesses[::-1], golds[::-1]) == (value if value is None else near(value))


@pytest.mark.parametrize("name", OF_ANSWERS)
def test_right_answers_give_100(name):
    texts = ["1", "2", "2", "yes"] if name == "f1_binary" else ["1", "2", "2", "5"]
    assert ALL[name](texts, alone(texts)) == near(100)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_give_none(name):
    assert ALL[name]([], []) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("predictions", "references"), [(["1"], []), (["1"], [("1",), ("2",)])])
def test_lengths_differ(name, predictions, references):
    with pytest.raises(ValueError, match=rf"1 predictions for {len(references)} rows"):
        ALL[name](predictions, references)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_reference_is_named(name):
    with pytest.raises(ValueError, match="row 1 has no reference"):
        ALL[name](["1", "2"], [("1",), ()])


# labels


def test_accuracy_takes_any_reference_and_strips():
    references = [("yes", "true"), (" no ", "false"), ("no", "false"), ("no",)]
    assert metrics.accuracy([" true\n", "no", "yes", "No"], references) == 50


def test_exact_match_takes_any_reference_and_does_not_strip():
    references = [("NYC", "New York"), ("NYC", "New York"), ("NYC",), ("NYC",)]
    assert metrics.exact_match(["New York", " New York", "nyc", "NYC"], references) == 50


@pytest.mark.parametrize("name", ["f1_macro", "f1_binary", "matthews"])
def test_label_metrics_take_the_first_reference_and_strip(name):
    plain = ALL[name](["yes", "no", "no"], alone(["yes", "yes", "no"]))
    assert plain is not None
    assert ALL[name]([" yes", "no\n", "no"], [("yes ", "no"), ("yes", "no"), ("no", "yes")]) == near(plain)


def test_f1_macro_counts_a_predicted_string_that_is_no_label():
    # yes: 2·1/(1+2), no: 2·1/(1+1), "eh": 0
    assert metrics.f1_macro(["yes", "eh", "no"], alone(["yes", "yes", "no"])) == near(
        100 * (2 / 3 + 1 + 0) / 3
    )


def test_f1_macro_counts_a_label_that_neither_side_has():
    # yes: 2·1/(1+2), no: 2·1/(1+1), "eh": an error, and no class; maybe: 0
    three = metric("f1_macro", labels=["yes", "no", "maybe"])
    assert three(["yes", "eh", "no"], alone(["yes", "yes", "no"])) == near(100 * (2 / 3 + 1 + 0) / 3)
    assert three(["yes", "no"], alone(["yes", "no"])) == near(200 / 3)
    assert three([], []) is None


def test_f1_binary_by_hand():
    guesses, golds = ["yes", "yes", "no", "eh"], ["yes", "no", "yes", "no"]
    assert metrics.f1_binary(guesses, alone(golds), positive=" yes ") == 50
    assert metrics.f1_binary(guesses, alone(golds), positive="eh") == 0


def test_f1_binary_is_zero_with_positives_on_one_side_and_none_without():
    assert metrics.f1_binary(["yes"], [("no",)], positive="yes") == 0
    assert metrics.f1_binary(["no"], [("yes",)], positive="yes") == 0
    assert metrics.f1_binary(["no"], [("no", "yes")], positive="yes") is None


@pytest.mark.parametrize(
    ("guesses", "golds"), [("aab", "aaa"), ("aaa", "aab"), ("aa", "aa"), ("aa", "bb"), ("a", "a")]
)
def test_matthews_of_one_class_is_none(guesses, golds):
    assert metrics.matthews(list(guesses), alone(golds)) is None


def test_matthews_of_opposites_and_of_large_counts():
    assert metrics.matthews(["a", "b"], alone("ba")) == -100
    assert metrics.matthews(["a", "b"] * 50_000, alone("ab" * 50_000)) == 100


# correlations

CORRELATIONS = pytest.mark.parametrize("correlation", [metrics.pearson, metrics.spearman])


@CORRELATIONS
def test_correlation_of_a_constant_is_none(correlation):
    assert correlation(["0.1", "0.1", "0.1"], alone([1, 2, 3])) is None
    assert correlation(["1", "2", "3"], alone([0.1, 0.1, 0.1])) is None
    assert correlation(["0", "-0.0"], alone([1, 2])) is None
    assert correlation(["low", "nan", "-1"], alone([1, 2, 3])) is None
    assert correlation(["1"], [("1",)]) is None


@CORRELATIONS
@pytest.mark.parametrize("text", ["", "high", "nan", "inf", "-Infinity", "1e999", "4.8 or so"])
def test_a_prediction_that_is_no_finite_number_counts_as_minus_one(correlation, text):
    golds = alone([1, 4, 2, 3])
    assert correlation(["1", text, "0.5", "-3"], golds) == near(
        correlation(["1", "-1.0", "0.5", "-3"], golds)
    )


@CORRELATIONS
@pytest.mark.parametrize("text", ["", "high", "nan", "inf"])
def test_a_reference_must_be_a_finite_number(correlation, text):
    with pytest.raises(ValueError, match=rf"row 1: the reference '{text}'"):
        correlation(["1", "2"], [("1",), (text, "2")])


@CORRELATIONS
def test_correlation_takes_the_first_reference(correlation):
    assert correlation([" 1", "2.0"], [("2", "1"), ("1", "2")]) == near(-100)


@CORRELATIONS
@pytest.mark.parametrize(
    "x", [["1e308", "1.5e308", "1.7e308"], ["1e-320", "2e-320", "5e-320"], ["1", "1.0000000000000002", "2"]]
)
def test_extreme_and_nearly_constant_numbers_do_no_harm(correlation, x):
    value = correlation(x, alone([1, 2, 3]))
    assert math.isfinite(value)
    assert 80 < value <= 100


def test_spearman_shares_ranks_and_pearson_does_not_rank():
    guesses, golds = ["1", "2", "2", "100"], alone([1, 2, 3, 4])
    ranks = 100 * np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1]
    assert metrics.spearman(guesses, golds) == near(ranks)
    assert metrics.pearson(guesses, golds) == near(100 * np.corrcoef([1, 2, 2, 100], [1, 2, 3, 4])[0, 1])


# SQuAD v1.1


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        ("The Eiffel Tower", ("eiffel tower",), 100, 100),  # article and case
        ("a dog, an owl and the cat!", ("dog owl and cat",), 100, 100),  # every article, punctuation
        ("an-other", ("another",), 100, 100),  # punctuation goes before articles
        ("t.h.e. end", ("end",), 100, 100),  # so that an article may appear
        ("theory", ("ory",), 0, 0),  # whole words only
        ("a–b", ("–b",), 100, 100),  # a sign beyond ASCII stays, and ends a word
        ("  New\t York\n", ("new york",), 100, 100),  # white space
        ("U.S.", ("us",), 100, 100),  # punctuation joins
        ("in Paris France", ("Paris",), 0, 50),  # precision 1/3, recall 1
        ("Paris", ("London", "in Paris", "Paris France now"), 0, 100 * 2 / 3),  # best of several
        ("Paris", ("Lyon", "the Paris"), 100, 100),  # not only the first
        ("", ("Paris",), 0, 0),  # nothing said
        ("the", ("Paris",), 0, 0),  # nothing left
        ("The!", ("an",), 100, 0),  # nothing left on both sides: the official script of v1.1 gives F1 0
        ("to to to be", ("to be or not to be",), 0, 100 * 2 * 3 / 10),  # words shared as often as in both
        ("be to", ("to be",), 0, 100),  # F1 knows no order
        ("x y", ("z",), 0, 0),
    ],
)
def test_squad_by_hand(prediction, answers, em, f1):
    assert metrics.squad_em([prediction], [answers]) == em
    assert metrics.squad_f1([prediction], [answers]) == near(f1)


def test_squad_is_a_mean_over_rows():
    predictions, references = ["the cat", "in Paris France", "x"], [("cat",), ("Paris",), ("y", "x")]
    assert metrics.squad_em(predictions, references) == near(200 / 3)
    assert metrics.squad_f1(predictions, references) == near(250 / 3)


# names


def test_names_and_functions():
    assert set(NAMES) == {*METRICS, "f1_binary"}
    assert len(NAMES) == len(set(NAMES)) == 10 + len(GENERATION)
    assert all(METRICS[name] is getattr(metrics, name) for name in METRICS if name not in GENERATION)
    assert all(metric(name) is METRICS[name] for name in METRICS)


def test_metric_binds_the_positive_label():
    assert metric("f1_binary", positive="no")(["no", "yes"], alone(["no", "no"])) == near(200 / 3)
    assert metric("accuracy", positive="no") is metrics.accuracy


def test_f1_binary_needs_a_positive_label():
    with pytest.raises(ValueError, match="f1_binary needs"):
        metric("f1_binary")


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="unknown metric 'f1'") as caught:
        metric("f1", positive="yes")
    assert all(name in str(caught.value) for name in NAMES)
