"""`weft.Classifier` as scikit-learn and its users take it."""

import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from conftest import build_lm, build_tokenizer
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import check_estimator
from tiny_job import BAD, GOOD, NOUNS

import weft
from weft.errors import ArtifactError, ConfigError, DataError, WeftError
from weft.learning.texts import field_rows
from weft.runs import Run

TEXTS = [f"the {word} {noun}" for noun in NOUNS[:4] for word in (*GOOD[:3], *BAD[:3])]
LABELS = [int(word in GOOD) for _ in NOUNS[:4] for word in (*GOOD[:3], *BAD[:3])]
ASK_NO_ROWS = (  # checks that scikit-learn itself leaves out where rows are texts
    checks.check_estimator_cloneable,
    checks.check_estimator_repr,
    checks.check_estimator_tags_renamed,
    checks.check_get_params_invariance,
    checks.check_no_attributes_set_in_init,
    checks.check_set_params,
    checks.check_valid_tag_types,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny base model."""
    folder = tmp_path_factory.mktemp("base")
    build_lm("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def fitted(base):
    """A classifier with numbers as answers."""
    return weft.Classifier(base=base).fit(TEXTS, LABELS)


def test_it_learns_from_as_many_rows_as_are_asked_for(base, tmp_path):
    """Of every answer its share; from all, if none are asked for; the number is saved."""
    few = weft.Classifier(base=base, rows=16).fit(TEXTS, LABELS)
    assert Run(Path(few.run_)).result()["rows"]["texts"]["train"] == 16
    few.save(tmp_path / "kept")
    assert weft.Classifier.load(tmp_path / "kept").rows == 16
    assert weft.Classifier().rows is None
    with pytest.raises(ConfigError, match="none to learn from"):
        weft.Classifier(base=base, rows=0).fit(TEXTS, LABELS)


def test_it_learns_and_answers_with_the_users_own_values(fitted):
    """Answers are of the type that was given; probabilities stand in the order of the classes."""
    assert fitted.classes_.tolist() == [0, 1]
    assert Run(Path(fitted.run_)).result()["rows"]["texts"]["train"] == len(TEXTS)
    shares, answers = fitted.predict_proba(TEXTS), fitted.predict(TEXTS)
    assert shares.shape == (len(TEXTS), 2)
    assert np.allclose(shares.sum(1), 1)
    assert answers.dtype == fitted.classes_.dtype
    assert answers.tolist() == shares.argmax(1).tolist()
    assert fitted.score(TEXTS, LABELS) == np.mean(answers == LABELS) > 0.8


@pytest.mark.parametrize(
    "given",
    [
        np.array(TEXTS),
        np.array(TEXTS)[:, None],
        tuple(TEXTS),
        pd.Series(TEXTS, index=range(7, 7 + len(TEXTS))),
        pd.DataFrame({"text": TEXTS, "other": TEXTS}),
        [{"text": text} for text in TEXTS],
        datasets.Dataset.from_dict({"text": TEXTS}),
    ],
    ids=["array", "column", "tuple", "series", "frame", "dicts", "datasets"],
)
def test_texts_come_in_many_forms(fitted, given):
    """And are answered alike."""
    assert (fitted.predict_proba(given) == fitted.predict_proba(TEXTS)).all()


def test_texts_of_two_fields_are_pairs(base):
    """Of a table's columns or of tuples; the fields are named in the text, so that they can be compared."""
    frame = pd.DataFrame({"premise": TEXTS, "hypothesis": TEXTS[::-1]})
    found = weft.Classifier(base=base).fit(frame, ["same" if i % 2 else "other" for i in range(len(TEXTS))])
    assert (found.fields_, found.n_features_in_) == (["premise", "hypothesis"], 2)
    assert set(found.predict(frame[["hypothesis", "premise"]])) <= {"same", "other"}
    assert field_rows([("a", "b")]) == [{"text1": "a", "text2": "b"}]


@pytest.mark.parametrize(
    ("texts", "answers", "message"),
    [
        ("one text", [0], "this is a str"),
        ({"text": "one"}, [0], "this is a dict"),
        (TEXTS, LABELS[:-1], "24 texts want one answer each"),
        (TEXTS, [LABELS] * len(TEXTS), "want one answer each"),
        (TEXTS, [1] * len(TEXTS), "all rows have one answer"),
        ([], [], "there are no texts"),
        ([*TEXTS[:-1], None], LABELS, "this is no text but None"),
        ([*TEXTS[:-1], " "], LABELS, "D0"),
        ([{"text": "a"}, {"txt": "b"}], [0, 1], "there is no 'text'"),
        (TEXTS, ["a", " a"] * 12, "must differ as text"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(base, texts, answers, message):
    """With what is wrong, before any weights load."""
    with pytest.raises(WeftError) as caught:
        weft.Classifier(base=base).fit(texts, answers)
    assert caught.value.exit_code == 3
    assert message in str(caught.value)


def test_a_text_that_cannot_be_answered_is_named(fitted):
    """By its row, from 0."""
    with pytest.raises(DataError) as caught:
        fitted.predict([TEXTS[0], "", TEXTS[1]])
    assert caught.value.where == "row 1"


def test_an_unfitted_one_says_so(base):
    """As scikit-learn's do."""
    with pytest.raises(NotFittedError):
        weft.Classifier(base=base).predict(TEXTS)


def test_it_passes_the_checks_of_estimators(base):
    """Those that scikit-learn has for estimators of texts; the others want numbers."""
    with pytest.warns(match="Can't test estimator Classifier which requires input"):
        results = check_estimator(weft.Classifier(base=base), on_skip="warn")
    assert {one["status"] for one in results} == {"passed"}
    for check in ASK_NO_ROWS:
        check("Classifier", weft.Classifier(base=base))
    copy = clone(weft.Classifier(base=base, seed=3, rows=9, tokens=64))
    assert copy.get_params() == {"base": base, "seed": 3, "rows": 9, "tokens": 64}
    assert copy.set_params(seed=4).seed == 4


def test_it_works_in_pipelines_and_searches(base):
    """Cross-validation, a grid, a step before it."""
    scores = cross_val_score(weft.Classifier(base=base), TEXTS, LABELS, cv=2)
    assert len(scores) == 2
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, weft.Classifier(base=base)).fit(TEXTS, LABELS)
    assert pipeline.predict(["THE GOOD FILM"]).tolist() == [1]
    grid = GridSearchCV(weft.Classifier(base=base), {"seed": [0, 1]}, cv=2).fit(TEXTS, LABELS)
    assert grid.best_params_["seed"] in (0, 1)


def test_copies_and_saved_ones_answer_alike(fitted, tmp_path):
    """In this process and in another, where nothing of this one is left; `weft.load` takes the run too."""
    expected = fitted.predict_proba(TEXTS[:3])
    assert (pickle.loads(pickle.dumps(fitted)).predict_proba(TEXTS[:3]) == expected).all()
    run = fitted.save(tmp_path)
    loaded = weft.Classifier.load(tmp_path)
    assert (loaded.predict_proba(TEXTS[:3]) == expected).all()
    assert loaded.classes_.tolist() == [0, 1]
    assert weft.load(run).predict([{"text": TEXTS[0]}])[0].answer in ("0", "1")
    program = f"import weft; print(weft.Classifier.load({str(tmp_path)!r}).predict({TEXTS[:3]!r}).tolist())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(fitted.predict(TEXTS[:3]).tolist())
    (fitted.save(tmp_path / "other") / "prompts.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        weft.Classifier.load(tmp_path / "other").predict(TEXTS)
