"""Labels: a file's values, the answers that stand for them, and the way back."""

import decimal
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_tasks import refusal, task_of
from tokenizers import normalizers

from weft.checks.findings import Findings
from weft.checks.label_checks import check_labels
from weft.config.task import TaskSpec
from weft.evaluation.answering import TunedAnswerer
from weft.evaluation.answers import Answer
from weft.evaluation.scores import score
from weft.evaluation.written import written
from weft.models.tuned import with_prompts
from weft.runs.answer_blocks import line
from weft.serving.predictor import Predictor
from weft.tasks import Example, Task
from weft.tasks.values import same_value

STARS = {"5": "good", "4": "good", "1": "bad"}


def targets(place, values, **settings):
    """The targets of rows with some label values."""
    rows = [{"text": f"t{i}", "label": value} for i, value in enumerate(values)]
    return [example.target for example in task_of(place, rows, **settings).load("train")]


@pytest.mark.parametrize(
    ("value", "known", "found"),
    [
        ("yes ", ["yes"], "yes"),
        ("yes\u00a0", ["yes"], "yes"),
        ("yes", [" yes"], " yes"),
        ("cafe\u0301", ["caf\u00e9"], "caf\u00e9"),
        ("caf\u00e9", ["cafe\u0301"], "cafe\u0301"),
        ("1.0", ["1"], "1"),
        ("1", ["1.00"], "1.00"),
        ("-1.", ["-1"], "-1"),
        ("TRUE", ["True"], "True"),
        ("false", ["False"], "False"),
        ("1.0", ["1", "1.0"], "1.0"),  # as it is comes first
        ("Yes", ["yes"], None),
        ("1.5", ["1"], None),
        ("01", ["1"], None),
        ("True", ["1"], None),
        ("", ["0"], None),
    ],
)
def test_spellings_of_a_value(value, known, found):
    """Blanks around it, composed accents, whole numbers and truth values; capitals may mean something."""
    assert same_value(value, known) == found


def test_values_of_any_program_meet_the_labels(tmp_path):
    """Numbers, fractions that are whole, and text; each row gets its word."""
    labels = {"1": "yes", "0": "no"}
    assert targets(tmp_path, [1, 1.0, "1", "1.0", 0, " 0 "], labels=labels) == ["yes"] * 4 + ["no"] * 2
    assert targets(tmp_path, [True, "TRUE", False], labels={"True": "y", "False": "n"}) == ["y", "y", "n"]
    task = task_of(tmp_path, labels=labels)
    for value in (np.int64(1), np.float32(1), decimal.Decimal("1.00"), np.str_("1"), b"1"):
        assert [one.target for one in task.examples({"text": "a", "label": value})] == ["yes"]


def test_dropped_values_are_found_as_labels_are(tmp_path):
    """-1 as pandas writes it beside a gap."""
    assert targets(tmp_path, [1, -1.0, "-1 "], labels={"1": "yes", "0": "no"}, drop=("-1",)) == ["yes"]


def test_other_capitals_are_refused_with_what_to_do(tmp_path):
    """They are two values, until the task says that they are one."""
    error = refusal(task_of(tmp_path, [{"text": "a", "label": "Yes"}], labels={"yes": "good", "no": "bad"}))
    assert error.code == "D06"
    assert error.fix.startswith("'Yes' and 'yes' differ in capitals")
    labels = {"yes": "good", "Yes": "good", "no": "bad"}
    assert targets(tmp_path, ["Yes", "yes"], labels=labels) == ["good", "good"]


# two values of one answer


def test_values_may_share_a_word(tmp_path):
    """The answers are the different words, in their order; scores count words."""
    task = task_of(
        tmp_path,
        [{"text": f"t{i}", "label": value} for i, value in enumerate((5, 4, 1, 1))],
        labels=STARS,
        metrics=("f1_macro", "accuracy", "f1_binary"),
        positive="good",
    )
    examples = task.load("train")
    assert task.choices == ("good", "bad")
    assert [one.target for one in examples] == ["good", "good", "bad", "bad"]
    assert task.labels == {"good": "5", "bad": "1"}
    answers = [Answer("colours", chosen=word) for word in ("good", "bad", "bad", "bad")]
    found = score(task, examples, answers).metrics
    assert found["accuracy"] == 75
    assert found["f1_binary"] == pytest.approx(100 * 2 / 3)
    assert found["f1_macro"] == pytest.approx(100 * (2 / 3 + 4 / 5) / 2)


def test_shared_words_are_one_class_number():
    """Numbers count answers, not values."""
    spec = TaskSpec(name="a", source="{x}", target="{y}", labels=STARS, positive="bad", answers="digits")
    assert spec.written().labels == {"5": "0", "4": "0", "1": "1"}
    assert (spec.written().positive, spec.written().choices) == ("1", ("0", "1"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"1": "yes", "2": "yes"}, "all labels are written with the same word: yes"),
        ({"1": " yes", "2": "no"}, "write 'yes' for ' yes'"),
        ({"1": "yes\t", "2": "no"}, "a blank at an end"),
    ],
)
def test_labels_that_cannot_be_answers(labels, message):
    """One answer to everything; a word with a blank that no written answer has."""
    with pytest.raises(ValidationError, match=message):
        TaskSpec(name="a", source="{x}", target="{y}", labels=labels)


# what a reader should know


@pytest.mark.parametrize(
    ("labels", "answers", "said"),
    [
        ({"1": "bad", "2": "fair", "3": "good"}, "digits", ["the label value '1' is written '0'"]),
        ({"1": "bad", "2": "good"}, "words", []),
        ({"0": "bad", "1": "good"}, "digits", []),
        ({"0.0": "bad", "1.0": "good"}, "digits", []),
        ({"0": "1", "1": "0"}, "words", ["the label value '0' is written '1'"]),
        ({"no": "bad", "yes": "good", "nan": "?"}, "digits", []),
        (STARS, "words", ["the label values '5', '4' are one answer, 'good'"]),
    ],
)
def test_answers_that_could_be_taken_for_others_are_named(labels, answers, said):
    """Numbers that are not the file's, and values that share an answer."""
    found = Findings()
    spec = TaskSpec(name="a", source="{x}", target="{y}", labels=labels, answers=answers)
    check_labels(spec, found)
    assert not found.errors
    assert [one.fault.cause[: len(text)] for one, text in zip(found.warnings, said, strict=True)] == said


# the way back


def closed(place, **settings):
    """A task with closed answers whose text is the field `text`."""
    return task_of(place, source="{text}", **settings)


@pytest.mark.parametrize("answers", ["words", "digits"])
def test_predictions_carry_the_value_of_the_file(tmp_path, make_backbone, answers):
    """With words as with class numbers; of values that share a word, the first."""
    task = closed(tmp_path, labels=STARS, answers=answers)
    backbone = make_backbone("t5")
    if answers == "digits":  # which the tiny tokenizer does not know
        backbone.answer_tokens = lambda word: (20 + int(word), 1)
    model = with_prompts(backbone, torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(1)), ("x",))
    texts = ["the good film", "a bad dog", "the city", "what is it"]
    found = Predictor([TunedAnswerer(model, (task,), (10,))]).predict([{"text": text} for text in texts])
    words = dict(zip(task.choices, ("5", "1"), strict=True))
    assert [one.label for one in found] == [words[one.answer] for one in found]
    assert found[0].as_dict()["label"] in ("5", "1")
    assert Predictor([TunedAnswerer(model, (task,), (10,))]).predict([{"text": None}])[0].label is None


def test_lines_of_an_evaluation_carry_it_too(tmp_path):
    """Beside the answer; none where answers are open."""
    one = Answer("colours", chosen="1")
    task = closed(tmp_path, labels=STARS, answers="digits")
    assert json.loads(line(0, task, Example("a", "1"), one))["label"] == "1"
    task = closed(tmp_path)
    assert json.loads(line(0, task, Example("a", "1"), one))["label"] is None


def test_what_is_written_is_known_by_its_tokens(make_backbone):
    """A tokenizer that lowers letters gives `yes` back for `YES`: it is the choice all the same."""
    backbone = make_backbone("t5")
    backbone.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    task = Task("a", list, list, str, {}, choices=("YES", "Not Good", "zzz"))
    rows = [backbone.answer_tokens(word) for word in ("YES", "Not Good", "not", "", "zzz")]
    assert written(backbone, task, rows) == ["YES", "Not Good", "not", "", ""]
    free = Task("b", list, list, str, {})
    assert written(backbone, free, rows[:1]) == ["yes"]
