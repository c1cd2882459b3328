"""weft's own method: views under prompts, readers weighted by held-out rows, what is kept and answers."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ENCODERS, EVERY_BACKBONE, WORDS, build_backbone, build_reader
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_methods_classifiers import ANSWERS, ROWS, TEXTS, a_task, setup_of, shares_of, through_files

from weft.errors import ArtifactError, ConfigError
from weft.evaluation import readers
from weft.evaluation.answers import TextError
from weft.evaluation.fields import FIRST
from weft.evaluation.linear import choice_rows
from weft.evaluation.views import View, Views, heaviest_prompts
from weft.methods.weft import SHARED, Weft
from weft.models.features import prompted_features
from weft.models.kept_readings import KeptReadings
from weft.models.text_cache import TextCache
from weft.prompts.bank import PromptBank
from weft.tasks import Example

LENGTH = 3


def prompts_of(backbone, names=("one", "two")):
    draw = torch.Generator().manual_seed(5)
    return {name: backbone.scale * torch.randn(LENGTH, backbone.width, generator=draw) for name in names}


def setup_with_prompts(backbone):
    prompts = prompts_of(backbone)
    factors = torch.ones(2, LENGTH, 1), torch.ones(2, 1, backbone.width)
    bank = PromptBank(prompts["one"], *factors, ("one", "two"))
    return replace(
        setup_of(backbone),
        load_encoder=build_reader,
        load_source=lambda: bank,
        load_teachers=lambda: dict(prompts),
    )


def named(view):
    return View(view["encoder"], view["prompt"], view["layer"], view["compares"])


# views


@pytest.mark.parametrize("name", EVERY_BACKBONE)
def test_views_are_the_states_that_predict_an_answer(name):
    """Of a batch with padding, those of each text alone; the last layer's gives the first token's logits."""
    backbone = build_backbone(name)
    sources, prompts = [backbone.text_tokens(text)[0] for text in TEXTS], prompts_of(backbone)
    last = backbone.depths[-1]
    found = prompted_features(backbone, sources, prompts, [1, last], batch_size=3)
    for (prompt, layer), states in found.items():
        for i, source in enumerate(sources):
            alone = prompted_features(backbone, [source], {prompt: prompts[prompt]}, [layer])[prompt, layer]
            assert np.allclose(states[i], alone[0], rtol=1e-4, atol=1e-4)
    context = backbone.begin(backbone.read(sources), prompts["two"].expand(len(sources), -1, -1))
    if not backbone.lm.config.is_encoder_decoder:
        head = backbone.lm.get_output_embeddings()
        logits = head(torch.from_numpy(found["two", last]))
        assert torch.allclose(logits, context.logits, atol=1e-4)


def test_views_are_read_by_the_model_that_they_name():
    """All of them, or those that are asked for: the same numbers; each model has its own tokens and limit."""
    backbone, encoder = build_backbone("llama-suffix"), build_reader("roberta")
    views = Views(backbone, prompts_of(backbone), {"other": encoder})
    assert [name for name in views.names if name[0]] == [View("other", "", layer) for layer in range(4)]
    assert len([name for name in views.names if name[1] == "one"]) == len(
        {view.layer for view in views.names if view.prompt}
    )
    every = views.read(TEXTS, 16)
    assert list(every) == views.names
    wanted = {View("other", "", 2), View("", "two", 1)}
    some = views.read(TEXTS, 16, wanted)
    assert set(some) == wanted
    assert all(np.allclose(some[view], every[view], atol=1e-5) for view in wanted)
    assert {view: x.shape for view, x in every.items()} == {
        view: (len(TEXTS), views.width(view)) for view in views.names
    }
    long = "good " * 60  # 40 positions
    cut = Views(backbone, {}, {"other": encoder}).read([long], 100, {View("other", "", 3)})
    with pytest.raises(TextError) as caught:
        Views(build_backbone("llama-suffix"), {}, {}).read(["good", ""], 16)
    assert caught.value.number == 1
    assert np.isfinite(cut[View("other", "", 3)]).all()


# readers


def two_views(rows=27, clear=3):
    """Two views of rows of three answers, of unlike scales and worth, and their answers."""
    draw, y = np.random.default_rng(3), ["a", "b", "c"] * (rows // 3)
    shift = np.array([[one == "a", one == "b", *[0] * 38] for one in y])
    first = 5 * draw.normal(size=(rows, 40)) + 10 * clear * shift + 100
    return {("x", 1): first, ("y", 2): draw.normal(size=(rows, 20)) + clear * shift[:, :20]}, y


def losses_by_hand(x, y, strength):
    """`-log p` of every row's own answer, by a regression on the rows of the seven other folds."""
    found = np.zeros(len(y))
    for fold in range(8):
        held = np.array([(i // 3) % 8 == fold for i in range(len(y))])
        plain = LogisticRegression(C=strength, max_iter=5000, tol=1e-9).fit(x[~held], np.array(y)[~held])
        for i, row in zip(np.flatnonzero(held), plain.predict_proba(x[held]), strict=True):
            found[i] = -np.log(row["abc".index(y[i])])
    return found


def test_weights_of_views_are_those_of_scikit_learn():
    """Held-out losses and what views weigh, by plain loops."""
    views, y = two_views()
    losses = [readers.hold_out(view, y, 0.1).loss for view in views.values()]
    by_hand = [losses_by_hand(StandardScaler().fit_transform(x), y, 0.1).mean() for x in views.values()]
    assert losses == pytest.approx(by_hand, abs=1e-3)
    expected = np.exp(-5 * np.array(by_hand))
    assert readers.weights(losses, 5.0) == pytest.approx(expected / expected.sum(), abs=1e-3)


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.3, 0.7), (1.0, 0.0)])
def test_the_head_is_a_regression_on_views_as_long_as_their_shares(shares):
    """By scikit-learn on columns put together by hand: rows of a view are sqrt(share x width) long."""
    views, y = two_views()
    x, scale = readers.side_by_side(list(views.values()), [None, None], shares, 40)
    by_hand = np.concatenate(
        [
            StandardScaler().fit_transform(view) * np.sqrt(share * 40 / view.shape[1])
            for view, share in zip(views.values(), shares, strict=True)
        ],
        axis=1,
    )
    assert (by_hand**2).sum(1).mean() == pytest.approx(40)
    strength, held = readers.chosen_strength(x, y, (0.02, 0.005, 0.08), 100, scale)
    tried = {c: losses_by_hand(by_hand, y, c) for c in (0.02, 0.005, 0.08)}
    assert held.loss == pytest.approx(tried[strength].mean(), abs=1e-3)
    plain = LogisticRegression(C=strength, max_iter=5000, tol=1e-9).fit(by_hand, y)
    head = readers.fit_reader(x, y, strength, scale)
    assert np.allclose(head.shares(x, "abc"), plain.predict_proba(by_hand), atol=2e-3)
    assert np.allclose(head.times(2.0).shares(x, "abc"), squared(plain.predict_proba(by_hand)), atol=4e-3)


def squared(shares):
    return shares**2 / (shares**2).sum(1, keepdims=True)


@pytest.mark.parametrize("strengths", [(1.0, 0.001, 0.1), (0.001, 1.0, 0.1), (0.1, 1.0, 0.05)])
def test_the_strength_is_the_first_unless_another_is_clearly_better(strengths):
    """By a fine grid of factors for each; where no row can be held out it is the first."""
    views, y = two_views(48, clear=1)
    x, scale = readers.side_by_side(list(views.values()), [None, None], (0.5, 0.5), 40)
    found, held = readers.chosen_strength(x, y, strengths, 100, scale)

    def least(strength):
        one = readers.hold_out(x, y, strength, 100, scale)
        return min(one.changed(factor).loss for factor in np.exp(np.linspace(-1, 3, 81)))

    losses = [least(strength) for strength in strengths]
    clear = min(losses) < losses[0] - 0.02
    assert found == (strengths[int(np.argmin(losses))] if clear else strengths[0])
    assert held.sure.loss == pytest.approx(least(found), abs=1e-3)
    assert readers.chosen_strength(np.eye(2), ["a", "b"], (0.5, 0.1), 9, np.ones(2))[0] == 0.5


@given(
    st.lists(st.floats(0, 3), min_size=1, max_size=8),
    st.floats(0, 50),
    st.integers(1, 9),
)
def test_weights_add_up_to_one_and_fall_with_the_loss(losses, sharpness, most):
    """Those that are kept are the heaviest, in the order of the views."""
    shares = readers.weights(losses, sharpness)
    assert shares.sum() == pytest.approx(1)
    assert all(
        (a <= b) == (p >= q) or p == q
        for a, p in zip(losses, shares, strict=True)
        for b, q in zip(losses, shares, strict=True)
    )
    kept = readers.heaviest(dict(enumerate(shares.tolist())), most)
    assert sum(kept.values()) == pytest.approx(1)
    assert list(kept) == sorted(kept)
    assert len(kept) == min(most, len(losses))
    assert min(shares[i] for i in kept) >= max(
        [shares[i] for i in range(len(losses)) if i not in kept], default=0
    )


def test_confidence_is_the_factor_with_the_least_loss():
    """Of a grid of factors none is better; rows that are right more often than said want one above 1."""
    draw = np.random.default_rng(4)
    y = draw.permutation(["a", "b", "c"] * 12).tolist()
    shift = np.array([[one == "a", one == "b", 0, 0] for one in y])
    held = readers.hold_out(draw.normal(size=(36, 4)) + 3 * shift, y, 0.03)
    factor, none = readers.confidence(held)
    losses = {one: held.changed(one).loss for one in np.exp(np.linspace(-1, 3, 41))}
    assert (factor > 1.5, none) == (True, 0)
    assert held.changed(factor).loss <= min(losses.values()) + 1e-5
    assert np.allclose(np.exp(held.changed(factor).logs).sum(1), 1)
    logs = factor * held.logs
    by_hand = [np.log(np.exp(row[k]) / np.exp(row).sum()) for row, k in zip(logs, held.right, strict=True)]
    assert held.changed(factor).loss == pytest.approx(-np.mean(by_hand))


def test_what_the_words_say_counts_as_far_as_held_out_rows_bear_it_out():
    """Both factors together: of a grid none is better; what misleads counts for nothing."""
    draw = np.random.default_rng(5)
    y = draw.permutation(["a", "b", "c"] * 12).tolist()
    gold = np.array([[one == answer for answer in "abc"] for one in y], float)
    held = readers.hold_out(draw.normal(size=(36, 4)) + gold @ draw.normal(size=(3, 4)), y, 0.03)
    knows, misleads = 0.3 * gold + 0.2 * draw.normal(size=(36, 3)), -0.1 * gold
    factor, counts = readers.confidence(held, knows)
    factors, counting = np.exp(np.linspace(-1, 3, 21)), np.linspace(0, 40, 41)
    grid = [held.changed(a, b * knows).loss for a in factors for b in counting]
    assert counts > 2
    assert held.changed(factor, counts * knows).loss <= min(grid) + 1e-4
    assert readers.confidence(held, misleads)[1] == pytest.approx(0, abs=1e-3)
    alone = readers.hold_out(np.eye(2), ["a", "b"], 1.0)
    assert readers.confidence(alone, np.eye(2)) == (1.0, readers.UNTRIED)


def test_a_column_that_hardly_varies_has_no_weight():
    """As constant ones: a model's dead column would get a weight that no file holds."""
    x, y = np.random.default_rng(2).normal(size=(20, 5)), ["a", "b"] * 10
    dead = x.copy()
    dead[:, 2] *= 1e-30
    head, without = readers.fit_reader(dead, y, 1.0), readers.fit_reader(np.delete(x, 2, 1), y, 1.0)
    assert np.allclose(head.weights[:, 2], 0, atol=1e-6)
    assert np.allclose(np.delete(head.weights, 2, 1), without.weights, atol=1e-4)
    plain = readers.hold_out(np.delete(x, 2, 1), y, 1.0)
    assert readers.hold_out(dead, y, 1.0).loss == pytest.approx(plain.loss, abs=1e-5)


def test_a_row_that_is_alone_with_its_answer_is_in_no_fold():
    """All others take turns; where none can be held out, every reader weighs alike."""
    assert readers.fold_numbers(["a", "b", "a", "c", "b", "a"], 2).tolist() == [0, 0, 1, -1, 1, 0]
    assert readers.hold_out(np.eye(2), ["a", "b"], 1.0).loss == 0.0
    assert readers.confidence(readers.hold_out(np.eye(2), ["a", "b"], 1.0)) == (1.0, 0.0)
    rows = [row for i, row in enumerate(ROWS) if i in (0, 8, 16)]
    backbone = build_backbone("llama-suffix")
    saved = Weft(sources=False, encoders=(), views=9).fit(setup_of(backbone, rows=(rows,)))
    assert len({view["weight"] for view in saved.notes["tone"]["views"]}) == 1


def test_a_known_scale_of_columns_takes_the_place_of_their_own():
    """The reader is that of columns divided by it; one that says nothing has no weight."""
    draw = np.random.default_rng(6)
    x, y = draw.normal(size=(30, 4)).astype(np.float32) * [1, 5, 0.1, 1] + 3, ["a", "b", "c"] * 10
    scale = np.array([2, 4, 0.2, np.inf], np.float32)
    head = readers.fit_reader(x, y, 0.3, scale)
    z = (x - x.mean(0))[:, :3] / scale[:3]
    known = LogisticRegression(C=0.3, tol=1e-9, max_iter=10_000).fit(z, y)
    assert np.allclose(head.weights[:, :3] * scale[:3], known.coef_, atol=1e-4)
    assert not head.weights[:, 3].any()
    assert np.allclose(head.shares(x, ("a", "b", "c")), known.predict_proba(z), atol=1e-4)
    alike = readers.hold_out(x, y, 0.3, scale=x.std(0))
    assert np.allclose(alike.logs, readers.hold_out(x, y, 0.3).logs, atol=1e-4)
    assert not np.allclose(readers.hold_out(x, y, 0.3, scale=scale).logs, alike.logs, atol=1e-2)


# the answers' words


def mean_states(encoder, text):
    """Of one text alone: the mean of each layer's states, as one long vector."""
    state = encoder.read([encoder.text_tokens(text)[0]])
    with torch.no_grad():
        means = [states[0].double().mean(0).numpy() for states in encoder.text_states(state)]
    return [one / np.linalg.norm(one) for one in means]


def test_texts_are_held_against_the_words_of_the_answers():
    """Beside what rows teach, a factor times the mean cosine of two encoders, by a loop over all."""
    backbone, names = build_backbone("llama-suffix"), ("bert-reader", "roberta")
    setup = replace(setup_of(backbone), load_encoder=build_reader)
    asked = {"sources": False, "encoders": names, "views": 5, "opens": False}
    saved = through_files(Weft(**asked).fit(setup))
    bare = through_files(Weft(**asked, words=False).fit(setup))
    notes = saved.notes["tone"]["views"]
    said = [view for view in notes if view["compares"] == "words"]
    assert [view["encoder"] for view in said] == list(names)
    assert notes[:5] == bare.notes["tone"]["views"]
    counts, width = said[0]["weight"], 24
    assert counts > 0
    models = [build_reader(name) for name in names]
    last = {text: [mean_states(one, text)[-1] for one in models] for text in (*TEXTS, *ANSWERS)}
    cosines = np.array(
        [[np.mean([a @ b for a, b in zip(last[x], last[y], strict=True)]) for y in ANSWERS] for x in TEXTS]
    )
    method = Weft(**asked)
    weights = method.restore(setup, saved).heads[0][1].weights
    assert weights.shape[1] == method.restore(setup, bare).heads[0][1].weights.shape[1] + 2 * width
    vectors = [np.concatenate(last[text]) for text in TEXTS]
    found = np.array(vectors) @ weights[:, -2 * width :].T / counts
    expected = cosines - cosines.mean(1, keepdims=True)
    order = [ANSWERS.index(answer) for answer in saved.notes["tone"]["answers"]]
    assert np.allclose(found, expected[:, order], atol=5e-3)
    answers = method.restore(setup, saved).answer(TEXTS, [0] * len(TEXTS))
    part = {
        "0.codes": saved.tensors["0.codes"][:, : -2 * width],  # a byte a weight
        "0.steps": saved.tensors["0.steps"][:, :-2],
        "0.bias": saved.tensors["0.bias"],
    }
    fewer = {"tone": {**saved.notes["tone"], "views": notes[:5]}}
    without = method.restore(setup, replace(saved, tensors=part, notes=fewer)).answer(TEXTS, [0] * len(TEXTS))
    logs = np.log(shares_of(without)) + counts * expected
    odds = np.exp(logs)
    assert np.allclose(shares_of(answers), odds / odds.sum(1, keepdims=True), atol=1e-2)


# comparisons

FORM = "one: {one} two: {two}"
PAIRS = [FORM.format(one=a, two=b) for a, b in zip(TEXTS, reversed(TEXTS), strict=True)]


def test_alike_or_not_is_learnt_from_what_is_compared():
    """Of a tiny random encoder whole texts say little of it; a run keeps comparisons, and answers by them."""
    backbone, draw = build_backbone("llama-suffix"), np.random.default_rng(8)
    words = [f"{a} {b}" for a in ("good", "bad", "red", "blue") for b in ("day", "dog", "sun", "sea")]
    rows = []
    for i in range(40):
        one, other = draw.choice(words, 2, replace=False)
        rows.append(Example(FORM.format(one=one, two=(other, one)[i % 2]), ("no", "yes")[i % 2]))
    tasks = [a_task("alike", ("no", "yes"), template=FORM), a_task("tone", ("no", "yes"))]
    setup = replace(setup_of(backbone, tasks, (rows[:30], rows[:30])), load_encoder=build_reader)
    method = Weft(sources=False, encoders=("bert-reader",), views=4, opens=False)
    saved = through_files(method.fit(setup))
    assert any(named(view).apart for view in saved.notes["alike"]["views"])
    assert not any(named(view).apart for view in saved.notes["tone"]["views"])
    answerer = method.restore(setup, saved)
    texts = [row.source for row in rows[30:]]
    told = answerer.answer([text for text in texts for _ in (0, 1)], [0, 1] * len(texts))
    assert sum(one.text == row.target for one, row in zip(told[::2], rows[30:], strict=True)) >= 9
    alone = answerer.answer(texts[:1], [0])[0]
    assert alone.probabilities == pytest.approx(told[0].probabilities, abs=1e-5)
    with pytest.raises(TextError, match="is not of the form") as caught:
        answerer.answer([*texts, *texts, "another form"], [0] * (2 * len(texts) + 1))
    assert caught.value.number == 2 * len(texts)
    plain = Weft(sources=False, encoders=("bert-reader",), views=4, opens=False, compare=False).fit(setup)
    assert not any(named(view).apart for view in plain.notes["alike"]["views"])


def test_a_first_word_is_learnt_and_answers():
    """Of texts whose first word decides, read without the words of the template."""
    backbone, draw = build_backbone("llama-suffix"), np.random.default_rng(9)
    form, firsts, rest = "sentence: {text}", ("day", "dog"), ["good", "bad", "red", "blue", "sun", "sea"]
    rows = [
        Example(form.format(text=f"{firsts[i % 2]} {' '.join(draw.choice(rest, 5))}"), ("no", "yes")[i % 2])
        for i in range(48)
    ]
    tasks = [a_task("opens", ("no", "yes"), template=form)]
    setup = replace(setup_of(backbone, tasks, (rows[:24],)), load_encoder=build_reader)
    method = Weft(sources=False, encoders=("bert-reader",), views=3, words=False)
    saved = through_files(method.fit(setup))
    assert FIRST in [view["compares"] for view in saved.notes["opens"]["views"]]
    told = method.restore(setup, saved).answer([row.source for row in rows[24:]], [0] * 24)
    assert sum(one.text == row.target for one, row in zip(told, rows[24:], strict=True)) >= 22
    never = Weft(sources=False, encoders=("bert-reader",), views=20, opens=False).fit(setup)
    assert FIRST not in [view["compares"] for view in never.notes["opens"]["views"]]


# the method


@pytest.mark.parametrize("name", ["t5", "llama-suffix", "llama-prefix"])
@pytest.mark.parametrize("encoders", [(), ("bert-reader",)])
def test_what_is_kept_answers_as_what_was_fitted(name, encoders):
    """Through the files of a run, without the runs it came from: one head on the views with most weight."""
    settings = {"views": 20, "words": False, "worth": -1000.0, "prompts": 9, "opens": False}
    backbone, method = build_backbone(name), Weft(encoders=encoders, **settings)
    setup = setup_with_prompts(backbone)
    saved = through_files(method.fit(setup))
    answering = replace(setup_of(backbone), load_encoder=build_reader)
    answers = method.restore(answering, saved).answer(TEXTS, [0] * len(TEXTS), batch_size=2)
    views = Views(
        backbone,
        {**prompts_of(backbone), SHARED: prompts_of(backbone)["one"]},
        {e: build_reader(e) for e in encoders},
    )
    targets, notes = [row.target for row in ROWS], saved.notes["tone"]
    assert {view.prompt for view in views.names} == {"", "one", "two", SHARED}
    train, test = views.read([row.source for row in ROWS], 16), views.read(TEXTS, 16)
    losses = np.array([readers.hold_out(x, targets, 0.01).loss for x in train.values()])
    best = sorted(range(len(losses)), key=lambda i: losses[i])[:20]
    assert set(map(named, notes["views"])) == {views.names[i] for i in best}
    assert any(view["prompt"] for view in notes["views"])
    kept = {named(view): view["weight"] for view in notes["views"]}
    x, scale = readers.side_by_side(
        [train[view] for view in kept], [None] * len(kept), list(kept.values()), 32
    )
    strength, held = readers.chosen_strength(x, targets, (0.01, 0.0025, 0.04), 256, scale)
    factor, _ = readers.confidence(held)
    plain = LogisticRegression(C=strength, max_iter=5000, tol=1e-9).fit((x - x.mean(0)) / scale, targets)
    unseen = np.concatenate([test[view] for view in kept], axis=1)
    order = [list(plain.classes_).index(word) for word in ANSWERS]
    odds = np.exp(factor * plain.decision_function((unseen - x.mean(0)) / scale))[:, order]
    assert factor > 1
    assert np.allclose(shares_of(answers), odds / odds.sum(1, keepdims=True), atol=5e-3)  # 8 bits
    told = method.restore(answering, saved).answer([row.source for row in ROWS], [0] * len(ROWS))
    assert sum(one.text == row.target for one, row in zip(told, ROWS, strict=True)) > len(ROWS) * 0.8


def test_folds_read_no_text_again(monkeypatch):
    """Whatever views a fold chooses: a text that was read, bare or under a prompt, is known in all layers."""
    backbone, method = build_backbone("llama-suffix"), Weft(encoders=(), views=2, looks=3, worth=-1000.0)
    monkeypatch.setattr(readers, "FOLDS", 2)
    backbone.kept = KeptReadings(1 << 24)
    rows = list({row.source: row for row in ROWS}.values())
    setup = replace(setup_with_prompts(backbone), rows=[rows])
    setup.source.shared.data *= 0.5  # else P* would be one of the others
    method.fit(setup)
    read, under = [], []
    whole, prompted = TextCache.states, type(backbone).answer_states
    monkeypatch.setattr(
        TextCache,
        "states",
        lambda self, texts, deepest: read.append(len(texts)) or whole(self, texts, deepest),
    )
    monkeypatch.setattr(
        type(backbone),
        "answer_states",
        lambda self, state, prompts, layers: (
            under.extend((one.sum().item(), state.sources) for one in prompts)
            or prompted(self, state, prompts, layers)
        ),
    )
    for fold in range(3):
        method.fit(setup.with_rows([[row for i, row in enumerate(rows) if i % 3 != fold]]))
    assert not any(read)
    met = [(prompt, source) for prompt, sources in under for source in sources]
    assert len(met) == len(set(met))


def test_folds_read_no_field_again(monkeypatch):
    """Nor do they read fields: a pair that was compared in one view is known in all."""
    backbone, encoder = build_backbone("llama-suffix"), build_reader("bert-reader")
    monkeypatch.setattr(readers, "FOLDS", 2)
    words = list(dict.fromkeys(WORDS))[:8]
    fields = [" ".join(two) for two in itertools.permutations(words, 2)][:48]
    pairs = zip(fields[::2], fields[1::2], strict=True)
    rows = [Example(FORM.format(one=a, two=b), ("no", "yes")[i % 2]) for i, (a, b) in enumerate(pairs)]
    for model in (backbone, encoder):
        model.kept = KeptReadings(1 << 24)
    tasks = [a_task("alike", ("no", "yes"), template=FORM)]
    setup = replace(setup_of(backbone, tasks, (rows,)), load_encoder=lambda name: encoder)
    method = Weft(sources=False, encoders=("bert-reader",), views=4, looks=3, words=False)
    read, whole = [], type(encoder).read
    monkeypatch.setattr(type(encoder), "read", lambda self, texts: read.extend(texts) or whole(self, texts))
    apart = [named(view).apart for view in method.fit(setup).notes["alike"]["views"]]
    assert 0 < sum(apart) < 6  # some of the views that compare
    for fold in range(3):
        method.fit(setup.with_rows([[row for i, row in enumerate(rows) if i % 3 != fold]]))
    assert len(read) == len(set(read))


def test_texts_are_read_together(monkeypatch):
    """The base model reads all of them in as few reads of a fixed shape as one call would."""
    rows = list({row.source: row for row in ROWS}.values())
    backbone, alone = build_backbone("llama-suffix"), build_backbone("llama-suffix")
    for one in (backbone, alone):
        one.kept = KeptReadings(1 << 24)
    reads, compute = [], TextCache._compute
    monkeypatch.setattr(TextCache, "_compute", lambda self, *args: reads.append(self) or compute(self, *args))
    method = Weft(encoders=(), views=2, looks=3, worth=-1000.0)
    monkeypatch.setattr(readers, "FOLDS", 2)
    method.fit(replace(setup_with_prompts(backbone), rows=[rows]))
    alone.prepare(alone.text_tokens(row.source, 16)[0] for row in rows)
    assert reads.count(backbone.texts) == reads.count(alone.texts)


def test_only_prompts_that_a_task_reads_under_are_kept():
    """And as many numbers are counted as were fitted: of three answers all rows."""
    backbone = build_backbone("llama-suffix")
    saved = Weft(encoders=(), views=2).fit(setup_with_prompts(backbone))
    used = {view["prompt"] for view in saved.notes["tone"]["views"]} - {""}
    assert {name.removeprefix("prompt.") for name in saved.tensors if name.startswith("prompt.")} == used
    assert saved.tensors["0.codes"].shape == (3, 2 * 32)
    assert saved.parameters == 3 * (2 * 32 + 1)


def test_of_many_rows_a_part_chooses_and_all_are_fitted(monkeypatch):
    """Views are chosen on as many rows as fit, then read again of all rows: those alone."""
    monkeypatch.setattr("weft.evaluation.linear.CHOICE_ROWS", 12)
    backbone, method = (
        build_backbone("llama-suffix"),
        Weft(sources=False, encoders=(), views=1, strengths=(1.0,)),
    )
    saved = method.fit(setup_of(backbone))
    [view] = saved.notes["tone"]["views"]
    x = Views(backbone, {}, {}).read([row.source for row in ROWS], 16)[named(view)]
    head = readers.fit_reader(x, [row.target for row in ROWS], 0.01)
    kept = method.restore(setup_of(backbone), saved).heads[0][1].weights
    factor = np.vdot(kept, head.weights) / np.vdot(head.weights, head.weights)
    assert np.allclose(kept, factor * head.weights, atol=0.01 * np.abs(kept).max())  # 8 bits


def test_of_very_many_rows_a_share_of_each_answer_is_fitted():
    """As if there were no others; so memory has a bound."""
    backbone, method = build_backbone("llama-suffix"), Weft(sources=False, encoders=(), fits=18)
    places = choice_rows([row.target for row in ROWS], 18)
    assert len(places) < len(ROWS)
    some = method.fit(setup_of(backbone, rows=([ROWS[i] for i in places],)))
    whole = method.fit(setup_of(backbone))
    assert whole.notes == some.notes
    assert all(torch.equal(one, some.tensors[name]) for name, one in whole.tensors.items())
    assert method.model_copy(update={"fits": 20_000}).fit(setup_of(backbone)).notes != whole.notes


@pytest.mark.parametrize("most", [1, 2])
def test_a_task_reads_under_few_prompts(most):
    """Those whose views weigh most together, though one of another weighs more; the places go to the next."""
    draw, y = np.random.default_rng(3), ["a", "b"] * 24
    gold = np.array([[one == answer for answer in "ab"] for one in y], float)

    def held(clear):
        x = draw.normal(size=(48, 6))
        x[:, :2] += clear * gold
        return readers.hold_out(x, y, 0.05)

    clear = {
        ("x", 1): 1.9,
        ("x", 2): 2.0,
        ("x", 3): 1.9,
        ("y", 1): 2.4,
        ("y", 2): 0.3,
        ("z", 1): 1.0,
        ("", 1): 0.5,
    }
    views = {View("", *name): held(much) for name, much in clear.items()}
    kept = Weft(views=5, prompts=most, worth=-1000.0)._kept(views)
    every, _ = readers.weighed(views, list(views), 10.0, 5)
    together = {p: sum(share for view, share in every.items() if view.prompt == p) for p in "xyz"}
    assert heaviest_prompts(every, most) == sorted(together, key=lambda p: -together[p])[:most]
    assert {view.prompt for view in kept} - {""} == set(heaviest_prompts(every, most))
    assert len(kept) == (4 if most == 1 else 5)
    assert sum(kept.values()) == pytest.approx(1)


@pytest.mark.parametrize("helps", [True, False])
def test_prompts_are_read_where_held_out_rows_are_the_better_for_them(helps):
    """The loss of a mixture, well scaled, is that on held-out rows: noise beside it changes little."""
    draw = np.random.default_rng(6)
    y = draw.permutation(["a", "b", "c"] * 16).tolist()
    gold = np.array([[one == answer for answer in "abc"] for one in y], float)
    bare, noise = draw.normal(size=(48, 6)), draw.normal(size=(48, 6))
    bare[:, :3] += 2 * gold
    noise[:, :3] += 4 * gold * helps
    held = {name: readers.hold_out(x, y, 0.05) for name, x in (("bare", bare), ("prompted", noise))}
    (alone, loss), (both, other) = (readers.weighed(held, group, 10.0, 8) for group in (["bare"], list(held)))
    assert (set(alone), set(both)) == ({"bare"}, {"bare", "prompted"})
    assert (other < loss - 0.02) == helps
    assert loss == pytest.approx(held["bare"].changed(readers.confidence(held["bare"])[0]).loss)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=90), st.integers(1, 40))
def test_rows_that_choose_are_shared_out_by_their_texts(targets, most):
    """Eight of every answer or all it has; without some other rows, nearly the same ones."""
    texts = [f"text {i}" for i in range(len(targets))]
    rows = readers.first_rows(texts, targets, most)
    assert rows == sorted(set(rows))
    for answer in set(targets):
        own = [i for i in rows if targets[i] == answer]
        assert len(own) >= min(readers.FOLDS, targets.count(answer))
    if len(targets) > most:
        assert len(rows) <= most + (readers.FOLDS + 1) * len(set(targets))
        left = [i for i in range(len(targets)) if i not in rows]
        again = readers.first_rows(
            [texts[i] for i in rows + left[1:]], [targets[i] for i in rows + left[1:]], most
        )
        assert len(set(again) & set(range(len(rows)))) >= len(rows) - 3


def test_a_text_that_many_tasks_ask_for_is_read_once(monkeypatch):
    """By each model once, whatever tasks; answers are those of each task alone."""
    backbone, tasks = build_backbone("llama-suffix"), [a_task("tone"), a_task("mood")]
    rows = (ROWS, ROWS[::2])
    setup = replace(setup_of(backbone, tasks, rows), load_encoder=build_reader)
    method = Weft(sources=False, encoders=("bert-reader",), views=3)
    answerer = method.restore(setup, method.fit(setup))
    alone = [answerer.answer([text], [k])[0] for text in TEXTS for k in (0, 1)]
    seen, whole = [], type(backbone).text_states
    monkeypatch.setattr(
        type(backbone),
        "text_states",
        lambda self, state, deepest=None: seen.append(len(state.sources)) or whole(self, state, deepest),
    )
    together = answerer.answer([text for text in TEXTS for _ in (0, 1)], [0, 1] * len(TEXTS))
    assert sum(seen) <= len(TEXTS)
    for one, other in zip(alone, together, strict=True):
        assert one.task == other.task
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def test_without_source_runs_it_needs_none():
    """And says what it needs with them."""
    assert Weft().needs == {"source", "teachers"}
    assert Weft(sources=False).needs == frozenset()
    with pytest.raises(ConfigError, match="encoder 'minilm'"):
        Weft(sources=False).fit(setup_of(build_backbone("llama-suffix")))


def test_of_many_rows_some_folds_are_held_out():
    """The first that have enough rows together; each is answered by a regression on all rows but its own."""
    draw = np.random.default_rng(3)
    targets = [ANSWERS[i % 3] for i in range(48)] + ["alone"]
    x = draw.normal(size=(49, 5)).astype(np.float32)
    whole = readers.hold_out(x, targets, 0.5)
    some = readers.hold_out(x, targets, 0.5, 13)
    folds = readers.fold_numbers(targets)
    assert some.rows.tolist() == np.flatnonzero((folds >= 0) & (folds < 3)).tolist()  # six rows a fold
    assert np.allclose(some.logs, whole.logs[np.isin(whole.rows, some.rows)], atol=1e-4)
    assert np.array_equal(readers.hold_out(x, targets, 0.5, 1000).logs, whole.logs)


@given(
    st.lists(st.integers(-1, 5), min_size=1, max_size=40).filter(lambda one: max(one) >= 0),
    st.integers(1, 50),
)
def test_first_folds_have_enough_rows_and_no_fold_too_many(numbers, enough):
    folds = np.asarray(numbers)
    some = readers.first_folds(folds, enough)
    kept = folds[some >= 0]
    assert ((some == folds) | (some == -1)).all()
    assert len(kept) >= min(enough, (folds >= 0).sum())
    assert (kept < kept.max()).sum() < enough


@pytest.fixture
def scaled():
    """A setup with a scale for each view of the base model, bare and under prompts."""
    backbone = build_backbone("llama-suffix")
    setup = setup_with_prompts(backbone)
    views = Views(backbone, {**prompts_of(backbone), SHARED: prompts_of(backbone)["one"]}, {})
    read = views.read(TEXTS, 16)
    return replace(setup, load_scales=lambda: {view[:3]: x.std(0) + 0.01 for view, x in read.items()})


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_on_known_scales_few_bits_answer_alike(scaled, bits):
    """They are kept with the run, so many bits a weight are, and the answers are those of all bits nearly."""
    settings = {"encoders": (), "views": 3, "words": False, "worth": -1000.0}
    method = Weft(bits=bits, **settings)
    saved = through_files(method.fit(scaled))
    views = saved.notes["tone"]["views"]
    gains = {name for name in saved.tensors if name.startswith("gain.")}
    assert gains == {f"gain.{json.dumps(named(view)[:3])}" for view in views}
    assert saved.tensors["0.codes"].shape == (3, 3 * 32 * bits // 8)
    answers = method.restore(scaled, saved).answer([row.source for row in ROWS], [0] * len(ROWS))
    whole = Weft(bits=8, **settings)
    others = whole.restore(scaled, whole.fit(scaled)).answer([row.source for row in ROWS], [0] * len(ROWS))
    assert np.abs(shares_of(answers) - shares_of(others)).mean() < {1: 0.1, 2: 0.1, 4: 0.02, 8: 1e-9}[bits]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: -one, "does not fit"),
        (lambda one: one[:-1], "should be"),
        (lambda one: None, "should be"),  # its codes would be bytes
    ],
)
def test_damaged_scales_are_refused(scaled, change, message):
    """Of another width, below zero; without one a view would have more bits than there are."""
    method = Weft(encoders=(), views=3, worth=-1000.0)
    saved = method.fit(scaled)
    name = next(name for name in saved.tensors if name.startswith("gain."))
    value = change(saved.tensors[name])
    left = {key: one for key, one in saved.tensors.items() if key != name}
    with pytest.raises(ArtifactError, match=message):
        method.restore(scaled, replace(saved, tensors=left if value is None else {**left, name: value}))


@pytest.mark.parametrize("words", ["tone", "[1]", '["", "", "deep"]', "null"])
def test_a_scale_of_no_view_is_refused(scaled, words):
    method = Weft(encoders=(), views=3)
    saved = method.fit(scaled)
    tensors = {**saved.tensors, f"gain.{words}": torch.ones(32)}
    with pytest.raises(ArtifactError, match="scale of no view"):
        method.restore(scaled, replace(saved, tensors=tensors))


def test_a_run_that_reads_at_other_depths_still_answers(monkeypatch):
    """Which depths a fit chooses from may change from one version to the next."""
    backbone, method = build_backbone("llama-suffix"), Weft(encoders=(), views=2, worth=-1000)
    setup = setup_with_prompts(backbone)
    monkeypatch.setattr("weft.evaluation.views.PROMPTED", (0.01,))
    saved = through_files(method.fit(setup))
    before = shares_of(method.restore(setup, saved).answer(TEXTS, [0] * len(TEXTS)))
    monkeypatch.setattr("weft.evaluation.views.PROMPTED", (0.97,))
    assert not set(Views(backbone, prompts_of(backbone), {}).names) >= {
        named(one) for one in saved.notes["tone"]["views"]
    }
    after = shares_of(method.restore(setup, saved).answer(TEXTS, [0] * len(TEXTS)))
    assert np.array_equal(after, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda notes: notes["views"].append(notes["views"][0]), "twice"),
        (lambda notes: notes["views"][0].update(layer=77), "not there"),
        (lambda notes: notes["views"][0].update(encoder="gone"), "not there"),
        (lambda notes: notes["views"].pop(), "should be"),
        (lambda notes: notes["answers"].__setitem__(0, "other"), "does not have"),
    ],
)
def test_damaged_notes_are_refused(change, message):
    """Before anything is read."""
    backbone, method = build_backbone("llama-suffix"), Weft(encoders=(), views=3)
    saved = through_files(method.fit(setup_with_prompts(backbone)))
    change(saved.notes["tone"])
    with pytest.raises(ArtifactError, match=message):
        method.restore(setup_of(backbone), saved)


# encoders


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_reads_a_batch_as_each_text_alone(name):
    """Of every layer, the states of transformers' own model on one text without padding."""
    encoder = build_reader(name)
    assert (encoder.positions, encoder.depths, encoder.width) == (40, [3], 24)
    views = Views(encoder, {}, {})
    assert views.names == [View("", "", layer) for layer in range(4)]
    found = views.read(TEXTS, 16, batch_size=3)
    for i, text in enumerate(TEXTS):
        ids = torch.tensor([encoder.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            states = encoder.lm(input_ids=ids, output_hidden_states=True).hidden_states
        for (_, _, layer, _), x in found.items():
            assert np.allclose(x[i], states[layer][0].double().mean(0), atol=1e-5)


def test_one_head_on_one_view_is_logistic_regression():
    """With an encoder as the base model and one view, weft is five lines of scikit-learn."""
    encoder, method = (
        build_reader("mpnet"),
        Weft(sources=False, encoders=(), views=1, words=False, strengths=(1.0,), opens=False),
    )
    saved = method.fit(setup_of(encoder))
    answers = method.restore(setup_of(encoder), through_files(saved)).answer(TEXTS, [0] * len(TEXTS))
    [view] = saved.notes["tone"]["views"]
    views = Views(encoder, {}, {})
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, tol=1e-9))
    pipeline.fit(views.read([row.source for row in ROWS], 16)[named(view)], [row.target for row in ROWS])
    order = [list(pipeline.classes_).index(word) for word in ANSWERS]
    expected = pipeline.predict_log_proba(views.read(TEXTS, 16)[named(view)])[:, order]
    found = np.log(shares_of(answers))
    spread = [logs - logs.mean(1, keepdims=True) for logs in (found, expected)]
    ratio = (spread[0] / spread[1]).mean()
    assert ratio > 1
    assert np.allclose(spread[0], ratio * spread[1], atol=2e-3 * ratio)  # weights of 16 bits
