"""Classifiers on words and on frozen features: what they keep, how they choose, scikit-learn's numbers."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import EVERY_BACKBONE, build_backbone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from tiny_job import EXPERIMENT, command, write_job

from weft.checks.base_model import _check_answers
from weft.config.task import TaskSpec
from weft.config.training import PromptConfig
from weft.errors import ConfigError, DataError, UnsupportedError
from weft.evaluation import linear
from weft.evaluation.answers import TextError
from weft.evaluation.class_means import class_means, leave_one_out, unit
from weft.evaluation.linear import best_strength, cross_validated, fit_head, standard
from weft.methods.frozen_features import FrozenFeatures
from weft.methods.method import Setup
from weft.methods.tfidf import TfIdf, vectorizer
from weft.models.features import features, pooled
from weft.runs.config import AdaptRun
from weft.tasks import Example, Task

ANSWERS = ("good", "bad", "fine")
NOUNS = ("film", "book", "meal", "song", "city", "river", "dog", "cat")
ROWS = [Example(f"{word} {noun} {word}", word) for word in ANSWERS for noun in NOUNS]
TEXTS = ["a good film is it", "bad", "the fine dog runs and eats", "what is the city of a man"]


def a_task(name="tone", choices=ANSWERS, **more):
    return Task(name, lambda split: [], lambda row: [], lambda row: "", {}, choices=choices, **more)


def setup_of(backbone=None, tasks=None, rows=(ROWS,)):
    tasks = tuple(tasks or [a_task()])
    limits = (16,) * len(tasks)
    return Setup(tasks, list(rows), 0, PromptConfig(), limits, load_backbone=lambda: backbone)


def through_files(saved):
    """What is left of a method after its run was written and read: tensors that a run may keep and JSON."""
    kinds = {value.dtype for value in saved.tensors.values()}
    assert kinds <= {torch.float32, torch.bfloat16, torch.uint8}
    return replace(saved, notes=json.loads(json.dumps(saved.notes)))


def shares_of(answers):
    return np.array([[one.probabilities[word] for word in ANSWERS] for one in answers])


def test_tfidf_equals_the_pipeline_of_scikit_learn():
    """Probabilities of a restored classifier are those of the five lines, at the C that it chose."""
    method = TfIdf()
    saved = through_files(method.fit(setup_of()))
    answers = method.restore(setup_of(), saved).answer(TEXTS, [0] * len(TEXTS))
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    strength = saved.notes["tone"]["C"]
    pipeline = make_pipeline(words, LogisticRegression(C=strength, max_iter=2000))
    pipeline.fit([row.source for row in ROWS], [row.target for row in ROWS])
    order = [list(pipeline.classes_).index(word) for word in ANSWERS]
    assert np.allclose(shares_of(answers), pipeline.predict_proba(TEXTS)[:, order], atol=1e-5)
    assert [one.chosen for one in answers[:3]] == ["good", "bad", "fine"]
    terms = len(words.get_feature_names_out())
    assert saved.parameters == 3 * (terms + 1) + terms  # the regression, and idf


def test_two_answers_equal_a_binary_regression():
    """Two rows of weights, the first of zeros, give the sigmoid."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(30, 4)), ["b" if one else "a" for one in draw.random(30) < 0.5]
    head = fit_head(x, y, 1.0)
    own = LogisticRegression(C=1.0, max_iter=2000).fit(x, y)
    assert np.allclose(head.shares(x, ("a", "b")), own.predict_proba(x), atol=1e-5)


def test_an_answer_without_rows_has_no_share():
    """Choices that no row had get probability 0, whatever their place; one answer alone gets all."""
    head = fit_head(np.eye(2), ["z", "a"], 1.0)
    shares = head.shares(np.eye(2), ("never", "z", "a"))
    assert (shares[:, 0] == 0).all()
    assert np.allclose(shares.sum(1), 1)
    assert (fit_head(np.eye(2), ["a", "a"], 1.0).shares(np.eye(2), ("a", "z")) == [1, 0]).all()


def test_strength_is_chosen_by_cross_validation():
    """The best of the grid, by a plain loop over the same folds."""
    draw = np.random.default_rng(1)
    y = ["a", "b"] * 10
    x = draw.normal(size=(20, 6)) + np.array([[one == "a"] for one in y])
    scores = {strength: cross_validated(x, y, strength) for strength in (1.0, 0.1, 10.0, 100.0)}
    assert best_strength(x, y) == (max(scores, key=scores.get), max(scores.values()))


def blobs(counts, seed=3):
    """Features around a corner for each answer, so many of each, in a mixed order."""
    draw = np.random.default_rng(seed)
    y = draw.permutation([answer for answer, count in counts.items() for _ in range(count)]).tolist()
    x = draw.normal(size=(len(y), 4)) + np.array([[one == "a", one == "b", one == "c", 0] for one in y])
    return x.astype(np.float32), y


@pytest.mark.parametrize("strength", [0.1, 1.0, 100.0])
@pytest.mark.parametrize(
    "counts", [{"a": 9, "b": 8, "c": 7}, {"a": 9, "b": 8, "c": 1}, {"a": 3, "b": 2, "c": 1, "d": 1}]
)
def test_an_answer_with_one_row_is_never_held_out(counts, strength):
    """Folds are those of the other answers' rows; it stands in every training part (plain scikit-learn)."""
    x, y = blobs(counts)
    rare = [i for i, one in enumerate(y) if y.count(one) == 1]
    often = np.array([i for i in range(len(y)) if i not in rare])
    folds = StratifiedKFold(min(5, *(count for count in counts.values() if count > 1)))
    right = 0
    for train, test in folds.split(x[often], np.array(y)[often]):
        seen = sorted([*often[train], *rare])
        model = LogisticRegression(C=strength, max_iter=2000).fit(x[seen], [y[i] for i in seen])
        right += sum(model.predict(x[often[test]]) == np.array(y)[often[test]])
    assert right > 0
    assert cross_validated(x, y, strength) == 100.0 * right / len(often)


@pytest.mark.parametrize("y", [["a", "b", "c"], ["a"] * 6, ["a", "a", "a", "b"]])
def test_what_cannot_be_held_out_has_no_score(y):
    """No answer with two rows, or one alone: no number speaks for a candidate, and C is 1."""
    x = np.random.default_rng(4).normal(size=(len(y), 3)).astype(np.float32)
    assert cross_validated(x, y, 1.0) is None
    assert leave_one_out(x, y) is None
    assert best_strength(x, y) == (1.0, None)


@pytest.mark.parametrize("name", EVERY_BACKBONE)
def test_features_are_those_of_each_text_alone(name):
    """Pooled states of a batch equal those of the model's own hidden states of one text, unpadded."""
    backbone = build_backbone(name)
    sources = [backbone.text_tokens(text)[0] for text in TEXTS]
    found = features(backbone, sources, [(0, "mean"), (2, "mean"), (2, "last")], batch_size=3)
    for i, source in enumerate(sources):
        ids = torch.tensor([source])
        reader = backbone.lm.get_encoder() if backbone.lm.config.is_encoder_decoder else None
        with torch.no_grad():
            states = (reader or backbone.lm.base_model)(
                input_ids=ids, output_hidden_states=True
            ).hidden_states
        assert np.allclose(found[0, "mean"][i], states[0][0].mean(0), atol=1e-5)
        assert np.allclose(found[2, "mean"][i], states[2][0].mean(0), atol=1e-5)
        assert np.allclose(found[2, "last"][i], states[2][0, -1], atol=1e-5)


def test_padding_is_in_no_feature():
    """On either side."""
    states = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert pooled(states, mask, "mean").tolist() == [[1, 2], [9, 10]]
    assert pooled(states, mask, "last").tolist() == [[2, 3], [10, 11]]


@pytest.mark.parametrize("name", ["t5", "llama-suffix"])
def test_frozen_features_equal_scikit_learn_on_the_chosen_layer(name):
    """The kept reading, standardised, and logistic regression give the same probabilities."""
    backbone = build_backbone(name)
    method = FrozenFeatures()
    saved = through_files(method.fit(setup_of(backbone)))
    answers = method.restore(setup_of(backbone), saved).answer(TEXTS, [0] * len(TEXTS), batch_size=2)
    notes = saved.notes["tone"]
    reading = (notes["layer"], notes["pooling"])

    def x(texts):
        return features(backbone, [backbone.text_tokens(text, 16)[0] for text in texts], [reading])[reading]

    regression = LogisticRegression(C=notes["C"], max_iter=2000)
    own = make_pipeline(StandardScaler(), regression).fit(
        x([one.source for one in ROWS]), [one.target for one in ROWS]
    )
    order = [list(own.classes_).index(word) for word in ANSWERS]
    assert np.allclose(shares_of(answers), own.predict_proba(x(TEXTS))[:, order], atol=1e-3)
    assert notes["validated"] >= 90
    assert saved.parameters == 3 * (32 + 1) + 2 * 32  # the regression, mean and scale


@pytest.mark.parametrize(("answers", "rows_of_head"), [(1, 0), (2, 1), (3, 3)])
def test_what_was_computed_from_rows_is_counted(answers, rows_of_head):
    """Free numbers of the head (of two answers one row, of one nothing is fitted), and statistics."""
    backbone, rows = build_backbone("llama-prefix"), ROWS[: 8 * answers]
    task, width = a_task(choices=ANSWERS[: max(2, answers)]), 32
    setup = setup_of(backbone, [task], (rows,))
    assert FrozenFeatures().fit(setup).parameters == rows_of_head * (width + 1) + 2 * width
    assert FrozenFeatures(head="class_mean").fit(setup).parameters == answers * width + 2 * width
    saved = TfIdf().fit(setup)
    terms = len(saved.notes["tone"]["terms"])
    assert saved.parameters == rows_of_head * (terms + 1) + terms
    assert saved.tensors["0.weights"].count_nonzero() <= rows_of_head * terms


@pytest.mark.parametrize("method", [FrozenFeatures(), FrozenFeatures(head="class_mean")])
def test_one_row_an_answer_takes_the_middle_layer(method):
    """Nothing can be held out: the middle layer's mean and C = 1 by default, and `validated` is null."""
    backbone = build_backbone("llama-prefix")
    saved = through_files(method.fit(setup_of(backbone, rows=(ROWS[::8],))))
    notes = saved.notes["tone"]
    assert (notes["layer"], notes["pooling"], notes["validated"]) == (1, "mean", None)
    assert notes["C"] == (1.0 if method.head == "logistic" else None)
    for poolings, chosen in ((("last",), "last"), (("last", "mean"), "mean")):
        picky = FrozenFeatures(head=method.head, layers=(2, 0), poolings=poolings)
        notes = picky.fit(setup_of(backbone, rows=(ROWS[::8],))).notes["tone"]
        assert (notes["layer"], notes["pooling"]) == (2, chosen)
    assert TfIdf().fit(setup_of(rows=(ROWS[::8],))).notes["tone"]["validated"] is None


@pytest.mark.parametrize("method", [FrozenFeatures(), FrozenFeatures(head="class_mean"), TfIdf()])
def test_a_rare_answer_spoils_no_choice(method):
    """Beside twenty-four rows that can be held out, one that cannot: the choice is validated still."""
    rare = Example("the man eats", "rare")
    task = a_task(choices=(*ANSWERS, "rare"))
    saved = method.fit(setup_of(build_backbone("t5"), [task], ([*ROWS, rare],)))
    assert saved.notes["tone"]["validated"] >= 90
    assert "rare" in saved.notes["tone"]["answers"]


MANY = [Example(f"{row.source} {end}", row.target) for row in ROWS for end in ("is", "was", "it", "of")]


@pytest.fixture
def few_choose(monkeypatch):
    """Settings are chosen on about 15 rows."""
    monkeypatch.setattr(linear, "CHOICE_ROWS", 15)


def test_rows_that_choose_keep_the_answers_shares(few_choose):
    """Of a file sorted by answer: each has its share, five rows at least or all, drawn from all over it."""
    targets = ["often"] * 200 + ["seldom"] * 40 + ["rare"] * 3 + ["once"]
    part = linear.choice_rows(targets)
    assert part == linear.choice_rows(targets) == sorted(set(part))
    found = Counter(targets[i] for i in part)
    assert found == {"often": round(200 * 15 / 244), "seldom": 5, "rare": 3, "once": 1}
    own = [i for i in part if i < 200]
    assert min(own) < 60
    assert max(own) > 140
    assert linear.choice_rows(targets[:15]) == list(range(15))


@pytest.mark.parametrize("method", [FrozenFeatures(), FrozenFeatures(head="class_mean")])
def test_many_rows_are_read_at_the_chosen_reading_alone(method, monkeypatch, few_choose):
    """All readings of a part choose; then one reading of all rows is fitted once."""
    backbone, read, targets = build_backbone("t5"), [], [row.target for row in MANY]

    def recorded(backbone, sources, readings, **kw):
        read.append((len(sources), list(readings)))
        return features(backbone, sources, readings, **kw)

    monkeypatch.setattr("weft.models.features.features", recorded)
    saved = method.fit(setup_of(backbone, rows=(MANY,)))
    notes, part = saved.notes["tone"], linear.choice_rows(targets)
    reading = (notes["layer"], notes["pooling"])
    assert [(count, len(readings)) for count, readings in read] == [(15, 6), (96, 1)]
    assert read[1][1] == [reading]
    alone = method.fit(setup_of(backbone, rows=([MANY[i] for i in part],))).notes["tone"]
    assert notes == {**alone, "chosen_on": 15}
    assert len(read) == 3  # few rows are read once
    texts = [backbone.text_tokens(row.source, 16)[0] for row in MANY]
    x, mean, scale = standard(features(backbone, texts, [reading])[reading])
    logistic = method.head == "logistic"
    head = fit_head(x, targets, notes["C"]) if logistic else class_means(x, targets)
    for name, value in {"weights": head.weights, "bias": head.bias, "mean": mean, "scale": scale}.items():
        assert np.array_equal(saved.tensors[f"0.{name}"].numpy(), value)


def test_tfidf_chooses_c_on_a_part(monkeypatch, few_choose):
    """C is that of the part's rows, as all rows' words see them; all rows are fitted."""
    rows = [Example(f"{row.source} {NOUNS[i % 8]}", ANSWERS[i % 5 % 3]) for i, row in enumerate(MANY)]
    saved = TfIdf().fit(setup_of(rows=(rows,)))
    targets = [row.target for row in rows]
    x, part = vectorizer().fit_transform([row.source for row in rows]), linear.choice_rows(targets)
    strength, score = best_strength(x[part], [targets[i] for i in part])
    notes = saved.notes["tone"]
    assert (notes["C"], notes["validated"], notes["chosen_on"]) == (strength, score, len(part))
    assert (strength, score) != best_strength(x, targets)
    head = fit_head(x, targets, strength)
    assert np.array_equal(saved.tensors["0.weights"].numpy(), head.weights)
    monkeypatch.setattr(linear, "CHOICE_ROWS", len(rows))
    assert "chosen_on" not in TfIdf().fit(setup_of(rows=(rows,))).notes["tone"]


def test_class_means_equal_the_nearest_centroid():
    """By cosine, and each row left out in turn by a plain loop."""
    draw = np.random.default_rng(2)
    y = ["a", "b", "c"] * 6
    x = (draw.normal(size=(18, 5)) + np.array([[one == "a", one == "b", 0, 0, 0] for one in y])).astype(
        np.float32
    )
    guesses = class_means(x, y).shares(unit(x), ("a", "b", "c")).argmax(1)
    plain = NearestCentroid().fit(normalize(x), y).centroids_
    assert guesses.tolist() == (normalize(x) @ normalize(plain).T).argmax(1).tolist()
    right = 0
    for i in range(18):
        rest = [j for j in range(18) if j != i]
        head = class_means(x[rest], [y[j] for j in rest])
        right += "abc"[head.shares(unit(x[[i]]), ("a", "b", "c")).argmax()] == y[i]
    assert leave_one_out(x, y) == pytest.approx(100 * right / 18)


def test_a_class_of_one_row_is_left_out_of_no_mean():
    """Its row is not scored, and its mean stands beside the others' (a plain loop over the rest)."""
    x, y = blobs({"a": 6, "b": 5, "c": 1, "d": 1})
    often = [i for i, one in enumerate(y) if one in "ab"]
    right = 0
    for i in often:
        rest = [j for j in range(len(y)) if j != i]
        means = NearestCentroid().fit(normalize(x[rest]), [y[j] for j in rest]).centroids_
        right += "abcd"[(normalize(means) @ normalize(x[[i]]).T).argmax()] == y[i]
    assert right < len(often)
    assert leave_one_out(x, y) == pytest.approx(100 * right / len(often))


def test_standard_features_have_no_scale():
    """Columns that never vary stay at 0."""
    x, mean, scale = standard(np.array([[1, 5], [3, 5]], np.float32))
    assert x.tolist() == [[-1, 0], [1, 0]]
    assert (mean.tolist(), scale.tolist()) == ([2, 5], [1, 1])


def test_a_column_that_only_rounds_is_constant():
    """Float32 rounding of a constant is no deviation: a new text's value is not blown up by it."""
    x = np.full((7, 2), 0.1, np.float32)
    x[:, 1] = np.arange(7)
    x[3, 0] = np.nextafter(np.float32(0.1), np.float32(1))
    _, _, scale = standard(x)
    assert scale[0] == 1
    assert scale[1] == pytest.approx(2)


def test_what_cannot_be_fitted_is_said():
    """Texts without words, and layers that the model does not have."""
    with pytest.raises(DataError, match="no word") as caught:
        TfIdf().fit(setup_of(rows=([Example("!", "good"), Example("?", "bad")],)))
    assert caught.value.code == "D03"
    for layers in ((99,), (-1,)):
        with pytest.raises(ConfigError, match=f"layer {layers[0]} does not exist"):
            FrozenFeatures(layers=layers).fit(setup_of(build_backbone("t5")))


def test_several_tasks_share_one_reading():
    """Two tasks of one run, and each answers as it does alone."""
    backbone = build_backbone("llama-prefix")
    other = [replace(row, target={"good": "yes", "bad": "no", "fine": "yes"}[row.target]) for row in ROWS]
    tasks = (a_task(), a_task("answer", ("yes", "no")))
    for method in (TfIdf(), FrozenFeatures(head="class_mean", layers=(1, 2))):
        both = method.restore(
            setup_of(backbone, tasks, (ROWS, other)), method.fit(setup_of(backbone, tasks, (ROWS, other)))
        )
        mixed = both.answer([TEXTS[0], TEXTS[0], TEXTS[1]], [0, 1, 0])
        alone = method.restore(setup_of(backbone), method.fit(setup_of(backbone)))
        assert shares_of([mixed[0], mixed[2]]) == pytest.approx(
            shares_of(alone.answer(TEXTS[:2], [0, 0])), abs=1e-5
        )
        assert set(mixed[1].probabilities) == {"yes", "no"}


def test_a_text_without_tokens_is_named():
    """By its place among those asked for."""
    backbone = build_backbone("llama-prefix")
    method = FrozenFeatures(layers=(1,))
    answerer = method.restore(setup_of(backbone), method.fit(setup_of(backbone)))
    with pytest.raises(TextError) as caught:
        answerer.answer(["good", ""], [0, 0])
    assert caught.value.number == 1


def test_open_answers_are_refused_before_weights_load():
    """By the check of an experiment, with the row's remedy."""
    spec = TaskSpec(name="open", source="{a}", target="{b}")
    with pytest.raises(UnsupportedError, match="'open' has open ones"):
        _check_answers(AdaptRun(tasks=(spec,), method=TfIdf()))


ROWS_OF_TABLE = """  - {{label: TF-IDF + LR, method: {{name: tfidf}}}}
  - {{label: frozen features + LR, method: {{name: frozen_features}}}}
"""


def test_rows_of_a_table(tmp_path, capsys):
    """Both run from an experiment file, are scored, and answer new rows beside a prompt."""
    path = write_job(tmp_path, "llama", "suffix", EXPERIMENT + ROWS_OF_TABLE)
    runs = tmp_path / "runs"
    assert (
        command("run", path, "--runs", runs, "--set", "seeds=[0]", "--set", "targets=[gamma]", "--quiet") == 0
    )
    shown = capsys.readouterr().out
    assert "frozen features + LR" in shown.replace("\n", " ")
    names = [next(runs.glob(f"adapt-{name}-gamma-*")).name for name in ("tfidf", "frozen-features")]
    (tmp_path / "rows.jsonl").write_text('{"text": "the good film is eats"}\n', "utf-8")
    assert command("predict", names[0], tmp_path / "rows.jsonl", "--runs", runs) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "positive"
    assert (
        command(
            "predict",
            names[1],
            next(runs.glob("teachers-alpha-*")).name,
            tmp_path / "rows.jsonl",
            "--runs",
            runs,
        )
        == 0
    )
    assert {json.loads(line)["task"] for line in capsys.readouterr().out.splitlines()} == {"alpha", "gamma"}
