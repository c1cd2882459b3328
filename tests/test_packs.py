"""A run as one file: it answers alike where nothing else of training is; what is no such file is refused."""

import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from tiny_job import ONE_TARGET, command, write_job

import weft
from weft import storage
from weft.errors import ArtifactError, ResourceError, WeftError
from weft.runs import Run, finished, packs
from weft.storage import durable, pack, placing

Capture = pytest.CaptureFixture[str]
METHODS = """\
  - label: MPT
    method: {{name: mpt}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
  - label: SPoT
    method: {{name: prompt_tuning, start: nearest}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
  - label: ATTEMPT
    method: {{name: attempt}}
    optim: {{lr: {{prompt: 0.1, attention: 0.1}}, steps: 2, batch_size: 6}}
  - {{label: LoRA, method: {{name: lora}}, optim: {{lr: {{lora: 0.01}}, steps: 2, batch_size: 6}}}}
  - {{label: full, method: {{name: full}}, optim: {{lr: {{model: 0.001}}, steps: 2, batch_size: 6}}}}
  - {{label: weft, method: {{name: weft, encoders: []}}}}
  - {{label: words, method: {{name: tfidf}}}}
  - {{label: in context, method: {{name: in_context}}}}
"""
EXPERIMENT = ONE_TARGET.replace("name: tiny", "name: packed") + METHODS
ROWS = [{"text": text} for text in ("the good film", "the bad dog is", "a song", "not true")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment over methods that keep prompts, weights, numbers and rows."""
    folder = tmp_path_factory.mktemp("made")
    write_job(folder, "t5", "prefix", EXPERIMENT)
    assert command("run", folder / "tiny.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


def trained(folder: Path) -> list[Run]:
    """All runs that answer."""
    return [run for run in finished(folder / "runs") if not run.id.startswith("evaluate-")]


@pytest.fixture(scope="module")
def one(made: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A pack of a small run."""
    [run] = [run for run in trained(made) if run.id.startswith("adapt-mpt-")]
    return packs.packed(made / "runs", run.id, tmp_path_factory.mktemp("one") / "pack").read_bytes()


def test_packs_answer_as_the_runs_did(made: Path, tmp_path: Path) -> None:
    """Bit for bit, of every method, where there are no rows, no parents and no old base folder."""
    runs = trained(made)
    before = {run.id: weft.load(run.path).predict(ROWS) for run in runs}
    bytes_of = {run.id: _bytes(run.path) for run in runs}
    for run in runs:
        assert command("pack", run.id, tmp_path / run.id, "--runs", made / "runs") == 0
    base = Path(shutil.copytree(made / "base", tmp_path / "base"))
    made.rename(made.with_name("gone"))
    try:
        for name, answers in before.items():  # each alone: no parent of it is there
            root = tmp_path / f"alone-{name}"
            assert command("unpack", tmp_path / name, "--runs", root) == 0
            assert weft.load(name, root=root, base=base).predict(ROWS) == answers
            assert [path.name for path in root.iterdir()] == [name]
            assert _bytes(root / name) == bytes_of[name]
    finally:
        made.with_name("gone").rename(made)


def _bytes(folder: Path) -> dict[str, bytes]:
    """What a run sealed."""
    return {name: (folder / name).read_bytes() for name in [*storage.names(folder), storage.MANIFEST]}


def test_an_unpacked_run_is_scored_and_exported(
    made: Path, tmp_path: Path, one: bytes, capsys: Capture
) -> None:
    """On rows of another file; it is known by its id in the folder that it was put into."""
    (tmp_path / "run.pack").write_bytes(one)
    (tmp_path / "new.csv").write_text("text,label\nthe good film,y\nthe bad dog,n\n", "utf-8")
    assert command("unpack", tmp_path / "run.pack", "--runs", tmp_path / "runs") == 0
    run = Path(capsys.readouterr().out.strip())
    where = ("--runs", tmp_path / "runs")
    assert command("evaluate", run.name, tmp_path / "new.csv", *where, "--quiet", "--json") == 0
    assert '"rows": 2' in capsys.readouterr().out
    assert command("export", run.name, "gamma", tmp_path / "adapter", *where) == 0
    assert command("doctor", run) == 0


def test_a_pack_holds_no_rows(made: Path, one: bytes) -> None:
    """Neither the texts of training nor those of tests."""
    for split in ("train", "dev", "test"):
        for line in (made / "tasks" / f"gamma-{split}.jsonl").read_text("utf-8").splitlines():
            assert json.loads(line)["text"].encode() not in one


def test_unpacking_again_changes_nothing(tmp_path: Path, one: bytes) -> None:
    """What is there and whole is the run; anything else of that name is left alone, and refused."""
    (tmp_path / "run.pack").write_bytes(one)
    run = packs.unpacked(tmp_path / "run.pack", tmp_path / "runs")
    before = (run.path / "manifest.json").stat().st_mtime_ns
    assert packs.unpacked(tmp_path / "run.pack", tmp_path / "runs").path == run.path
    assert (run.path / "manifest.json").stat().st_mtime_ns == before
    (run.path / "result.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match="is not what would be put there"):
        packs.unpacked(tmp_path / "run.pack", tmp_path / "runs")
    assert (run.path / "result.json").read_bytes() == b"{}"


def test_only_what_answers_is_packed(made: Path, tmp_path: Path) -> None:
    """No evaluation, no damaged run, and nothing over a file that is there."""
    scored = next(run.id for run in finished(made / "runs") if run.id.startswith("evaluate-"))
    with pytest.raises(ArtifactError, match="nothing to answer with"):
        packs.packed(made / "runs", scored, tmp_path / "out")
    whole = trained(made)[0]
    copy = Path(shutil.copytree(whole.path, tmp_path / "runs" / whole.id))
    (tmp_path / "mine").write_text("mine", "utf-8")
    with pytest.raises(ResourceError, match="a file of that name"):
        packs.packed(made / "runs", whole.id, tmp_path / "mine")
    assert (tmp_path / "mine").read_text("utf-8") == "mine"
    (copy / "metrics.jsonl").write_bytes((copy / "metrics.jsonl").read_bytes() + b"\n")
    with pytest.raises(ArtifactError, match="SHA-256"):
        packs.packed(tmp_path / "runs", whole.id, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def forged(name: str, files: dict[str, bytes], **other: object) -> bytes:
    """A pack whose own hashes agree."""
    rows = {key: {"bytes": len(data), "sha256": storage.sha256_bytes(data)} for key, data in files.items()}
    line = storage.canonical_json({"name": name, "files": rows, **other}) + b"\n"
    return pack.MARK + storage.sha256_bytes(line).encode() + b"\n" + line + b"".join(files.values())


def parts(data: bytes, folder: Path) -> tuple[str, dict[str, bytes]]:
    """Name and files of a pack."""
    (folder / "parts.pack").write_bytes(data)
    head, files = pack.head(folder / "parts.pack"), {}
    place = head.start
    for name, row in head.files.items():
        files[name] = data[place : place + row["bytes"]]
        place += row["bytes"]
    return head.name, files


def refused(folder: Path, data: bytes) -> ArtifactError:
    """The fault of a pack, which leaves nothing behind."""
    file, root = folder / "bad.pack", folder / "inside" / "runs"
    file.write_bytes(data)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ArtifactError) as fault:
        packs.unpacked(file, root)
    assert sorted(folder.rglob("*")) == [*before] or not root.exists()
    assert [path for path in folder.rglob("*") if path not in before] in ([], [folder / "inside"])
    assert fault.value.fix
    return fault.value


def test_every_damaged_byte_is_refused(tmp_path: Path, one: bytes) -> None:
    """Of the head, every one; of the files, some of each; and any other length."""
    start = one.index(b"\n", one.index(b"\n") + 1) + 1
    for place in [*range(0, start, 7), *range(start, len(one), 211)]:
        for bit in (1, 128):
            refused(tmp_path, one[:place] + bytes([one[place] ^ bit]) + one[place + 1 :])
    for length in (0, 5, 76, start - 1, start, len(one) - 1):
        refused(tmp_path, one[:length])
    assert "bytes and should have" in refused(tmp_path, one + b"x").cause


@pytest.mark.parametrize(
    "name", ["../up", "/tmp/up", "..", ".", "", "a/b", "a\\b", "a\0b", ".hidden", "a" * 200, "con:x\n"]
)
def test_no_name_is_a_path(tmp_path: Path, one: bytes, name: str) -> None:
    """Neither of the folder nor of a file in it."""
    own, files = parts(one, tmp_path)
    refused(tmp_path, forged(name, files))
    refused(tmp_path, forged(own, {**files, name: b"x"}))


@pytest.mark.parametrize("name", ["manifest.json", "predictions.jsonl", "rows.csv", "lock"])
def test_files_that_no_trained_run_has_are_refused(tmp_path: Path, one: bytes, name: str) -> None:
    """The manifest is made anew, of what was read."""
    own, files = parts(one, tmp_path)
    refused(tmp_path, forged(own, {**files, name: b"{}"}))


def test_another_run_under_the_name_is_refused(tmp_path: Path, one: bytes) -> None:
    """Hashes that agree do not make a run of a folder."""
    own, files = parts(one, tmp_path)
    assert refused(tmp_path, forged("adapt-mpt-other-s0-00000000", files)).code == "A14"
    for missing in ("config.yaml", "env.json", "prompts.safetensors", "result.json"):
        refused(tmp_path, forged(own, {key: data for key, data in files.items() if key != missing}))
    refused(tmp_path, forged(own, {}))
    refused(tmp_path, forged(own, {**files, "prompts.safetensors": b"\x80\x04K\x01."}))
    refused(tmp_path, forged(own, files, more=1))


def test_a_pack_that_says_it_is_huge_is_refused_unread(tmp_path: Path, one: bytes) -> None:
    """Also where the file is as long as it says, which costs no disk."""
    own, files = parts(one, tmp_path)
    rows = {key: {"bytes": len(data), "sha256": storage.sha256_bytes(data)} for key, data in files.items()}
    rows["config.yaml"]["bytes"] = 1 << 40
    line = storage.canonical_json({"name": own, "files": rows}) + b"\n"
    data = pack.MARK + storage.sha256_bytes(line).encode() + b"\n" + line
    assert "bytes and should have" in refused(tmp_path, data).cause
    (tmp_path / "long.pack").write_bytes(data)
    whole = len(data) + sum(row["bytes"] for row in rows.values())
    try:
        os.truncate(tmp_path / "long.pack", whole)
    except OSError:
        pytest.skip("the disk keeps no such file")
    with pytest.raises(ArtifactError, match="no file of a trained run") as fault:
        packs.unpacked(tmp_path / "long.pack", tmp_path / "runs")
    assert fault.value.code == "A03"


def test_other_files_are_refused(tmp_path: Path, one: bytes) -> None:
    """Archives, tables, folders, pipes, and what is not there."""
    (tmp_path / "evil").write_text("x", "utf-8")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "evil", "../evil")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "evil", "../evil")
    for name in ("a.tar", "a.zip", "evil"):
        assert "not a file of weft pack" in refused(tmp_path, (tmp_path / name).read_bytes()).cause
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none"):
        with pytest.raises(WeftError):
            packs.unpacked(path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_disk_that_refuses_leaves_nothing(
    tmp_path: Path, one: bytes, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """But for the mark of who was at work; afterwards the same command does it."""
    (tmp_path / "run.pack").write_bytes(one)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, call, fails)
        with pytest.raises(ResourceError):
            packs.unpacked(tmp_path / "run.pack", tmp_path / "runs")
    left = {path.name for path in tmp_path.rglob("*")} - {"run.pack"}
    assert left <= ({"runs", placing.PLACE, "lock", "lock.owner"} if call == "write" else set())
    assert packs.unpacked(tmp_path / "run.pack", tmp_path / "runs").done


def test_what_a_killed_process_left_is_swept(tmp_path: Path, one: bytes) -> None:
    """Half of a run is not taken for a run, and goes with the next one that is unpacked."""
    (tmp_path / "run.pack").write_bytes(one)
    half = tmp_path / "runs" / placing.PLACE / "adapt-half"
    half.mkdir(parents=True)
    (half / "config.yaml").write_text("stage: adapt\n", "utf-8")
    assert finished(tmp_path / "runs") == []
    run = packs.unpacked(tmp_path / "run.pack", tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == [run.path]
