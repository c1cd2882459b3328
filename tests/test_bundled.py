"""Source stages that come with weft: found by the base model's name, and experiments that have no sources."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save
from tiny_job import EXPERIMENT, command, write_job

from weft.errors import ArtifactError, ConfigError
from weft.evaluation.views import PLAIN, PROMPTED, spread
from weft.models import base_folder
from weft.runs import Run, bundled, find
from weft.storage import durable

ROWS = """rows:
  - {{label: majority, method: {{name: majority}}}}
  - {{label: weft, method: {{name: weft, encoders: []}}}}
  - label: SPoT
    method: {{name: prompt_tuning, start: nearest}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
  - label: MPT
    method: {{name: mpt, start: mean}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
"""
SMALL = ("--set", "seeds=[0]", "--set", "targets=[gamma]")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A job whose teachers and source stage are trained, and its file without sources."""
    place = tmp_path_factory.mktemp("bundled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable.os, "fsync", lambda handle: None)
        path = write_job(place, "llama", "suffix", EXPERIMENT[: EXPERIMENT.index("rows:")] + ROWS)
        assert command("run", path, "--runs", place / "runs", "--quiet", *SMALL) == 0
    text = path.read_text("utf-8")
    start, end = text.index("teachers:"), text.index("rows:")
    bare = text[:start] + text[end:]
    (place / "bare.yaml").write_text(
        bare.replace("sources: [alpha, beta]\n", "").replace(str(place / "base"), "base")
    )
    return place


@pytest.fixture
def shipped(made, tmp_path, monkeypatch):
    """The same runs as if they came with weft, for a base model that is known as `base`."""
    monkeypatch.setattr(durable.os, "fsync", lambda handle: None)
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "bundled")
    monkeypatch.setitem(base_folder.KNOWN, "base", lambda: (made / "base", "folder base"))
    for path in (made / "runs").glob("*"):
        if path.name.startswith(("source-", "teachers-")):
            shutil.copytree(path, tmp_path / "bundled" / "base" / path.name)
    monkeypatch.chdir(made)
    return made


def test_the_source_run_and_its_teachers_are_found(shipped):
    """By the model's name, and each by its own id; a path is no name."""
    source, teachers = bundled.start("base")
    assert source.startswith("source-alpha+beta")
    assert list(teachers) == ["alpha", "beta"]
    assert find(shipped / "nothing", source).id == source
    assert all(find(shipped / "nothing", run).id == run for run in teachers.values())
    for name in ("other", str(shipped / "base"), ".."):
        with pytest.raises(ConfigError, match="no source stage comes with weft"):
            bundled.start(name)
    with pytest.raises(ArtifactError, match="no run"):
        find(shipped / "nothing", "../base")


@pytest.fixture
def scales(tmp_path, monkeypatch):
    """Scales of a base model with hash `b`, under prompts of the run `s`, and of an encoder with hash `e`."""
    names = [("", "", 1), ("", "one", 2), ("reader", "", 0)]
    values = {json.dumps(name): np.full(3, i + 1.0, np.float32) for i, name in enumerate(names)}
    facts = {"models": {"": "b", "reader": "e"}, "sources": ["s"]}
    file = tmp_path / "base" / bundled.SCALES
    file.parent.mkdir()
    file.write_bytes(save(values, {name: json.dumps(value) for name, value in facts.items()}))
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)


@pytest.mark.parametrize(
    ("models", "source", "found"),
    [
        ({"": "b"}, "s", [("", "", 1), ("", "one", 2)]),
        ({"": "b"}, "other", [("", "", 1)]),
        ({"": "b", "mine": "e"}, None, [("", "", 1), ("mine", "", 0)]),
        ({"": "other", "reader": "other"}, "s", []),
        ({"": "e"}, "s", [("", "", 0)]),  # the encoder as the base model
    ],
)
def test_scales_are_those_of_the_models_and_prompts_of_a_run(scales, models, source, found):
    """By their hashes, whatever a run calls an encoder; prompts of another source run have other views."""
    assert sorted(bundled.scales(models, source)) == sorted(found)


@pytest.mark.parametrize(
    ("model", "layers", "answers", "width"), [("smollm2", 30, 30, 576), ("pocket", 6, 2, 384)]
)
def test_the_scales_that_come_with_weft_are_of_its_views(model, layers, answers, width):
    """Of every view that a task on the model chooses from, as wide as the model; none is below zero."""
    run, teachers = bundled.start(model)
    with safe_open(bundled.FOLDER / model / bundled.SCALES, "numpy") as file:
        facts = {name: json.loads(value) for name, value in file.metadata().items()}
    assert facts["sources"] == [run]
    found = bundled.scales(facts["models"], run)
    assert {prompt for _, prompt, _ in found} == {"", "P*", *teachers}
    assert {layer for _, prompt, layer in found if prompt} == set(spread(PROMPTED, answers))
    bare = {layer for encoder, prompt, layer in found if not encoder and not prompt}
    assert bare == set(spread(PLAIN, layers))
    assert [layer for encoder, _, layer in sorted(found) if encoder] == list(range(7))
    for (encoder, _, _), scale in found.items():
        assert scale.shape == ((384,) if encoder else (width,))
        assert (scale > 0).all()
        assert np.isfinite(scale).mean() > 0.9


def test_an_experiment_without_sources_starts_from_them(shipped, tmp_path, capsys):
    """Scores are those of an experiment that trains the same sources; the page says where they are from."""
    assert command("run", "bare.yaml", "--runs", tmp_path / "runs", "--quiet", *SMALL) == 0
    trained = {path.name: path for path in (shipped / "runs").glob("adapt-*")}
    found = {path.name for path in (tmp_path / "runs").glob("adapt-*")}
    assert found == set(trained)
    assert not list((tmp_path / "runs").glob("source-*"))
    for one in (tmp_path / "runs").glob("evaluate-*"):
        assert Run(one).result()["scores"] == Run(shipped / "runs" / one.name).result()["scores"]
    page = next((tmp_path / "runs").glob("*.html")).read_text("utf-8")
    assert "come with weft (alpha, beta)" in page
    assert "Training of the source stage" not in page
    capsys.readouterr()
    assert command("table", "bare.yaml", "--runs", tmp_path / "runs", *SMALL, "--format", "markdown") == 0
    assert "Source run: `source-alpha+beta" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (("prompt: {length: 4", "prompt: {length: 5"), 2, "have 4 tokens, and this run's 5"),
        (("start: nearest", "start: gamma"), 2, "there is no prompt 'gamma' to start from"),
        (("start: mean", "start: delta"), 2, "there is no prompt 'delta' to start from"),
        (("position: suffix", "position: prefix"), 4, "trained on another prompt position"),
    ],
)
def test_an_experiment_that_does_not_fit_them_is_refused(shipped, tmp_path, change, code, message, capsys):
    """By the pass, before anything trains."""
    text = (shipped / "bare.yaml").read_text("utf-8")
    assert change[0] in text
    (shipped / "unfit.yaml").write_text(text.replace(*change))
    assert command("run", "unfit.yaml", "--runs", tmp_path / "runs", "--dry-run", *SMALL) == code
    assert message in " ".join(capsys.readouterr().err.split())


def test_rows_that_need_no_source_stage_need_none_that_comes_with_weft(made, tmp_path, monkeypatch, capsys):
    """Where there is none for the base model: refused before anything is trained, or not asked for at all."""
    monkeypatch.setattr(durable.os, "fsync", lambda handle: None)
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "none")
    monkeypatch.chdir(made)
    assert command("run", "bare.yaml", "--runs", tmp_path / "runs", "--quiet", *SMALL) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"no source stage comes with weft for the base model '{made / 'base'}'" in said
    assert not list((tmp_path / "runs").glob("adapt-*"))
    text = (made / "bare.yaml").read_text("utf-8")
    plain = text[: text.index("  - label: SPoT")].replace("encoders: []", "encoders: [], sources: false")
    (made / "plain.yaml").write_text(plain)
    assert command("run", "plain.yaml", "--runs", tmp_path / "runs", "--quiet", *SMALL) == 0
    assert len(list((tmp_path / "runs").glob("adapt-weft-*"))) == 1


def test_their_rows_are_known_by_their_tasks_alone(shipped, tmp_path, capsys):
    """Nothing is looked for where rows do not lie; a target that was one of their sources is named."""
    (shipped / "adapt.yaml").write_text(
        "base: {model: base, dtype: float32, attention: eager}\nprompt: {length: 4, position: suffix}\n"
        "tasks: [tasks/alpha.yaml]\nmethod: {name: weft, encoders: []}\nsource: bundled\nshots: 6\n"
    )
    for task in ("alpha", "beta"):
        (shipped / "tasks" / f"{task}-train.jsonl").rename(tmp_path / f"{task}-kept.jsonl")
    shutil.copy(tmp_path / "alpha-kept.jsonl", shipped / "tasks" / "alpha-train.jsonl")
    try:
        assert command("adapt", "adapt.yaml", "--runs", tmp_path / "runs") == 0
        told = " ".join(capsys.readouterr().err.split())
        assert "come with weft were trained on a task 'alpha'" in told
        assert "not looked for" not in told
        [run] = (tmp_path / "runs").glob("adapt-*")
        assert command("evaluate", run.name, "--runs", tmp_path / "runs", "--quiet") == 0
        [scored] = (tmp_path / "runs").glob("evaluate-*")
        assert Run(scored).result()["leaks"]["alpha"]["unread"] == ["alpha", "beta"]
    finally:
        for task in ("alpha", "beta"):
            shutil.copy(tmp_path / f"{task}-kept.jsonl", shipped / "tasks" / f"{task}-train.jsonl")


def test_a_run_of_its_own_names_them_in_one_word(shipped, tmp_path):
    """`source: bundled`: as far as the method needs the runs, under their own ids."""
    (shipped / "adapt.yaml").write_text(
        "base: {model: base, dtype: float32, attention: eager}\nprompt: {length: 4, position: suffix}\n"
        "tasks: [tasks/gamma.yaml]\nmethod: {name: weft, encoders: []}\nsource: bundled\nshots: 6\n"
    )
    assert command("adapt", "adapt.yaml", "--runs", tmp_path / "runs", "--quiet") == 0
    [run] = (tmp_path / "runs").glob("adapt-*")
    config = Run(run).config()
    source, teachers = bundled.start("base")
    assert (config.source, config.teachers) == (source, teachers)
    label = json.loads((run / "notes.json").read_text())["gamma"]
    assert {view["prompt"] for view in label["views"]} & {"alpha", "beta", "P*", ""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("sources: [alpha, beta]", "sources: [alpha]"), "two or more"),
        (("sources: [alpha, beta]", ""), None),
    ],
)
def test_sources_come_with_their_stages(made, change, message, capsys):
    """One source is too few; stages without sources wait for them."""
    text = (made / "tiny.yaml").read_text("utf-8").replace(*change)
    (made / "changed.yaml").write_text(text)
    code = command("run", made / "changed.yaml", "--runs", made / "runs", "--dry-run", *SMALL)
    told = " ".join(capsys.readouterr().err.split())
    assert (code != 0) == (message is not None or "no source stage" in told)
    assert message is None or message in told
