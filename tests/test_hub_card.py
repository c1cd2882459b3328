"""The card: what the hub reads of it, and scores that are those of the evaluations."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hub_job import BASE, evaluation, made, named
from huggingface_hub import ModelCard
from scipy import stats
from tiny_bank import BASE as BANK_BASE
from tiny_bank import SHARED, factors, prompt
from tiny_job import command

import weft
from weft import bank, stages
from weft.bank import writer
from weft.config.model import BaseConfig
from weft.errors import ConfigError, UnsupportedError
from weft.interop.hub.markdown import code, fence, plain
from weft.interop.hub.released import check_no_places, hub_id, known_as, without_places
from weft.interop.hub.scores import scores_of
from weft.runs import Run
from weft.runs.config import AdaptRun, EvaluateRun
from weft.runs.workspace import Workspace


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs."""
    return made(tmp_path_factory)


def card(run: Run, folder: Path, **more: str) -> ModelCard:
    """The card of a run, as the hub's own library reads it."""
    weft.save_pretrained(run.path, folder, base_id=BASE, **more)
    return ModelCard.load(folder / "README.md")


def cells(found: ModelCard, task: str) -> list[str]:
    """A line of its table."""
    [line] = [line for line in found.text.splitlines() if line.startswith(f"| {task} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_the_hub_reads(home: Path, tmp_path: Path) -> None:
    """The data at the head; the value is that of the evaluation."""
    run = named(home, "adapt-mpt")
    data = card(run, tmp_path / "out", licence="apache-2.0").data
    assert (data.base_model, data.library_name, data.license) == (BASE, "weft", "apache-2.0")
    assert data.pipeline_tag == "text-classification"
    assert {"weft", "peft", "multitask-prompt-tuning"} <= set(data.tags)
    [one] = data.eval_results
    score = evaluation(home, run).result()["scores"]["gamma"]["metrics"]["accuracy"]
    assert (one.dataset_name, one.metric_type, one.metric_value) == ("gamma", "accuracy", round(score, 2))


def test_the_scores_are_those_of_the_evaluations(home: Path, tmp_path: Path) -> None:
    """Counted anew from their answers: score, Wilson's interval, seeds by the t distribution, majority."""
    run = named(home, "adapt-mpt")
    right, truth = [], []
    for line in evaluation(home, run).lines("predictions.jsonl"):
        truth.append(line["references"][0])
        right.append(line["answer"] == line["references"][0])
    n, p, z = len(right), float(np.mean(right)), stats.norm.ppf(0.975)
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (100 * (middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    others = [evaluation(home, named(home, "adapt-mpt", seed)).result()["scores"] for seed in (0, 1)]
    seeds = [one["gamma"]["metrics"]["accuracy"] for one in others]
    spread = stats.t.ppf(0.975, 1) * np.std(seeds, ddof=1) / np.sqrt(2)
    assert seeds[0] != seeds[1]  # else the interval could not be seen
    found = cells(card(run, tmp_path / "out"), "gamma")
    assert found == [
        "gamma",
        "accuracy",
        f"{100 * p:.1f}",
        f"{low:.1f} to {high:.1f}",
        f"{np.mean(seeds):.1f} ± {spread:.1f} (2)",
        f"{100 * Counter(truth).most_common(1)[0][1] / n:.1f}",
        str(n),
        "0",
    ]


def test_other_runs_are_no_seeds(home: Path, tmp_path: Path) -> None:
    """Those of another method; and where rows were changed between, a run's own score stands alone."""
    run, runs = named(home, "adapt-weft"), tmp_path / "runs"
    shutil.copytree(home / "runs", runs)
    [score] = scores_of(run, runs)
    assert set(score.seeds) == {0, 1}
    assert score.seeds != scores_of(named(home, "adapt-mpt"), runs)[0].seeds
    again = evaluation(home, run).config()
    file = home / "tasks" / "gamma-test.jsonl"
    before = file.read_text("utf-8")
    file.write_text(before.replace("the", "that", 1), "utf-8")
    try:
        assert stages.perform(again, Workspace(runs)).id != evaluation(home, run).id
    finally:
        file.write_text(before, "utf-8")
    assert scores_of(run, runs)[0].mean is None


def test_a_cross_validation_is_a_score(home: Path, tmp_path: Path) -> None:
    """As `weft learn` leaves it: of the very way in which the run was fitted, and of no other."""
    run = named(home, "adapt-weft", 1)
    config = run.config()
    assert isinstance(config, AdaptRun)
    said = {
        key: getattr(config, key)
        for key in ("base", "prompt", "tasks", "seed", "method", "source", "teachers")
    }
    workspace = Workspace(tmp_path / "runs")
    shutil.copytree(run.path, workspace.root / run.id)
    for name in {config.source, *config.teachers.values()} - {None}:
        shutil.copytree(home / "runs" / name, workspace.root / name)
    scored = stages.perform(EvaluateRun(**said, folds=2, split="train", generate=False), workspace)
    stages.perform(EvaluateRun(**{**said, "seed": 5}, folds=2, split="train", generate=False), workspace)
    text = card(Run(workspace.root / run.id), tmp_path / "out")
    score = scored.result()["scores"]["gamma"]["metrics"]["accuracy"]
    assert cells(text, "gamma")[2] == f"{score:.1f}"
    assert "Cross-validated in 2 folds" in text.text
    assert "split" not in (tmp_path / "out" / "README.md").read_text("utf-8").split("---")[1]


def test_without_an_evaluation_it_says_so(home: Path, tmp_path: Path) -> None:
    """And claims nothing to the hub; runs of others that are damaged do not matter."""
    run = named(home, "adapt-mpt")
    shutil.copytree(run.path, tmp_path / "runs" / run.id)
    other = Path(shutil.copytree(evaluation(home, run).path, tmp_path / "runs" / evaluation(home, run).id))
    (other / "result.json").write_text("{}", "utf-8")
    found = card(Run(tmp_path / "runs" / run.id), tmp_path / "out")
    assert "no finished evaluation" in found.text
    assert found.data.eval_results is None


def test_a_bank_has_a_card(tmp_path: Path) -> None:
    """Its tasks with their scores; names are no markup, and no licence is made up."""
    place = tmp_path / "bank"
    bank.create(place, BANK_BASE)
    writer.change(place, [factors("a*b|c <i>", 1), prompt("second", 2)], shared=SHARED)
    out = weft.save_pretrained(place, tmp_path / "out", base_id="org/model")
    found = ModelCard.load(out / "README.md")
    assert found.data.base_model == "org/model"
    assert "| a\\*b&#124;c \\<i\\> | 2 | accuracy | 50.0 | — | adapt-x |" in found.text
    assert "| second | 2 | accuracy | — | — | teachers-x |" in found.text
    assert "own licence is not said" in found.text


def test_markup_of_others_is_text() -> None:
    """Backticks, breaks, tags and tables in a task's texts stay in their place."""
    assert code("a `b` c") == "``a `b` c``"
    assert code("`b") == "`` `b ``"
    assert code("a\nb") == '`"a\\nb"`'
    assert fence("", "```", "x") == "````\n```\nx\n````"
    assert plain("a\n[b](c) <script> *d*") == "a \\[b\\](c) \\<script\\> \\*d\\*"


def test_names_of_base_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others cannot have is refused; what weft knows has its own name on the hub, or none."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    for model in ("/models/x", "./x", "here", "~/x"):
        with pytest.raises(ConfigError, match="folder of this machine"):
            known_as(model, None, None)
        assert known_as(model, "r", "org/x@abc") == BaseConfig(model="org/x", revision="abc")
        assert known_as(model, "r", "org/x") == BaseConfig(model="org/x")
    assert known_as("org/x", "abc", None) == BaseConfig(model="org/x", revision="abc")
    assert hub_id("smollm2") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert hub_id("pocket") is None
    assert hub_id("org/x") == "org/x"


def test_places_that_are_no_setting_are_found(home: Path, tmp_path: Path) -> None:
    """A source that was named by its folder stands in the tensors too; nothing is written over it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "prompts.safetensors").write_bytes(b'{"parents":["/home/jane/runs/source-x"]}')
    check_no_places(tmp_path / "out", [Path("/home/john/runs"), Path("/"), Path("/home")])
    with pytest.raises(UnsupportedError, match="names a place of this machine: /home/jane/runs"):
        check_no_places(tmp_path / "out", [Path("/home/jane/runs")])


def test_public_data_stay_named(home: Path) -> None:
    """A data set of the hub, and files of a data folder, which others have; a folder of one's own goes."""
    config = named(home, "adapt-mpt").config()
    hubs = [{"path": path, "splits": {"train": "train"}} for path in ("org/data", str(home))]
    spec = json.loads(config.tasks[0].model_dump_json())
    for place, known in zip(hubs, (True, False), strict=True):
        task = type(config.tasks[0]).model_validate({**spec, "hub": place})
        [found] = without_places(config.model_copy(update={"tasks": (task,)}), BaseConfig(model="a/b")).tasks
        assert (found.hub is not None) == known
        assert not found.files
    rooted = type(config.tasks[0]).model_validate({**spec, "in_data_root": True})
    [found] = without_places(config.model_copy(update={"tasks": (rooted,)}), BaseConfig(model="a/b")).tasks
    assert found.files == rooted.files
    assert not found.folder


def test_learning_does_not_go_on_without_rows(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows of a run of others are not here: to go on from it would forget them, so it is refused."""
    run = named(home, "adapt-mpt")
    out = weft.save_pretrained(run.path, tmp_path / "out", base_id=BASE)
    (tmp_path / "new.csv").write_text("text,label\n" + "the good film,y\nthe bad dog,n\n" * 8, "utf-8")
    assert command("learn", tmp_path / "new.csv", "--from", out / run.id, "--runs", tmp_path / "runs") == 3
    assert "did not come with it" in capsys.readouterr().err
