"""Answers of several tasks together: what each task may read and write stays its own."""

from functools import partial

import pandas as pd
import pytest
import torch

from weft.errors import DataError
from weft.evaluation.answering import TunedAnswerer
from weft.evaluation.answers import TextError
from weft.models.tuned import with_prompts
from weft.serving.predictor import Predictor, merged
from weft.tasks import Task, template

WORDS = "film book meal song story city river dog cat man woman child"
LIMITS, LONGEST = {"reads": 100, "writes": 10}, {"reads": 3, "writes": 100}


def open_task(name):
    """A task with free answers, whose text is the field `text`."""
    source, none = partial(template.fill, "{text}"), (lambda _: [])
    return Task(name, none, none, source, {}, max_target_tokens=LONGEST[name])


def predictor(backbone, names):
    """Prompts of 4 tokens for some of the tasks, each as a run of its own gives it."""
    found = []
    for name in names:
        prompt = torch.randn(1, 4, backbone.width, generator=torch.Generator().manual_seed(len(name)))
        model = with_prompts(backbone, prompt, (name,))
        found.append(TunedAnswerer(model, (open_task(name),), LIMITS[name]))
    return Predictor(merged(found))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": "one"}, "this is a dict"),
        ("a text", "this is a str"),
        (["a text"], "this is a str"),
        ([{"text": "a"}, None], "this is a NoneType"),
        (3, "this is a int"),
        (pd.Series(["a text"]), "this is a str"),
    ],
)
def test_what_are_no_rows_is_refused(make_backbone, rows, message):
    """With what rows are."""
    with pytest.raises(DataError, match=message) as caught:
        predictor(make_backbone("gpt2-suffix"), ["reads"]).predict(rows)
    assert 'predict([{"text": "..."}])' in caught.value.fix


def test_faulty_rows_stand_beside_answers(make_backbone):
    """Of a DataFrame as of a list; blank, missing, NaN, a list; every other row as without them."""
    model = predictor(make_backbone("gpt2-suffix"), ["reads"])
    rows = [{"text": value} for value in ("a film", float("nan"), " \u200b", None, ["a"], "the dog")]
    found = model.predict(rows)
    assert [one.row for one in found] == list(range(6))
    assert [one.error is None for one in found] == [True, False, False, False, False, True]
    assert [one.answer for one in found[1:5]] == [None] * 4
    for one, said in zip(found[1:5], ("null or NaN", "blank", "null or NaN", "holds a list"), strict=True):
        assert said in one.error
    alone = model.predict([rows[0], rows[5]])
    assert [one.answer for one in alone] == [found[0].answer, found[5].answer]
    frame = model.predict(pd.DataFrame({"text": ["a film", None]}))
    assert [one.error is None for one in frame] == [True, False]
    assert frame[0] == found[0]


def test_texts_that_a_model_cannot_read_join_the_faults(make_backbone, monkeypatch):
    """Found by the answerer, one after the other; the rest is answered."""
    model = predictor(make_backbone("gpt2-suffix"), ["reads"])
    answer = TunedAnswerer.answer

    def choosy(self, texts, ids, **how):
        for i, text in enumerate(texts):
            if "dog" in text:
                raise TextError(i, DataError("no dogs", fix="take a cat"))
        return answer(self, texts, ids, **how)

    monkeypatch.setattr(TunedAnswerer, "answer", choosy)
    found = model.predict([{"text": text} for text in ("dog", "film", "a dog", "cat")])
    assert [one.error for one in found] == ["no dogs (take a cat)", None, "no dogs (take a cat)", None]


def test_long_texts_and_long_answers_meet_in_no_batch(make_backbone):
    """On 128 positions, a task that reads 100 tokens and one that writes 100: each as it is alone."""
    backbone = make_backbone("gpt2-suffix")
    backbone.tokenizer.eos_token_id = 1 << 20  # no answer ends early
    row = {"text": " ".join([WORDS] * 10)}
    together = predictor(backbone, list(LIMITS)).predict([row, row])
    assert [(one.row, one.task) for one in together] == [(i, name) for i in (0, 1) for name in LIMITS]
    for name in LIMITS:
        alone = predictor(backbone, [name]).predict([row, row])
        assert [one for one in together if one.task == name] == alone
    assert len(alone[0].answer.split()) > 128 - 4 - LIMITS["reads"]  # words that would not have had room
