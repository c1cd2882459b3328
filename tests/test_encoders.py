"""Frozen encoders: as a base model and beside one; folders, refusals before weights load, whole runs."""

import shutil
from contextlib import chdir

import pytest
from conftest import ENCODERS, build_encoder, build_reader, build_tokenizer
from tiny_job import EXPERIMENT, command, write_job

import weft
from weft.config.model import BaseConfig
from weft.errors import ArtifactError, ConfigError, UnsupportedError
from weft.models import base_folder, load_backbone
from weft.models.bundled import KNOWN
from weft.runs import Run, parents
from weft.runs.workspace import Workspace
from weft.storage import durable

PLAN = f"""{EXPERIMENT[: EXPERIMENT.index("rows:")]}rows:
  - {{{{label: majority, method: {{{{name: majority}}}}}}}}
  - {{{{label: frozen features + LR, method: {{{{name: frozen_features}}}}}}}}
"""
SMALL = ("--set", "seeds=[0]", "--set", "targets=[gamma]", "--set", "limits.source_tokens=12")
WEFT = "  - {{label: weft, method: {{name: weft, encoders: [{encoder}], views: 20}}}}\n"
PROMPT = """  - label: prompt tuning
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
"""


def save_encoder(folder, name="bert-reader", seed=4):
    build_encoder(name, seed).save_pretrained(folder)
    build_tokenizer(ends_texts=True).save_pretrained(folder)
    return folder


def job(place, rows):
    """A job beside an encoder in the folder `encoder`."""
    encoder = save_encoder(place / "encoder")
    return write_job(place, "llama", "suffix", PLAN + rows.replace("{encoder}", str(encoder)))


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(durable.os, "fsync", lambda handle: None)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_folder_with_an_encoder_is_one(tmp_path, name):
    """Its width, positions and embeddings are found without its weights, and agree with the loaded model."""
    folder = base_folder.resolve(BaseConfig(model=str(save_encoder(tmp_path / "e", name))))
    assert (folder.family, folder.width, folder.positions) == ("encoder", 24, 40)
    assert len(folder.embedding_hash) == 64
    model = load_backbone(folder, dtype="float32")
    assert (model.positions, model.only_reads, model.depths) == (40, True, [3])
    longest = model.read([tuple([5] * 40)])
    assert model.text_states(longest)[-1].shape == (1, 40, 24)
    with pytest.raises(UnsupportedError, match="before the text"):
        load_backbone(folder, dtype="float32", position="suffix")


def test_an_encoder_writes_nothing():
    """Whatever asks for answers is told so, with the remedy."""
    encoder = build_reader("bert-reader")
    state = encoder.read([(3, 4)])
    asks = (
        lambda: encoder.answer_tokens("yes"),
        lambda: encoder.begin(state, None),
        lambda: encoder(state, None, state.ids),
    )
    for ask in asks:
        with pytest.raises(UnsupportedError, match="writes no answers") as caught:
            ask()
        assert caught.value.fix


def test_minilm_is_known_by_name():
    """Beside the two language models."""
    assert list(KNOWN) == ["smollm2", "pocket", "minilm"]


def test_a_run_reads_with_an_encoder_beside_its_base_model(tmp_path, fast):
    """From the configuration to answers; the encoder's files make its name, another encoder is refused."""
    path = job(tmp_path, WEFT)
    assert command("run", path, "--runs", tmp_path / "runs", "--quiet", *SMALL) == 0
    [folder] = (tmp_path / "runs").glob("adapt-weft-gamma-*")
    run = Run(folder)
    views = run.saved().notes["gamma"]["views"]
    assert any(view["encoder"] for view in views)
    workspace = Workspace(tmp_path / "runs", keep_texts=False)
    assert run.env()["encoders"] == workspace.encoder_hashes(run.config())
    texts = ["the good film", "a bad dog sits"]
    rows = [{"text": text} for text in texts]
    first = weft.load(folder, root=tmp_path / "runs").predict(rows)
    shutil.rmtree(tmp_path / "encoder")
    save_encoder(tmp_path / "encoder", seed=9)
    other = Workspace(tmp_path / "runs", keep_texts=False)
    assert other.run_id(run.config()) != run.id
    with pytest.raises(ArtifactError, match="another encoder") as caught:
        parents.load(run, other)
    assert caught.value.code == "A08"
    assert [one.answer in ("positive", "negative") for one in first] == [True, True]


@pytest.fixture
def moved(tmp_path, fast):
    """A run whose encoder lies in another place now, `moved`, and its answers from before."""
    path = job(tmp_path, WEFT)
    assert command("run", path, "--runs", tmp_path / "runs", "--quiet", *SMALL) == 0
    [folder] = (tmp_path / "runs").glob("adapt-weft-gamma-*")
    assert any(view["encoder"] for view in Run(folder).saved().notes["gamma"]["views"])
    before = weft.load(folder).predict(ASKED)
    (tmp_path / "encoder").rename(tmp_path / "moved")
    return folder, before


EMBEDDINGS = "  - {{label: embeddings, method: {{name: sentence_embeddings, encoder: {encoder}}}}}\n"


def test_a_relative_encoder_lies_beside_the_file_that_names_it(tmp_path, fast):
    """In another place it makes the same runs; other files under its name do not."""
    rows = (WEFT + EMBEDDINGS).replace("{encoder}", "encoder")
    (tmp_path / "one").mkdir()
    path = job(tmp_path / "one", rows)
    shutil.copytree(path.parent, tmp_path / "two")
    assert command("run", path, "--runs", tmp_path / "runs", "--quiet", *SMALL) == 0
    runs = {one.name for one in (tmp_path / "runs").glob("adapt-*")}
    configs = [Run(tmp_path / "runs" / name).config().method.also_reads for name in runs]
    assert configs.count((str(path.parent / "encoder"),)) == 2
    moved = tmp_path / "two" / path.name
    assert command("run", moved, "--runs", tmp_path / "runs", "--quiet", *SMALL) == 0
    assert {one.name for one in (tmp_path / "runs").glob("adapt-*")} == runs
    save_encoder(tmp_path / "two" / "encoder", seed=9)
    assert command("run", moved, "--runs", tmp_path / "runs", "--quiet", *SMALL) == 0
    assert len(list((tmp_path / "runs").glob("adapt-*"))) == len(runs) + 2


ASKED = [{"text": "the good film"}, {"text": "a bad dog sits"}]


def test_an_encoder_is_found_where_it_lies_now(moved, tmp_path, capsys):
    """By the hash that the run notes: by commands that answer, and in Python; else the option is named."""
    run, before = moved
    assert weft.load(run, encoders=[tmp_path / "moved"]).predict(ASKED) == before
    with pytest.raises(ArtifactError, match="no such folder") as caught:
        weft.load(run)
    assert "--encoder FOLDER" in caught.value.fix
    file = tmp_path / "new.csv"
    file.write_text("text,label\nthe good film,y\na bad dog sits,n\n", "utf-8")
    for words in (("predict", run, file), ("evaluate", run, file, "--json", "--quiet")):
        capsys.readouterr()
        assert command(*words) == 4
        assert "--encoder FOLDER" in capsys.readouterr().err
        with chdir(tmp_path):
            assert command(*words, "--encoder", "moved") == 0, capsys.readouterr()
        assert capsys.readouterr().out


def test_another_encoder_is_refused_with_both_hashes(moved, tmp_path, capsys, monkeypatch):
    """Before any weights load; also beside the right one, since it would be passed over."""
    run, _ = moved
    monkeypatch.setattr("weft.runs.workspace.load_backbone", lambda *_, **__: pytest.fail("weights"))
    save_encoder(tmp_path / "other", seed=9)
    hashes = [
        base_folder.resolve(BaseConfig(model=str(tmp_path / name))).hash[:12] for name in ("other", "moved")
    ]
    file = tmp_path / "new.csv"
    file.write_text("text,label\nthe good film,y\n", "utf-8")
    for words in (("predict", run, file), ("evaluate", run, file)):
        for given in (["other"], ["moved", "other"]):
            capsys.readouterr()
            options = [word for name in given for word in ("--encoder", tmp_path / name)]
            assert command(*words, *options) == 4
            said = " ".join(capsys.readouterr().err.split())
            assert f"no run reads with this encoder ({hashes[0]}); they read with" in said
            assert f"({hashes[1]})" in said
    capsys.readouterr()
    assert command("predict", run, file, "--encoder", tmp_path / "base") == 2
    assert "is no encoder" in capsys.readouterr().err


def test_places_of_models_are_given_once(tmp_path):
    """By the workspace, or else by themselves."""
    with pytest.raises(ConfigError, match="itself"):
        weft.load("x", encoders=[tmp_path], workspace=Workspace(tmp_path))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (PROMPT, "an encoder, which writes nothing; prompt tuning"),
        (WEFT, "an encoder, which writes nothing"),
    ],
)
def test_an_encoder_is_not_asked_for_answers(tmp_path, rows, said, capsys, monkeypatch):
    """Prompts (and the source stage that weft reads under) need a language model; no weights load."""
    path = job(tmp_path, rows)
    text = path.read_text("utf-8").replace(str(tmp_path / "base"), str(tmp_path / "encoder"), 1)
    path.write_text(text.replace("suffix", "auto").replace("attention: eager", "attention: auto"), "utf-8")
    monkeypatch.setattr("weft.models.load_language_model", lambda *a: pytest.fail("weights were loaded"))
    assert command("validate", path, *SMALL) != 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_base_model_beside_another_is_refused(tmp_path, capsys):
    """`encoders` names models without a decoder."""
    path = job(tmp_path, WEFT)
    path.write_text(
        path.read_text("utf-8").replace(str(tmp_path / "encoder"), str(tmp_path / "base")), "utf-8"
    )
    assert command("validate", path, *SMALL) != 0
    assert "is no encoder" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("method", ["weft, sources: false, encoders: []", "frozen_features"])
def test_an_encoder_is_a_base_model_for_what_only_reads(tmp_path, fast, method):
    """Trained and scored stage by stage, without a source task."""
    job(tmp_path, "")
    (tmp_path / "one.yaml").write_text(
        f"tasks: [tasks/gamma.yaml]\nbase: {{model: {tmp_path / 'encoder'}}}\nshots: 6\n"
        f"method: {{name: {method}}}\nprompt: {{length: 4}}\nlimits: {{source_tokens: 12}}\n",
        "utf-8",
    )
    place = ("--runs", tmp_path / "runs", "--quiet")
    assert command("adapt", tmp_path / "one.yaml", *place) == 0
    [folder] = (tmp_path / "runs").glob("adapt-*")
    assert command("evaluate", folder.name, *place) == 0
    [scored] = (tmp_path / "runs").glob("evaluate-*")
    assert 0 <= Run(scored).result()["scores"]["gamma"]["metrics"]["accuracy"] <= 100
