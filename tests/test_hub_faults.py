"""What goes wrong with a hub is told with its cause, its place and a remedy, and leaves nothing half done."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_job import BASE, base_files, hub_of, made, named
from hub_stub import READER, Hub, Repo
from huggingface_hub import constants

import weft
from weft import storage
from weft.errors import ArtifactError, ConfigError, WeftError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's client
PROMPTS = "prompts.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs."""
    return made(tmp_path_factory)


@pytest.fixture(scope="module")
def repository(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a repository with a run."""
    out = tmp_path_factory.mktemp("repository")
    weft.save_pretrained(named(home, "adapt-mpt").path, out, base_id=BASE)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Hub]:
    """A hub with the base model on it."""
    with hub_of(monkeypatch, tmp_path / "cache") as found:
        found.add(BASE, base_files(home))
        yield found


def refusal(act: Callable[[], object]) -> WeftError:
    """The error, which says what to do and where."""
    with pytest.raises(WeftError) as caught:
        act()
    assert caught.value.where
    assert caught.value.fix
    return caught.value


def changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def inside(files: dict[str, bytes], name: str) -> str:
    """The path of a file of the run."""
    [found] = [path for path in files if path.endswith(f"/{name}")]
    return found


def test_a_changed_file_is_refused(hub: Hub, repository: dict[str, bytes], tmp_path: Path) -> None:
    """Each of them, though the hub is sure of it; nothing gets its place."""
    for number, path in enumerate(path for path in repository if "/" in path):
        files = {**repository, path: changed(repository[path])}
        hub.add(f"me/run-{number}", files)
        fault = refusal(lambda name=f"me/run-{number}": weft.pull(name, root=tmp_path / "runs"))
        assert isinstance(fault, ArtifactError)
        assert fault.code in ("A01", "A03"), path
        assert not (tmp_path / "runs").exists()


def test_a_missing_file_is_refused(hub: Hub, repository: dict[str, bytes], tmp_path: Path) -> None:
    """As of a push that was put together by hand."""
    files = dict(repository)
    del files[inside(files, PROMPTS)]
    hub.add("me/run", files)
    assert f"{PROMPTS!r} is missing" in refusal(lambda: weft.pull("me/run", root=tmp_path / "runs")).cause
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", [PROMPTS, "config.yaml", "manifest.json"])
def test_what_was_torn_on_its_way_is_fetched_again(
    hub: Hub, repository: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    """The hub's client keeps what it once had; weft sees that it is another thing, and has it sent anew."""
    hub.add("me/run", repository)
    served: list[str] = []

    def torn_once(path: str, data: bytes) -> bytes:
        if path.endswith(f"/{name}"):
            served.append(path)
            return changed(data) if len(served) == 1 else data
        return data

    hub.serve = torn_once
    there = weft.pull("me/run", root=tmp_path / "runs")
    assert len(served) > 1
    assert storage.verify(there) == []


def test_a_broken_line_goes_on(hub: Hub, repository: dict[str, bytes], tmp_path: Path) -> None:
    """A download that ends early is gone on with where it was cut, by the hub's client."""
    hub.add("me/run", repository)
    served: list[str] = []

    def cut_once(path: str, data: bytes) -> bytes:
        if path.endswith(f"/{PROMPTS}"):
            served.append(path)
            return data[:100] if len(served) == 1 else data
        return data

    hub.serve = cut_once
    assert storage.verify(weft.pull("me/run", root=tmp_path / "runs")) == []


def test_no_file_of_another_kind_is_fetched(hub: Hub, repository: dict[str, bytes], tmp_path: Path) -> None:
    """A manifest that names one is refused before it is asked for: nothing pickled comes here."""
    folder = inside(repository, PROMPTS).partition("/")[0]
    for name in ("pytorch_model.bin", "run.pkl"):
        files = {**repository, f"{folder}/{name}": b"cos\nsystem\n"}
        said = json.loads(files[f"{folder}/manifest.json"])
        said["files"][name] = {"bytes": 11, "sha256": storage.sha256_bytes(b"cos\nsystem\n")}
        hub.add("me/run", {**files, f"{folder}/manifest.json": json.dumps(said).encode()})
        assert name in refusal(lambda: weft.pull("me/run", root=tmp_path / "runs")).cause
        said["files"]["bank.json"] = said["files"].pop("config.yaml")
        hub.add("me/run", {**files, f"{folder}/manifest.json": json.dumps(said).encode()})
        assert name in refusal(lambda: weft.pull("me/run", tmp_path / "bank")).cause
    assert not [line for line in hub.asked if line.endswith((".bin", ".pkl"))]


def test_what_is_no_repository_of_weft(hub: Hub, repository: dict[str, bytes], tmp_path: Path) -> None:
    """A model of others, two runs at once; and the remedy."""
    two = {**repository, **{f"other/{name.partition('/')[2]}": data for name, data in repository.items()}}
    hub.add("me/two", two)
    for name, count in (("me/two", "2 runs"), (BASE, "no runs")):
        assert count in refusal(lambda name=name: weft.pull(name, root=tmp_path / "runs")).cause
    hub.add("me/run", repository)
    fault = refusal(lambda: weft.pull("me/run", tmp_path / "bank"))
    assert isinstance(fault, ConfigError)
    assert "is a run" in fault.cause


def test_who_may_not_read(
    hub: Hub, repository: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such repository, a private one, a gated one, no such revision."""
    hub.add("me/private", repository, private=True)
    hub.add("me/gated", repository, gated=True)
    monkeypatch.setenv("HF_TOKEN", READER)
    pull = lambda name, **more: refusal(lambda: weft.pull(name, root=tmp_path / "runs", **more))  # noqa: E731
    assert "no such repository" in pull("me/nothing").cause
    assert "gated" in pull("me/gated").cause
    assert "no such revision" in pull("me/private", revision="v9").cause
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    assert "no such repository, or the token may not see it" in pull("me/private").cause
    assert not (tmp_path / "runs").exists()


def test_a_hub_that_is_not_there(
    hub: Hub, repository: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was pulled before is pulled again without it; anything else is told."""
    hub.add("me/run", repository)
    weft.pull("me/run", root=tmp_path / "runs")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weft.pull("me/run", root=tmp_path / "others").is_dir()
    fault = refusal(lambda: weft.pull(BASE, root=tmp_path / "runs"))
    assert "HF_HUB_OFFLINE" in fault.cause
    assert "HF_HUB_OFFLINE" in fault.fix
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(
            constants, name, getattr(constants, name).replace(hub.endpoint, "http://127.0.0.1:9")
        )
    assert "cannot be reached" in refusal(lambda: weft.pull(BASE, root=tmp_path / "runs")).cause


def push(home: Path, repo: str, **more: bool) -> str:
    return weft.push_to_hub(named(home, "adapt-mpt").path, repo, base_id=BASE, **more)


def test_who_may_not_write(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, and one that only reads."""
    for token, cause in ((READER, "may not do that"), ("hf_nobody", "knows no token, or not this one")):
        monkeypatch.setenv("HF_TOKEN", token)
        fault = refusal(lambda: push(home, "me/run"))
        assert cause in fault.cause
        assert "hf auth login" in fault.fix
    assert "me/run" not in hub.repos


def test_a_push_spares_what_is_not_its_own(hub: Hub, home: Path, repository: dict[str, bytes]) -> None:
    """A model of others, a public repository for what is private, a commit of somebody else meanwhile."""
    before = dict(hub.files(BASE))
    assert "holds other things" in refusal(lambda: push(home, BASE)).cause
    assert hub.files(BASE) == before
    hub.add("me/public", repository)
    assert "is public" in refusal(lambda: push(home, "me/public", private=True)).cause
    assert len(hub.repos["me/public"].commits) == 1
    hub.before_commit = lambda: hub.repos["me/public"].commit({"theirs": b""})
    assert "meanwhile" in refusal(lambda: push(home, "me/public")).cause
    assert hub.files("me/public") == {"theirs": b""}
    hub.before_commit = lambda: None
    push(home, "me/secret", private=True)
    assert hub.repos["me/secret"].private


def test_a_broken_push_leaves_the_last(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is one commit."""
    hub.repos["me/run"] = Repo()
    hub.repos["me/run"].commit({".gitattributes": b""})

    def breaks() -> None:
        raise ConnectionAbortedError

    hub.before_commit = breaks
    fault = refusal(lambda: push(home, "me/run"))
    assert "cannot be reached, or broke off" in fault.cause
    assert hub.files("me/run") == {".gitattributes": b""}


@pytest.mark.slow
def test_the_hub_is_that_of_the_environment(hub: Hub, repository: dict[str, bytes], tmp_path: Path) -> None:
    """`HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN`, as of every program that speaks to a hub."""
    hub.add("me/run", repository, private=True)
    env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": READER}
    command = [sys.executable, "-m", "weft", "pull", "me/run", "--runs", str(tmp_path / "runs")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert storage.verify(Path(done.stdout.strip())) == []
