"""weft's own method: views under prompts, readers weighted by held-out rows, what is kept and answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import BACKBONE_IDS, build_backbone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from test_methods_classifiers import ANSWERS, ROWS, TEXTS, setup_of, shares_of, through_files

from weft.evaluation import readers
from weft.methods.weft import SHARED, Weft
from weft.models.features import prompted_features
from weft.prompts.bank import PromptBank

LENGTH = 3


def prompts_of(backbone, names=("one", "two")):
    draw = torch.Generator().manual_seed(5)
    return {name: backbone.scale * torch.randn(LENGTH, backbone.width, generator=draw) for name in names}


def setup_with_prompts(backbone):
    prompts = prompts_of(backbone)
    bank = PromptBank(
        prompts["one"], torch.ones(2, LENGTH, 1), torch.ones(2, 1, backbone.width), ("one", "two")
    )
    return replace(setup_of(backbone), load_source=lambda: bank, load_teachers=lambda: prompts)


@pytest.mark.parametrize("name", BACKBONE_IDS)
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


def test_the_mixture_is_that_of_scikit_learn():
    """Readers, held-out losses, weights and mixed probabilities, by plain loops in float64."""
    draw = np.random.default_rng(3)
    y = ["a", "b", "c"] * 9
    shift = np.array([[one == "a", one == "b", 0, 0] for one in y])
    views = {("x", 1): draw.normal(size=(27, 4)) + 2 * shift, ("y", 2): draw.normal(size=(27, 4)) + shift}
    found = readers.fit_readers(views, y, strength=0.1, sharpness=5.0)
    total, weights = 0, []
    for name, view in views.items():
        x = StandardScaler().fit_transform(view)
        rows = np.arange(27)
        logs = []
        for fold in range(8):
            held = np.array([(i // 3) % 8 == fold for i in rows])
            plain = LogisticRegression(C=0.1, max_iter=2000).fit(x[~held], np.array(y)[~held])
            shares = plain.predict_proba(x[held])
            logs += [np.log(row["abc".index(y[i])]) for row, i in zip(shares, rows[held], strict=True)]
        assert found[name].loss == pytest.approx(-np.mean(logs), abs=1e-4)
        weights.append(np.exp(5 * np.mean(logs)))
        plain = LogisticRegression(C=0.1, max_iter=2000).fit(x, y)
        total = total + weights[-1] * np.log(plain.predict_proba(x))
    assert [one.weight for one in found.values()] == pytest.approx(weights / np.sum(weights), abs=1e-4)
    logs = [found[name].log_shares(view.astype(np.float32), "abc") for name, view in views.items()]
    mixed = readers.mixed(logs, [one.weight for one in found.values()])
    odds = np.exp(total / np.sum(weights))
    assert np.allclose(mixed, odds / odds.sum(1, keepdims=True), atol=1e-3)


def test_a_row_that_is_alone_with_its_answer_is_in_no_fold():
    """All others take turns."""
    assert readers.fold_numbers(["a", "b", "a", "c", "b", "a"], 2).tolist() == [0, 0, 1, -1, 1, 0]
    assert readers.held_out_loss(np.eye(2), ["a", "b"], 1.0) == 0.0


@pytest.mark.parametrize("name", ["t5", "llama-suffix", "llama-prefix"])
def test_what_is_kept_answers_as_what_was_fitted(name):
    """Through the files of a run, without the runs it came from; it reads under the prompts and P*."""
    backbone = build_backbone(name)
    saved = through_files(Weft().fit(setup_with_prompts(backbone)))
    answers = Weft().restore(setup_of(backbone), saved).answer(TEXTS, [0] * len(TEXTS), batch_size=2)
    assert np.allclose(shares_of(answers).sum(1), 1)
    assert {name for name, _ in saved.notes["tone"]["views"]} == {"", "one", "two", SHARED}
    train = Weft().restore(setup_of(backbone), saved).answer([row.source for row in ROWS], [0] * len(ROWS))
    assert sum(one.text == row.target for one, row in zip(train, ROWS, strict=True)) > len(ROWS) * 0.8
    assert set(train[0].probabilities) == set(ANSWERS)
