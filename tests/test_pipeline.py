"""Runs and banks under the conventions of transformers' pipelines: its forms, and weft's own answers."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import VOCABULARY, build_tokenizer
from test_predictor import LONGEST, predictor
from tiny_job import command
from transformers import BertConfig, BertForSequenceClassification
from transformers import pipeline as transformers_pipeline

import weft
from weft import Pipeline
from weft.config.decoding import Decoding
from weft.errors import ConfigError, DataError
from weft.serving.predictor import Predictor

RUNS = Path(__file__).parent / "fixtures" / "format-1"
NAMES = ["source-alpha+beta-s0-4d4fda07", "adapt-mpt-gamma-s0-32afba04"]
CLOSED = "adapt-mpt-gamma-s0-32afba04"
TEXTS = ["the film was good", "a dog sits", "one two three red"]


@pytest.fixture(scope="module")
def closed():
    """A run of one task with two answers."""
    return weft.load(CLOSED, root=RUNS / "finished", base=RUNS / "base")


@pytest.fixture(scope="module")
def several():
    """Three tasks with closed answers."""
    return weft.load(*NAMES, root=RUNS / "finished", base=RUNS / "base")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """The same three in a bank."""
    place = tmp_path_factory.mktemp("banks") / "bank"
    assert command("bank", "add", place, *NAMES, "--runs", RUNS / "finished") == 0
    return place


@pytest.fixture(scope="module")
def theirs():
    """Settings -> a pipeline of transformers for two answers, by a tiny encoder with a head."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, **sizes, **names)).eval()
    tokenizer = build_tokenizer()

    def made(**settings):
        return transformers_pipeline(
            "text-classification", model=model, tokenizer=tokenizer, device="cpu", **settings
        )

    return made


def form(value):
    """Lists and keys, without what they hold; kinds of numbers and texts stay."""
    if isinstance(value, list):
        return [form(one) for one in value]
    if isinstance(value, dict):
        return {key: type(one) for key, one in value.items()}
    return "iterator", [form(one) for one in value]


INPUTS = {
    "text": lambda: TEXTS[0],
    "list": lambda: TEXTS,
    "list of one": lambda: TEXTS[:1],
    "dict": lambda: {"text": TEXTS[0]},
    "list of dicts": lambda: [{"text": text} for text in TEXTS],
    "generator": lambda: (text for text in TEXTS),
}
SETTINGS = [{}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"top_k": 9}]


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("place", ["call", "constructor"])
def test_the_form_is_that_of_text_classification(closed, theirs, kind, settings, place):
    """Keys, kinds, nesting and order, as transformers gives them."""
    given = INPUTS[kind]
    own, other = ({}, settings) if place == "call" else (settings, {})
    found = Pipeline(closed, **own)(given(), **other)
    expected = theirs(**own)(given(), **other)
    assert form(found) == form(expected)


def ranked(probabilities):
    """All choices as transformers has them, likeliest first."""
    order = sorted(probabilities, key=probabilities.get, reverse=True)
    return [{"label": word, "score": probabilities[word]} for word in order]


def test_labels_and_scores_are_the_predictors(closed):
    """Of a text, of many, of a stream and of a table; with `top_k` as many as there are."""
    answers = closed.predict([{"text": text} for text in TEXTS], batch_size=2)
    expected = [ranked(one.probabilities) for one in answers]
    assert {len(one) for one in expected} == {2}
    assert [one[0]["label"] for one in expected] == [one.answer for one in answers]
    pipe = Pipeline(closed, batch_size=2)
    assert pipe(TEXTS) == [one[0] for one in expected]
    assert pipe(TEXTS, top_k=None) == expected
    assert pipe([]) == []
    assert pipe(pd.DataFrame({"text": TEXTS})) == pipe(TEXTS)
    for one, other in zip(
        [pipe(TEXTS[0]), *pipe(iter(TEXTS), top_k=1)], expected[:1] + expected, strict=True
    ):
        assert one[0]["label"] == other[0]["label"]
        assert one[0]["score"] == pytest.approx(other[0]["score"], abs=1e-5)  # in batches of other sizes


@pytest.mark.parametrize("kind", ["runs", "bank"])
def test_a_task_is_named_by_the_call_or_by_the_row(several, bank, kind):
    """One that a call names is that of all rows; a row's own is heard before the pipeline's."""
    pipe = Pipeline(several) if kind == "runs" else weft.pipeline(bank, base=RUNS / "base")
    found = {(one.row, one.task): one for one in several.predict([{"text": text} for text in TEXTS])}

    def expected(row, task):
        return pytest.approx(ranked(found[row, task].probabilities)[0]["score"], abs=1e-5)

    rows = [
        {"text": text, "task": task} for text, task in zip(TEXTS, ["gamma", "alpha", "beta"], strict=True)
    ]
    mixed = pipe(rows)
    assert [one["label"] for one in mixed] == [found[i, row["task"]].answer for i, row in enumerate(rows)]
    assert [one["score"] for one in mixed] == [expected(i, row["task"]) for i, row in enumerate(rows)]
    named = pipe(rows, task="beta")
    assert [one["score"] for one in named] == [expected(i, "beta") for i in range(3)]
    own = Pipeline(pipe.model, task="alpha")([TEXTS[0], {"text": TEXTS[1], "task": "gamma"}])
    assert [one["score"] for one in own] == [expected(0, "alpha"), expected(1, "gamma")]
    with pytest.raises(ConfigError, match="there are several tasks") as caught:
        pipe(TEXTS[0])
    assert "task=NAME" in caught.value.fix


def test_a_run_by_its_name_and_a_bank_by_its_folder(bank, closed):
    """`weft.pipeline` finds out which it is given."""
    expected = closed.predict([{"text": TEXTS[0]}])[0]
    for pipe in (
        weft.pipeline(CLOSED, root=RUNS / "finished", base=RUNS / "base"),
        weft.pipeline(bank, base=RUNS / "base", task="gamma"),
    ):
        [found] = pipe(TEXTS[0])
        assert (found["label"], found["score"]) == (
            expected.answer,
            pytest.approx(expected.probabilities[expected.answer], abs=1e-5),
        )


def test_written_answers_have_the_form_of_text2text_generation(make_backbone):
    """As transformers 4: a list of one for a text, dicts for a list, a list of one each in a stream."""
    model = predictor(make_backbone("gpt2-suffix"), ["reads"])
    expected = [{"generated_text": one.answer} for one in model.predict([{"text": text} for text in TEXTS])]
    pipe = Pipeline(model)
    assert pipe(TEXTS[0]) == expected[:1]
    assert pipe({"text": TEXTS[0]}) == expected[:1]
    assert pipe(TEXTS) == expected
    assert list(pipe(iter(TEXTS))) == [[one] for one in expected]


@pytest.mark.parametrize("name", ["gpt2-suffix", "t5"])
@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3}, {"temperature": 0.9, "top_p": 0.8, "seed": 4}], ids=str
)
def test_settings_of_writing_are_those_of_weft(make_backbone, name, settings):
    """Decoding as of `weft.Decoding`, and a length: as of a task that writes so many tokens at most."""
    model = predictor(make_backbone(name), ["reads"])
    short = Predictor(
        [
            replace(one, tasks=tuple(replace(task, max_target_tokens=2) for task in one.tasks))
            for one in model.answerers
        ]
    )
    rows, decoding = [{"text": text} for text in TEXTS], Decoding(**settings)
    long = [one.answer for one in model.predict(rows, decoding=decoding)]
    expected = [one.answer for one in short.predict(rows, decoding=decoding)]
    assert expected != long, "else this would say nothing"
    pipe = Pipeline(model, **settings)
    assert [one["generated_text"] for one in pipe(TEXTS)] == long
    assert [one["generated_text"] for one in pipe(TEXTS, max_new_tokens=2)] == expected
    assert [one["generated_text"] for one in pipe(TEXTS)] == long  # a call changes no other


def test_a_length_that_the_model_has_no_room_for_is_refused(make_backbone):
    """128 positions, of which prompt and text may take 104."""
    model = predictor(make_backbone("gpt2-suffix"), ["reads"])
    Pipeline(model)(TEXTS[0], max_new_tokens=24)
    with pytest.raises(
        ConfigError, match="an answer of 25 tokens is asked for, and the model has room for 24"
    ):
        Pipeline(model)(TEXTS[0], max_new_tokens=25)
    long = predictor(make_backbone("t5"), ["reads"])  # has room without end
    assert len(Pipeline(long)(TEXTS[0], max_new_tokens=LONGEST["reads"] + 40)) == 1


def test_a_stream_is_read_as_it_is_asked_for(closed):
    """As many rows at once as are read in a batch, and the first answer before the last row is there."""
    read = []

    def texts():
        for i in range(7):
            read.append(i)
            yield TEXTS[i % 3]

    found = Pipeline(closed)(texts(), batch_size=3)
    assert read == []
    next(found)
    assert read == [0, 1, 2]
    assert len(list(found)) == 6


def test_what_is_wrong_is_said(closed, make_backbone):
    """Settings before anything is loaded; rows with their number; texts for several fields."""
    for settings, message in (
        ({"topk": 2}, "there is no setting 'topk'"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": True}, "top_k is True"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"num_beams": 2, "temperature": 1.0}, "not both"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            weft.pipeline("no such run", **settings)
        with pytest.raises(ConfigError, match=re.escape(message)):
            Pipeline(closed)(TEXTS, **settings)
    pipe = Pipeline(closed)
    with pytest.raises(ConfigError, match="there is no task 'gama'") as caught:
        pipe(TEXTS, task="gama")
    assert "gamma" in caught.value.fix
    with pytest.raises(DataError, match="this is a int"):
        pipe(3)
    with pytest.raises(DataError, match="this is a int"):
        pipe([TEXTS[0], 3])
    with pytest.raises(DataError) as caught:
        list(pipe((text for text in [*TEXTS, " "]), batch_size=3))
    assert caught.value.where == "row 3"
    with pytest.raises(DataError, match="text"):
        pipe({"message": "a dog"})
    pair = predictor(make_backbone("gpt2-suffix"), ["reads"])
    pair.tasks["reads"] = replace(pair.tasks["reads"], template="{one} and {two}")
    with pytest.raises(DataError, match="reads the fields one, two, and this is a str") as caught:
        Pipeline(pair)("a dog")
    assert caught.value.fix == "give a dict of the fields"
