"""Runs, source prompts and banks through a hub: they come back whole, and say nothing of their maker."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_job import BASE, PERSON, ROWS, base_files, evaluation, hub_of, made, named
from hub_stub import Hub
from tiny_bank import held
from tiny_job import command

import weft
from weft import bank, storage
from weft.errors import ConfigError, ResourceError, UnsupportedError
from weft.runs import Run

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's client


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of one person."""
    return made(tmp_path_factory)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Hub]:
    """A hub with the base model on it."""
    with hub_of(monkeypatch, tmp_path / "cache") as found:
        found.add(BASE, base_files(home))
        yield found


def pushed(home: Path, run: Run, repo: str, *more: object) -> None:
    assert command("push", run.id, repo, "--runs", home / "runs", "--base-id", BASE, *more) == 0


@pytest.mark.parametrize("start", ["adapt-mpt", "adapt-weft", "source", "teachers-alpha"])
def test_a_run_comes_back(hub: Hub, home: Path, tmp_path: Path, capsys: Capture, start: str) -> None:
    """To the bit, where nothing of its maker is: the base model comes from the hub as well."""
    run = named(home, start)
    texts = [{**row, "task": run.config().tasks[0].name} for row in ROWS]
    before = weft.load(run.path).predict(texts)
    pushed(home, run, "me/run")
    capsys.readouterr()
    assert command("pull", "me/run", "--runs", tmp_path / "runs") == 0
    there = Path(capsys.readouterr().out.strip())
    assert there == tmp_path / "runs" / run.id
    assert weft.load(there).predict(texts) == before
    assert weft.from_pretrained("me/run", root=tmp_path / "others").predict(texts) == before
    for name in storage.names(run.path):
        same = (there / name).read_bytes() == (run.path / name).read_bytes()
        assert same == (name not in ("config.yaml", "env.json")), name
    assert command("doctor", there) == 0
    assert command("pull", "me/run", "--runs", tmp_path / "runs") == 0  # what is there and whole stays


def test_a_run_of_the_hub_is_scored_and_starts_others(hub: Hub, home: Path, tmp_path: Path) -> None:
    """It is a run as any other: scored on a file, kept in a bank, adapted from."""
    run, source = named(home, "adapt-mpt"), named(home, "source")
    pushed(home, run, "me/run")
    pushed(home, source, "me/source")
    runs = tmp_path / "runs"
    weft.pull("me/run", root=runs)
    weft.pull("me/source", root=runs)
    (tmp_path / "new.csv").write_text("text,label\nthe good film,y\nthe bad dog,n\n", "utf-8")
    assert command("evaluate", run.id, tmp_path / "new.csv", "--runs", runs, "--quiet") == 0
    assert command("bank", "add", tmp_path / "bank", run.id, "--runs", runs) == 0
    text = (
        f"tasks: [{home}/tasks/delta.yaml]\nbase: {{model: {BASE}, dtype: float32, attention: eager}}\n"
        f"prompt: {{length: 4, position: prefix}}\nsource: {source.id}\nmethod: {{name: mpt}}\nshots: 4\n"
        "optim: {lr: {shared: 0.1, factors: 0.1}, steps: 1, batch_size: 4}\n"
    )
    (tmp_path / "adapt.yaml").write_text(text, "utf-8")
    assert command("adapt", tmp_path / "adapt.yaml", "--runs", runs, "--quiet") == 0


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers
def test_stock_peft_loads_the_repository(hub: Hub, home: Path) -> None:
    """The base model by its name on the hub, and the prompt as P* and the factors give it."""
    from peft import AutoPeftModelForSeq2SeqLM

    run = named(home, "adapt-mpt")
    pushed(home, run, "me/run")
    model = AutoPeftModelForSeq2SeqLM.from_pretrained("me/run")
    kept = {name: value.double().numpy() for name, value in run.tensors().items()}
    prompt = np.empty_like(kept["shared"])
    for i, j in np.ndindex(*prompt.shape):
        prompt[i, j] = kept["shared"][i, j] * sum(kept["u"][0, i] * kept["v"][0, :, j])
    [found] = [one.weight for one in model.prompt_encoder["default"].modules() if hasattr(one, "weight")]
    np.testing.assert_allclose(found.detach().numpy(), prompt, rtol=1e-6)
    said = json.loads(hub.files("me/run")["adapter_config.json"])
    assert said["base_model_name_or_path"] == BASE
    assert model.get_base_model().config.d_model == 32


def test_a_bank_comes_back(hub: Hub, home: Path, tmp_path: Path) -> None:
    """With its scores; into a new bank, and into one that is there."""
    runs = [evaluation(home, named(home, "adapt-mpt")).id, named(home, "teachers-beta").id]
    place = tmp_path / PERSON / "bank"
    assert command("bank", "add", place, *runs, "--runs", home / "runs") == 0
    assert command("push", place, "me/bank", "--base-id", f"{BASE}@{'a' * 40}") == 0
    there = weft.pull("me/bank", tmp_path / "theirs")
    with bank.open(place).snapshot() as one, bank.open(there).snapshot() as other:
        assert held(one) == held(other)
        assert len(one) == 2
        assert (other.base.model, other.base.revision) == (BASE, "a" * 40)
    assert command("pull", "me/bank", there) != 0  # its tasks are there
    assert command("pull", "me/bank", there, "--replace") == 0
    with pytest.raises(UnsupportedError, match="a bank, and not one run"):
        weft.from_pretrained("me/bank", root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_nothing_of_its_maker_goes_up(hub: Hub, home: Path, tmp_path: Path) -> None:
    """Neither places nor rows, in no byte that the hub got."""
    place = tmp_path / PERSON / "bank"
    starts = ("adapt-mpt", "adapt-weft", "source", "teachers-alpha")
    assert command("bank", "add", place, named(home, "adapt-mpt").id, "--runs", home / "runs") == 0
    assert command("push", place, "me/bank", "--base-id", BASE) == 0
    before = (named(home, "adapt-mpt").path / "config.yaml").read_bytes()
    assert PERSON.encode() in before  # else this test could not fail
    for start in starts:
        pushed(home, named(home, start), f"me/{start}")
    rows = [
        line for path in (home / "tasks").glob("*.jsonl") for line in path.read_text("utf-8").splitlines()
    ]
    texts = [json.loads(row)["text"] for row in rows]
    secret = [PERSON, str(home), str(tmp_path), str(Path.home()) + "/", *texts]
    for repo in ("bank", *starts):
        for name, data in hub.files(f"me/{repo}").items():
            for one in secret:
                assert one.encode() not in data, (repo, name, one)
            assert name.endswith((".json", ".jsonl", ".yaml", ".safetensors", "README.md", ".gitattributes"))


def test_what_quotes_rows_is_not_shared(hub: Hub, home: Path, capsys: Capture) -> None:
    """Words of TF-IDF, examples in the context; and an evaluation, which holds nothing but rows."""
    quoting = (named(home, "adapt-tfidf"), named(home, "adapt-in-context"))
    for run in (*quoting, evaluation(home, quoting[0])):
        assert command("push", run.id, "me/run", "--runs", home / "runs", "--base-id", BASE) != 0
        assert ("with rows" if run in quoting else "nothing to answer with") in capsys.readouterr().err
    assert "me/run" not in hub.repos


def test_a_folder_is_no_name_of_a_base_model(hub: Hub, home: Path, tmp_path: Path, capsys: Capture) -> None:
    """Others could not load it; nothing is asked of the hub before that is settled."""
    run = named(home, "adapt-mpt")
    for more in ((), ("--base-id", "./base"), ("--base-id", home / "base")):
        assert command("push", run.id, "me/run", "--runs", home / "runs", *more) == 2
        assert "--base-id NAME" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no repository"):
        weft.push_to_hub(run.path, "name alone", base_id=BASE)
    assert hub.asked == []


def test_a_repository_as_a_folder(hub: Hub, home: Path, tmp_path: Path, capsys: Capture) -> None:
    """`save_pretrained` writes what a push puts up, and asks no hub; `--dry-run` shows it."""
    run = named(home, "adapt-mpt")
    before = weft.load(run.path).predict(ROWS)
    folder = weft.save_pretrained(run.id, tmp_path / "out", root=home / "runs", base_id=BASE)
    with pytest.raises(ResourceError, match="something is there"):
        weft.save_pretrained(run.id, folder, root=home / "runs", base_id=BASE)
    capsys.readouterr()
    pushed(home, run, "me/run", "--dry-run")
    said = capsys.readouterr().out
    assert hub.asked == []
    assert weft.from_pretrained(folder, base=home / "base").predict(ROWS) == before
    pushed(home, run, "me/run")
    up = hub.files("me/run")
    del up[".gitattributes"]
    assert set(up) == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    for name, data in up.items():
        assert name in said or name == "README.md"
        assert (folder / name).read_bytes() == data or name == "README.md", name


def test_a_push_takes_the_place_of_the_last(hub: Hub, home: Path, tmp_path: Path) -> None:
    """One run a repository, in one commit; an older one is had by its revision."""
    first, second = named(home, "source"), named(home, "adapt-mpt")
    pushed(home, second, "me/run")
    repo = hub.repos["me/run"]
    old = repo.commits[-1][0]
    pushed(home, first, "me/run")
    assert not [name for name in hub.files("me/run") if name.startswith((second.id, "adapter_"))]
    assert len(repo.commits) == 3  # made, pushed, pushed
    assert weft.pull("me/run", root=tmp_path / "runs").name == first.id
    assert weft.pull("me/run", root=tmp_path / "runs", revision=old).name == second.id
    repo.commit({**hub.files("me/run"), "LICENSE": b"mine", "img/a.png": b"mine"})
    pushed(home, second, "me/run")
    assert {"LICENSE", "img/a.png"} <= set(hub.files("me/run"))  # what a person put there stays
    assert not [name for name in hub.files("me/run") if name.startswith(first.id)]
