"""Metrics of written texts against their libraries, plain loops and published definitions."""

import math
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.checks import row_checks
from weft.checks.findings import Findings
from weft.checks.used_rows import Used
from weft.config.task import TaskSpec
from weft.errors import ConfigError, UnsupportedError
from weft.evaluation.intervals import interval
from weft.tasks import from_spec, generation_metrics
from weft.tasks.generation_metrics import GENERATION, NEEDS, check_libraries, words
from weft.tasks.metrics import NAMES, NEVER_FIRST, metric

modest = settings(max_examples=40, deadline=None)
SAID = [
    "the river runs past the red house .",
    "a small dog sleeps under the table",
    "Alan reads, slowly, one old book",
    "no match whatever",
]
ACCEPTED = [
    ("The river runs past a red house.", "past the red house the river runs"),
    ("a small dog sleeps under the old table .", "under the table a dog sleeps", "a dog"),
    ("Alan reads one old book slowly.",),
    ("the train leaves at noon",),
]
FEW = ["the", "a", "dog", "runs", "sleeps", ",", ".", "red", "Red", "house"]
texts = st.lists(st.sampled_from(FEW), max_size=9).map(" ".join)
full = texts.filter(str.strip)
rows_of_texts = st.lists(
    st.tuples(texts, st.lists(full, min_size=1, max_size=3).map(tuple)), min_size=1, max_size=5
)


def near(value):
    return pytest.approx(value, abs=1e-9)


def streams(references):
    """References as sacrebleu takes them: the first of every row, the second of every row, ..."""
    most = max(map(len, references))
    return [[one[i] if i < len(one) else None for one in references] for i in range(most)]


@modest
@given(rows_of_texts)
def test_bleu_and_ter_are_sacrebleus_corpus_scores(rows):
    from sacrebleu.metrics import BLEU, TER

    said, accepted = map(list, zip(*rows, strict=True))
    assert metric("bleu")(said, accepted) == near(BLEU().corpus_score(said, streams(accepted)).score)
    assert metric("ter")(said, accepted) == near(TER().corpus_score(said, streams(accepted)).score)


@modest
@given(rows_of_texts)
def test_rouge_l_is_the_best_f_measure_of_the_longest_common_subsequence(rows):
    def common(a, b):
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, one in enumerate(a, start=1):
            for j, other in enumerate(b, start=1):
                match = table[i - 1, j - 1] + 1
                table[i, j] = match if one == other else max(table[i - 1, j], table[i, j - 1])
        return table[-1, -1]

    def f(text, gold):
        a, b = ([word for word in one.lower().split() if word.isalnum()] for one in (text, gold))
        return 2 * common(a, b) / (len(a) + len(b)) if a and b else 0.0

    said, accepted = map(list, zip(*rows, strict=True))
    best = [max(f(text, gold) for gold in golds) for text, golds in rows]
    assert metric("rouge_l")(said, accepted) == near(100 * np.mean(best))


def test_meteor_matches_words_and_stems_and_no_synonyms():
    """F-mean 10PR / (R + 9P), less half of the cube of chunks by matches (Banerjee and Lavie 2005)."""
    meteor = metric("meteor_stem")
    assert meteor(["the dogs slept"], [("the dog slept",)]) == near(100 * (1 - 0.5 / 27))
    assert meteor(["the hound slept"], [("the dog slept",)]) == near(100 * (2 / 3) * (1 - 0.5))
    precision, recall = 2 / 3, 2 / 4
    mean = 10 * precision * recall / (recall + 9 * precision)
    assert meteor(["a b x"], [("q", "a b c d")]) == near(100 * mean * (1 - 0.5 / 8))
    assert meteor(["x", "", "!"], [("a",)] * 3) == 0


@modest
@given(rows_of_texts)
def test_nist_of_one_reference_is_nltks(rows):
    """nltk takes the best reference of several; the official script takes them together, as here."""
    from nltk.translate.nist_score import corpus_nist

    said, accepted = [text for text, _ in rows], [golds[:1] for _, golds in rows]
    longest = [" ".join(["the"] * 9), *said]  # nltk divides by the number of n-grams of each order
    golds = [("a dog",), *accepted]
    expected = corpus_nist([[words(one[0])] for one in golds], [words(one) for one in longest])
    assert metric("nist")(longest, golds) == near(expected)


def test_nist_of_several_references_by_plain_loops():
    def grams(tokens, n):
        return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    short = [SAID[0], "a small dog", *SAID[2:]]
    golds = [[words(one) for one in accepted] for accepted in ACCEPTED]
    every = Counter(g for some in golds for gold in some for n in range(1, 6) for g in grams(gold, n))
    total = sum(len(gold) for some in golds for gold in some)
    score = 0.0
    for n in range(1, 6):
        gain = size = 0
        for text, some in zip(short, golds, strict=True):
            own = Counter(grams(words(text), n))
            size += sum(own.values())
            for gram, count in own.items():
                held = max(Counter(grams(gold, n))[gram] for gold in some)
                before = every[gram[:-1]] if n > 1 else total
                gain += min(count, held) * math.log2(before / every[gram]) if held else 0
        score += gain / size
    said = sum(len(words(text)) for text in short)
    length = sum(sum(map(len, some)) / len(some) for some in golds)
    beta = math.log(0.5) / math.log(1.5) ** 2
    score *= math.exp(beta * math.log(min(1, said / length)) ** 2)
    assert metric("nist")(short, ACCEPTED) == near(score)
    assert said < length  # so that the penalty counts


def test_a_text_of_two_thirds_of_the_length_has_half_the_nist():
    """The penalty of Doddington (2002)."""
    short = metric("nist")(["a b c d"], [("a b c d e f",)])
    gains = sum(math.log2(6) for _ in range(4)) / 4
    assert short == near(gains / 2)


def test_cider_equals_what_pycocoevalcap_gave():
    """CIDEr-D of pycocoevalcap 1.2, asked once for these sentences in the words that weft makes of them."""
    rows = [metric("cider").rows(SAID, ACCEPTED)[i, 0] for i in range(4)]
    assert rows == pytest.approx([6.20478877, 4.24887189, 4.625, 0], abs=1e-8)
    assert metric("cider")(SAID, ACCEPTED) == pytest.approx(376.9665164586999, abs=1e-9)


def test_cider_of_the_same_words_is_ten_and_of_one_row_is_none():
    """An n-gram that stands in every row's references weighs nothing, so one row has no score."""
    same = [golds[0] for golds in ACCEPTED]
    assert metric("cider")(same, [(one,) for one in same]) == near(1000)
    assert metric("cider")(SAID[:1], ACCEPTED[:1]) is None


def test_cider_punishes_length_by_a_bell_of_six_words():
    said, golds = ["b c d e f", "x"], [("b c d e f g h i",), ("y",)]
    value = metric("cider").rows(said, golds)[0, 0]
    cosines = [math.sqrt((5 - n) / (8 - n)) for n in range(4)]  # all n-grams weigh alike
    assert value == near(10 * np.mean(cosines) * math.exp(-9 / 72))


@pytest.mark.parametrize("name", GENERATION)
def test_the_order_of_rows_is_nothing_and_empty_texts_are_no_error(name):
    score = metric(name)
    assert score(SAID[::-1], ACCEPTED[::-1]) == near(score(SAID, ACCEPTED))
    nothing = score([""] * 4, ACCEPTED)
    assert nothing > 50 if name == "ter" else nothing == 0


@pytest.mark.parametrize("name", GENERATION)
def test_every_reference_counts(name):
    """The text of the second reference is right, too."""
    said, golds = [one[-1] for one in ACCEPTED], ACCEPTED
    alone = metric(name)(said, [one[:1] for one in golds])
    assert (metric(name)(said, golds) - alone) * (-1 if name == "ter" else 1) > 0


@pytest.mark.parametrize("name", [name for name in GENERATION if name not in ("nist", "cider")])
def test_an_interval_is_that_of_the_metric_on_drawn_rows(name):
    """Of sums, so that no text is read again; the same draws give the same numbers as reading them does."""
    said, golds = SAID[:3], ACCEPTED[:3]
    summed = interval(name, metric(name), said, golds)
    read = interval(name, lambda *rows: metric(name)(*rows), said, golds)
    assert (summed.low, summed.high) == near((read.low, read.high))


@pytest.mark.parametrize("name", ["nist", "cider"])
def test_an_interval_keeps_the_weights_that_all_rows_give(name):
    said, golds = SAID * 6, ACCEPTED * 6
    score, chance = metric(name), np.random.default_rng(0)
    sums = score.rows(said, golds)
    drawn = [score.of(sums[chance.integers(24, size=24)].sum(0)) for _ in range(1000)]
    found = interval(name, score, said, golds)
    assert (found.low, found.high) == near(tuple(np.percentile(drawn, [2.5, 97.5])))
    assert found.low < score(said, golds) < found.high


@pytest.mark.parametrize("name", NEVER_FIRST)
def test_a_metric_that_cannot_decide_is_refused_as_the_first(name):
    spec = {"name": "t", "files": {"test": "t.csv"}, "source": "{a}", "target": "{b}"}
    with pytest.raises(ConfigError, match=f"the first metric decides, and {name} cannot") as caught:
        from_spec(TaskSpec(**spec, metrics=(name,)))
    assert caught.value.code == "C18"
    assert list(from_spec(TaskSpec(**spec, metrics=("bleu", name))).metrics) == ["bleu", name]


def test_the_settings_name_every_metric():
    said = re.findall(r"\w+", TaskSpec.model_fields["metrics"].description)
    assert set(NAMES) <= set(said)


def test_an_absent_library_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(generation_metrics, "find_spec", lambda name: None if name == "sacrebleu" else name)
    check_libraries(["accuracy", "rouge_l"])
    with pytest.raises(UnsupportedError, match="the metric 'bleu' needs the package sacrebleu") as caught:
        check_libraries(["squad_f1", "bleu"])
    assert caught.value.fix == "pip install 'weft[nlg]'"
    assert set(NEEDS) == set(GENERATION)
    fields = {"name": "t", "files": {"test": "t.csv"}, "source": "{a}", "target": "{b}", "metrics": ("bleu",)}
    spec = TaskSpec(**fields)
    for split, errors in (("test", ["C18"]), ("train", [])):
        found = Findings()
        row_checks.check_texts(Used(spec, from_spec(spec), split, [], [], []), found)
        assert [one.code for one in found.errors] == errors


def test_libraries_are_loaded_when_they_are_used():
    code = "import sys, weft.tasks; print(*{'sacrebleu', 'nltk', 'rouge_score'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
