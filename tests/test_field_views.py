"""Views of fields: each read alone, its first word, and pairs held against each other token by token."""

import numpy as np
import pytest
import torch
from conftest import ENCODERS, build_backbone, build_encoder, build_reader, build_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from test_methods_classifiers import TEXTS
from tokenizers import processors

from weft.evaluation import fields
from weft.evaluation.aligned import Aligned
from weft.evaluation.answers import TextError
from weft.evaluation.fields import COSINES, FIRST, FieldViews, thirds
from weft.evaluation.views import View
from weft.models.encoder import EncoderBackbone
from weft.models.kept_readings import KeptReadings

FORM = "one: {one} two: {two}"
PAIRS = [FORM.format(one=a, two=b) for a, b in zip(TEXTS, reversed(TEXTS), strict=True)]


def states_of(model, text):
    """Of one text alone: float64 states `[S, D]` of each layer."""
    state = model.read([model.text_tokens(text)[0]])
    with torch.no_grad():
        return [states[0].double().numpy() for states in model.text_states(state)]


def long(x):
    """One long, or nothing: of a token whose embedding is zero (MPNet's filler, as an unknown word here)."""
    return x / max(np.linalg.norm(x), 1e-12)


def cosine(a, b):
    return float(long(a) @ long(b))


def looked_for(those, among):
    """Each token's best cosine with tokens of the other text, and which one has it; by plain loops."""
    every = [[cosine(one, other) for other in among] for one in those]
    return [max(row) for row in every], [row.index(max(row)) for row in every]


def missed(those, among):
    _, best = looked_for(those, among)
    return np.mean([abs(long(one) - long(among[i])) for one, i in zip(those, best, strict=True)], axis=0)


def expected(view, first, second, layers):
    """One view of a pair, whose fields have these states of all layers."""
    at = [(first[layer], second[layer]) for layer in layers]
    if view.compares == COSINES:
        return [cosine(a.mean(0), b.mean(0)) for a, b in at]
    if view.compares == "0~1":
        a, b = first[view.layer], second[view.layer]
        return np.concatenate([missed(a, b), missed(b, a)])
    best = [looked_for(*(pair if view.compares == "1>0" else pair[::-1]))[0] for pair in at]
    return [f(one) for f in (np.mean, np.min, lambda x: np.quantile(x, 0.25)) for one in best]


@pytest.mark.parametrize("name", [*ENCODERS, "llama-suffix", "t5"])
def test_fields_are_held_against_each_other(name, monkeypatch):
    """By plain loops over rows and tokens, whatever is read together; of an empty field all is zero."""
    monkeypatch.setattr(fields, "ROWS", 3)
    model = build_reader(name) if name in ENCODERS else build_backbone(name)
    read = FieldViews({"e": model}, FORM)
    rows = [*zip(TEXTS, reversed(TEXTS), strict=True)]
    found = read.read([*PAIRS, FORM.format(one=TEXTS[0], two="")], 16, batch_size=2)
    layers, three = read.layers(model), thirds(read.layers(model))
    assert list(found) == read.names
    assert sorted(found) == sorted(
        [View("e", "", 0, form) for form in ("0>1", "1>0", COSINES)]
        + [View("e", "", layer, "0~1") for layer in three]
    )
    for view, x in found.items():
        assert x.shape == (len(PAIRS) + 1, read.width(view))
        for i, (one, two) in enumerate(rows):
            want = expected(view, states_of(model, one), states_of(model, two), layers)
            assert np.allclose(x[i], want, atol=1e-4), (view, i)
        assert not x[-1].any()


def test_what_is_asked_for_is_read_and_what_is_kept_is_not_read_again(monkeypatch):
    """Some views have the numbers that they have among all; a second time no text is read."""
    model = build_reader("bert-reader")
    model.kept = KeptReadings(1 << 24)
    read = FieldViews({"e": model}, FORM)
    every = FieldViews({"e": build_reader("bert-reader")}, FORM).read(PAIRS, 16)
    some = [View("e", "", 0, "1>0"), View("e", "", 0, COSINES)]
    reads, whole = [], type(model).read
    monkeypatch.setattr(type(model), "read", lambda self, texts: reads.append(texts) or whole(self, texts))
    for _ in range(2):
        found = read.read(PAIRS, 16, some)
        assert set(found) == set(some)
        assert all(np.allclose(x, every[view], atol=1e-5) for view, x in found.items())
        assert reads
        before = len(reads)
    assert len(reads) == before
    assert len({text for texts in reads for text in texts}) == sum(map(len, reads))  # each field once
    assert read.read(PAIRS, 16, []) == {}


@pytest.mark.parametrize(
    ("form", "pairs"), [("{a}", 0), ("{a} {b}", 1), ("{a} {b} {c}", 3), ("{a} {b} {c} {d}", 0)]
)
def test_two_or_three_fields_are_compared(form, pairs):
    """Each with each; one has no other, and of more there are too many."""
    read = FieldViews({"e": build_reader("bert-reader")}, form, opens=False)
    assert len(read.names) == (2 + 3) * pairs + bool(pairs)
    assert all(read.width(view) == 4 * pairs for view in read.names if view.compares == COSINES)
    assert FieldViews({"e": build_reader("bert-reader")}, form, opens=False, compares=False).names == []


def test_pairs_of_three_fields_are_those_of_two():
    """Fields 0 and 2 of three have the views that they have alone; an empty one between them changes none."""
    model = build_reader("roberta")
    two = FieldViews({"e": model}, FORM).read(PAIRS, 16)
    form = "{a}; {b}; {c}"
    texts = [f"{a}; ; {b}" for a, b in zip(TEXTS, reversed(TEXTS), strict=True)]
    three = FieldViews({"e": model}, form).read(texts, 16)
    for view, x in two.items():
        if view.compares == COSINES:
            cosines = three[view].reshape(len(texts), 3, -1)
            assert np.allclose(cosines[:, 1], x, atol=1e-5)
            assert not cosines[:, [0, 2]].any()
        else:
            assert np.allclose(three[view._replace(compares=view.compares.replace("1", "2"))], x, atol=1e-5)


def as_bert(name):
    """An encoder whose texts begin with a token of their own, too."""
    tokenizer = build_tokenizer()
    tokenizer.cls_token = "</s>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A </s>", special_tokens=[("</s>", tokenizer.cls_token_id)]
    )
    return EncoderBackbone(build_encoder(name), tokenizer, name=name)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("build", "at"), [(build_reader, 0), (as_bert, 1)])
def test_the_first_word_of_one_field(name, build, at):
    """Its state at the last layer, behind the token that begins every text, whatever the template says."""
    model = build(name)
    read = FieldViews({"e": model}, "sentence: {text}")
    found = read.read([f"sentence: {text}" for text in [*TEXTS, ""]], 16, batch_size=2)
    last = model.depths[0]
    assert list(found) == [View("e", "", last, FIRST)]
    for i, text in enumerate(TEXTS):
        assert np.allclose(found[View("e", "", last, FIRST)][i], states_of(model, text)[last][at], atol=1e-4)
    assert not found[View("e", "", last, FIRST)][-1].any()
    assert FieldViews({"e": model}, "sentence: {text}", opens=False).names == []


def test_a_model_that_reads_one_way_has_no_first_word():
    """Its state there knows nothing of what comes after."""
    assert FieldViews({"": build_backbone("llama-suffix")}, "{text}").names == []


def test_a_text_of_another_form():
    read = FieldViews({"e": build_reader("bert-reader")}, FORM)
    with pytest.raises(TextError, match="is not of the form") as caught:
        read.read([*PAIRS, "another form"], 16)
    assert caught.value.number == len(PAIRS)


@pytest.mark.parametrize(
    ("layers", "three"), [(range(7), [2, 4, 6]), ([5, 10, 15, 20, 25], [10, 20, 25]), ([3], [3])]
)
def test_thirds_of_the_way(layers, three):
    assert thirds(layers) == three


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_alignments_say_the_same_from_both_sides(one, other, seed):
    """Of texts that change places; of a text and itself nothing is missed. Long states change nothing."""
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(2, one, 5)), draw.normal(size=(2, other, 5))
    there, back = Aligned(a, b), Aligned(b, 3 * a)
    assert np.allclose(there.first_in_second, back.second_in_first)
    assert np.allclose(there.second_in_first, back.first_in_second)
    assert np.allclose(there.cosines, back.cosines)
    assert np.allclose(there.missed(1), np.roll(back.missed(1), 5))
    assert np.allclose(Aligned(a, a).first_in_second, 1)
    assert np.allclose(Aligned(a, a).missed(0), 0)
    assert there.first_in_second.shape == (2 * Aligned.SAID,)
