"""Answers of several tasks together: what each task may read and write stays its own."""

import json
from dataclasses import replace
from functools import partial

import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import build_backbone, build_reader

from weft.data.context import ContextLayout
from weft.errors import DataError
from weft.evaluation.answering import TunedAnswerer
from weft.evaluation.answers import TextError
from weft.evaluation.in_context import InContextAnswerer
from weft.evaluation.received import Received
from weft.evaluation.views import View, Views
from weft.methods.frozen_features import FeatureClassifiers
from weft.methods.tfidf import WordClassifiers, vectorizer
from weft.methods.weft import ViewClassifiers
from weft.models.tuned import TunedModel, with_prompts
from weft.prompts.bank import PromptBank, SoftPrompts
from weft.prompts.mixed import MixedPrompts
from weft.serving.doubts import doubts
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
        found.append(TunedAnswerer(model, (open_task(name),), (LIMITS[name],)))
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


def test_rows_may_come_one_by_one(make_backbone):
    """A generator can be read once only."""
    model = predictor(make_backbone("gpt2-suffix"), ["reads"])
    rows = [{"text": "a film"}, {"text": "the dog"}]
    assert model.predict(iter(rows)) == model.predict(rows)
    assert model.predict(pa.Table.from_pylist(rows)) == model.predict(rows)


def test_frame_with_a_column_twice_is_refused(make_backbone):
    """One of the two would be read in silence."""
    frame = pd.DataFrame([["a film", "x", "y"]], columns=["text", "a", "a"])
    with pytest.raises(DataError, match="column named twice: a"):
        predictor(make_backbone("gpt2-suffix"), ["reads"]).predict(frame)


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


def notes(prediction):
    """What a prediction says of its text: cut, special tokens, unknown."""
    return prediction.cut, prediction.special_tokens, prediction.unknown


@pytest.mark.parametrize("name", ["gpt2-suffix", "t5"])
def test_answers_say_what_was_not_read(make_backbone, name):
    """Cut from the first token that is dropped on; special tokens; signs that the tokenizer lacks."""
    backbone = make_backbone(name)
    model = predictor(backbone, ["reads"])
    room = LIMITS["reads"] - backbone.added_tokens
    texts = ["dog " * room, "dog " * (room + 1), "a </s> dog <pad>", "👍", "good 👍", "👍 👎 dog", "a film"]
    found = model.predict([{"text": text} for text in texts])
    assert [notes(one) for one in found] == [
        (False, (), False),
        (True, (), False),
        (False, ("</s>", "<pad>"), False),
        (False, (), True),
        (False, (), False),
        (False, (), True),
        (False, (), False),
    ]
    said = [(fault.code, fault.cause, fault.where) for fault in doubts(found, "new.csv")]
    assert said == [
        (
            "D14",
            "1 of 7 texts are cut to the longest that their task reads (limits of its run)",
            "new.csv, rows 2",
        ),
        (
            "D19",
            "1 of 7 texts hold special tokens of the model, which it does not read as words",
            "new.csv, rows 3",
        ),
        ("D03", "2 of 7 texts have a field of which the model knows less than half", "new.csv, rows 4, 6"),
    ]
    assert doubts(found[-1:]) == []
    assert json.loads(json.dumps(found[2].as_dict()))["special_tokens"] == ["</s>", "<pad>"]


def test_a_text_of_which_nothing_is_left_has_no_answer(make_backbone):
    """A special token alone: what is left of it shows nothing."""
    [one] = predictor(make_backbone("t5"), ["reads"]).predict([{"text": "</s>"}])
    assert (one.answer, "no token for any sign" in one.error) == (None, True)


def classifier_task():
    """A task whose texts are two fields with a space between them."""
    source, none = partial(template.fill, "{one} {two}"), (lambda _: [])
    return Task("pairs", none, none, source, {}, template="{one} {two}", choices=("yes", "no"))


def test_every_kind_of_answerer_says_what_it_receives():
    """Each by its own tokens and limit; a method that reads fields apart by these; TF-IDF by its terms."""
    backbone, encoder, tasks = (
        build_backbone("llama-suffix"),
        build_reader("bert-reader"),
        (classifier_task(),),
    )
    views = Views(backbone, {}, {"small": encoder})

    def weft(*chosen):
        return ViewClassifiers(views, tasks, (6,), ((chosen, None),))

    answerers = {
        "features": FeatureClassifiers(backbone, tasks, (6,), ()),
        "examples": InContextAnswerer(backbone, tasks, ((3,),), (ContextLayout(backbone, 6),), False),
        "base": weft(View("", "", 1)),
        "encoder": weft(View("", "", 1), View("small", "", 1)),  # one token of six ends its texts
        "apart": weft(View("small", "", 1, "0-1")),
    }
    for size, cut in ((2, set()), (3, {"encoder"}), (4, {*answerers} - {"apart"})):
        fields = (" ".join(["dog"] * 3), " ".join(["cat"] * size))
        got = {name: one.received(" ".join(fields), fields, 0) for name, one in answerers.items()}
        assert {name for name, one in got.items() if one.cut} == cut
        assert not any(one.unknown or one.special or one.nothing for one in got.values())
    fields = ("good dog", "👍")
    assert all(one.received(" ".join(fields), fields, 0).unknown for one in answerers.values())
    words = vectorizer().fit(["good dog", "bad cat"])
    tfidf = WordClassifiers(tasks, (words,), ())
    assert tfidf.received("good dog bad", ("good dog", "bad"), 0) == Received()
    assert tfidf.received("good film", ("good", "film"), 0) == Received(unknown=True)


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


def test_prompts_of_several_runs_are_composed_for_the_rows_that_ask(make_backbone):
    """Against each run's own prompts; beside the factors of the runs nothing is held."""
    backbone, generator = make_backbone("gpt2-suffix"), torch.Generator().manual_seed(0)
    numbers = partial(torch.randn, generator=generator)
    many = PromptBank(
        numbers(6, 16), numbers(50, 6, 1), numbers(50, 1, 16), tuple(f"t{i}" for i in range(50))
    )
    plain = SoftPrompts(numbers(2, 3, 16), ("a", "b"))
    mixed = MixedPrompts([many, plain])
    assert (mixed.length, mixed.width, mixed.tasks) == (6, 16, (*many.tasks, "a", "b"))
    ids = torch.tensor([51, 7, 7, 50, 49])
    found, mask = mixed(ids), mixed.mask(ids)
    for row, k in enumerate(ids.tolist()):
        own = many.shared * many.u[k] * many.v[k] if k < 50 else plain.prompts[k - 50]
        torch.testing.assert_close(found[row][6 - len(own) :], own)
        assert mask[row].tolist() == [0] * (6 - len(own)) + [1] * len(own)
    short = torch.tensor([50, 51])
    assert mixed(short).shape == (2, 3, 16)
    assert mixed.mask(short).all()
    kept = sum(value.numel() for value in mixed.state_dict().values())
    assert kept == sum(value.numel() for part in (many, plain) for value in part.parameters()) + 2 + 2 * 52
    several = [answers_of(backbone, one) for one in (many, plain)]
    [together] = merged(several)
    assert together.model.prompts.tasks == mixed.tasks


def answers_of(backbone, prompts):
    """A finished run with these prompts."""
    tasks = tuple(replace(open_task("reads"), name=name) for name in prompts.tasks)
    model = TunedModel(backbone, prompts, {}, prompts.tasks)
    return TunedAnswerer(model, tasks, (9,) * len(tasks))
