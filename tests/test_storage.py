"""Durable files: old or new and never half, sealed folders, locks; faults of the disk are injected."""

import contextlib
import errno
import hashlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft import storage
from weft.errors import ArtifactError, ResourceError, WeftError
from weft.storage import (
    MANIFEST,
    TEMPORARY,
    durable,
    hashing,
    locked,
    read_json,
    read_verified,
    seal,
    sweep,
    verify,
    write_bytes,
)

modest = settings(max_examples=100, deadline=None)


def names(folder):
    """The names of all files of a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def failing(number):
    """A system call that fails."""

    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


def sealed_folder(folder, files):
    """A sealed folder of these files, whatever was there before."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    seal(folder, list(files))
    return folder


# writing


def test_written_bytes_are_there_and_nothing_else(tmp_path):
    """The file holds the bytes, its folder is made, and no temporary file stays."""
    path = tmp_path / "a" / "b" / "file"
    for data in (b"first", b"", b"second" * 100_000):
        write_bytes(path, data)
        assert path.read_bytes() == data
        assert names(path.parent) == ["file"]


def test_text_is_utf8_without_line_translation(tmp_path):
    """Text is written as it is."""
    storage.write_text(tmp_path / "a", "ä\r\n\u2028")
    assert (tmp_path / "a").read_bytes() == "ä\r\n\u2028".encode()


def test_json_is_readable_and_reads_back(tmp_path):
    """JSON is written sorted, with letters as letters, and reads back equal."""
    storage.write_json(tmp_path / "a", {"b": [1, 2.5, None], "a": "ä"})
    assert read_json(tmp_path / "a") == {"a": "ä", "b": [1, 2.5, None]}
    text = (tmp_path / "a").read_text("utf-8")
    assert text.index('"a": "ä"') < text.index('"b"')


def test_json_refuses_nan_and_leaves_the_old_file(tmp_path):
    """NaN is not JSON; what cannot be written does not touch what is there."""
    storage.write_json(tmp_path / "a", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "a", [float("nan")])
    assert (read_json(tmp_path / "a"), names(tmp_path)) == (1, ["a"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("call", ["replace", "fsync", "open"])
@pytest.mark.parametrize("old", [b"old", None])
def test_fault_of_the_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call, number, old):
    """Whichever call fails: the old content, no temporary file, a ResourceError with exit code 5."""
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with monkeypatch.context() as patch:
        patch.setattr(durable.os, call, failing(number))
        with pytest.raises(ResourceError) as caught:
            write_bytes(path, b"n" * 1234)
    assert names(tmp_path) == ([] if old is None else ["file"])
    assert old is None or path.read_bytes() == old
    assert caught.value.exit_code == 5
    assert caught.value.where == str(path)
    assert caught.value.fix


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_reported_with_figures(tmp_path, monkeypatch, number):
    """How much was to be written and how much is free."""
    monkeypatch.setattr(durable.os, "fsync", failing(number))
    monkeypatch.setattr(durable.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5678})())
    with pytest.raises(ResourceError) as caught:
        write_bytes(tmp_path / "file", b"n" * 12345)
    assert caught.value.cause == "no space for 12,345 bytes, 5,678 are free"
    assert caught.value.code == "R06"


def test_other_faults_are_reported_by_name(tmp_path, monkeypatch):
    """Not every fault is a full disk."""
    monkeypatch.setattr(durable.os, "open", failing(errno.EACCES))
    with pytest.raises(ResourceError) as caught:
        write_bytes(tmp_path / "file", b"new")
    assert (caught.value.cause, caught.value.code) == ("cannot write: Permission denied", "R08")


def test_folder_that_cannot_be_made_is_a_resource_error(tmp_path):
    """A file where a folder should be."""
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(ResourceError) as caught:
        write_bytes(tmp_path / "a" / "file", b"new")
    assert caught.value.exit_code == 5


def test_fault_after_the_rename_leaves_the_whole_new_file(tmp_path, monkeypatch):
    """The folder's flush comes last; if it fails, the file is whole and the fault is reported."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(durable, "sync_folder", failing(errno.EIO))
    with pytest.raises(ResourceError):
        write_bytes(path, b"new")
    assert (path.read_bytes(), names(tmp_path)) == (b"new", ["file"])


def test_data_are_flushed_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    """The order on which durability rests: file to disk, rename, folder to disk."""
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_fsync(handle)

    def replace(source, target):
        assert Path(source).read_bytes() == b"new"
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    monkeypatch.setattr(durable.os, "replace", replace)
    write_bytes(tmp_path / "file", b"new")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o000, 0o666)])
def test_mode_of_a_file_follows_the_umask(tmp_path, mask, mode):
    """What colleagues may read is the user's choice, not that of a temporary file."""
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "file", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


KILLED = """
import os, signal, sys
from pathlib import Path
from weft import storage
from weft.storage import durable, hashing
durable.os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
storage.write_bytes(Path(sys.argv[1]), b"new")
"""


def test_killed_writer_leaves_the_old_file_and_what_sweep_removes(tmp_path):
    """Killed just before the rename: the old content, and a temporary file that `sweep` takes away."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    sweep(tmp_path)
    assert names(tmp_path) == ["file"]


def test_sweep_removes_temporary_files_alone(tmp_path):
    """Nothing but the files of interrupted writes goes."""
    kept = ["config.yaml", "tmp-file", "lock", f"a{TEMPORARY}"]
    for name in [*kept, f"{TEMPORARY}0123456789ab-result.json", f"{TEMPORARY}x"]:
        (tmp_path / name).write_bytes(b"")
    sweep(tmp_path)
    assert names(tmp_path) == sorted(kept)


def test_sweep_removes_what_write_bytes_makes(tmp_path, monkeypatch):
    """A temporary file that could not be removed at once is one that `sweep` knows."""
    monkeypatch.setattr(durable.os, "replace", failing(errno.EIO))
    monkeypatch.setattr(durable.os, "unlink", failing(errno.EIO))
    with pytest.raises(ResourceError):
        write_bytes(tmp_path / "file", b"new")
    assert len(names(tmp_path)) == 1
    monkeypatch.undo()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_log_lines_are_added(tmp_path):
    """A log grows by whole lines."""
    for line in ("one", "zwei ü"):
        storage.append_line(tmp_path / "log", line)
    assert (tmp_path / "log").read_text("utf-8") == "one\nzwei ü\n"


def test_full_disk_is_a_resource_error_for_logs_too(tmp_path, monkeypatch):
    """A log that cannot grow is the same fault as a file that cannot be written."""
    monkeypatch.setattr(durable.os, "open", failing(errno.ENOSPC))
    with pytest.raises(ResourceError):
        storage.append_line(tmp_path / "log", "one")


def test_short_writes_are_finished(tmp_path, monkeypatch):
    """A system that takes one byte at a time gets them all."""
    whole = os.write
    monkeypatch.setattr(durable.os, "write", lambda handle, data: whole(handle, bytes(data[:1])))
    write_bytes(tmp_path / "file", b"abc")
    storage.append_line(tmp_path / "log", "def")
    assert ((tmp_path / "file").read_bytes(), (tmp_path / "log").read_bytes()) == (b"abc", b"def\n")


def test_a_log_is_cut_to_a_recorded_length(tmp_path):
    """What came after the recorded length goes; a log that is too short is no such log."""
    log = tmp_path / "log"
    storage.append_line(log, "one")
    length = storage.flush_log(log)
    assert length == 4
    storage.append_line(log, "two")
    storage.cut_log(log, length)
    assert log.read_bytes() == b"one\n"
    with pytest.raises(ArtifactError, match="4 bytes and should have 5"):
        storage.cut_log(log, 5)
    with pytest.raises(ArtifactError, match="0 bytes"):
        storage.cut_log(tmp_path / "none", 1)


def test_removing_what_is_gone_is_no_fault(tmp_path):
    """A file is removed once; a second time there is nothing to do."""
    (tmp_path / "file").write_bytes(b"")
    storage.remove(tmp_path / "file")
    storage.remove(tmp_path / "file")
    assert names(tmp_path) == []


# reading


def test_missing_json_is_an_artifact_error(tmp_path):
    """A file that is not there."""
    with pytest.raises(ArtifactError) as caught:
        read_json(tmp_path / "none")
    assert (caught.value.cause, caught.value.where) == ("the file is missing", str(tmp_path / "none"))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"{'a': 1}", b'{"a": 1} x'])
def test_broken_json_is_an_artifact_error(tmp_path, data):
    """A file that is cut or was never JSON."""
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ArtifactError, match="not valid JSON"):
        read_json(tmp_path / "a")


def test_hashes_are_those_of_hashlib(tmp_path):
    """Files are hashed whole, also beyond one piece."""
    data = random.Random(0).randbytes(2 * hashing.READ_CHUNK + 17)
    (tmp_path / "a").write_bytes(data)
    assert (
        storage.sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest() == storage.sha256_bytes(data)
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


def reordered(value, draw):
    """The same JSON value, the keys of every object in another order."""
    if isinstance(value, dict):
        items = [(key, reordered(item, draw)) for key, item in value.items()]
        draw.shuffle(items)
        return dict(items)
    return [reordered(item, draw) for item in value] if isinstance(value, list) else value


@modest
@given(json_values, st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value, draw):
    """One value, one spelling, one hash; and it reads back as the value."""
    other = reordered(value, draw)
    assert storage.canonical_json(value) == storage.canonical_json(other)
    assert storage.sha256_json(value) == storage.sha256_json(other)
    assert json.loads(storage.canonical_json(value)) == value


@modest
@given(json_values, json_values)
def test_canonical_json_tells_values_apart(one, other):
    """Two spellings agree only if the values do."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (storage.canonical_json(one) == storage.canonical_json(other)) == same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_refuses_what_json_does_not_have(value):
    """NaN has no spelling that all readers share."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.canonical_json({"a": [value]})


# sealed folders


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for the examples of a property."""
    return tmp_path_factory.mktemp("sealed") / "run"


contents = st.dictionaries(st.sampled_from(["a.json", "b", "c.bin"]), st.binary(max_size=20), min_size=1)


@modest
@given(contents)
def test_sealed_files_read_back(place, files):
    """What was sealed reads back, and nothing is amiss."""
    folder = sealed_folder(place, files)
    assert storage.is_sealed(folder)
    assert verify(folder) == []
    assert {name: read_verified(folder, name) for name in files} == files


@modest
@given(contents, st.data())
def test_every_change_of_a_file_is_found(place, files, data):
    """A bit flipped, a byte less or more, another content or no file: found, and nothing else is blamed."""
    folder = sealed_folder(place, files)
    name = data.draw(st.sampled_from(sorted(files)))
    old = files[name]
    new = data.draw(
        st.one_of(
            st.sampled_from([old + b"\0", old + b"\n", None, *([old[:-1], old[1:], old * 2] if old else [])]),
            st.tuples(st.integers(0, max(0, len(old) - 1)), st.integers(0, 7)).map(
                lambda at: flipped(old, *at)
            ),
            st.binary(max_size=20),
        ).filter(lambda new: new != old)
    )
    (folder / name).unlink() if new is None else (folder / name).write_bytes(new)
    assert verify(folder) == [name]
    with pytest.raises(ArtifactError) as caught:
        read_verified(folder, name)
    assert (caught.value.where, caught.value.code) == (str(folder / name), "A01")
    assert all(read_verified(folder, other) == files[other] for other in files if other != name)


def flipped(data, place, bit):
    """The same bytes with one bit turned over; a byte more where there are none."""
    if not data:
        return b"\0"
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def test_empty_file_that_is_gone_is_missed(tmp_path):
    """A file without content is a file: where it is gone, the folder is not what was sealed."""
    folder = sealed_folder(tmp_path / "run", {"log": b"", "b": b"content"})
    (folder / "log").unlink()
    assert verify(folder) == ["log"]
    with pytest.raises(ArtifactError):
        read_verified(folder, "log")


def noticed(folder, name):
    """Whether a change of a sealed folder is noticed, and by an error of weft's own."""
    try:
        return bool(verify(folder)) or read_verified(folder, name) is None
    except WeftError:
        return True


def test_every_change_of_the_manifest_is_found_or_means_the_same(place):
    """Each bit of the manifest: flipped, it is an ArtifactError, a file amiss, or the same manifest."""
    folder = sealed_folder(place, {"a": b"content"})
    whole = (folder / MANIFEST).read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            (folder / MANIFEST).write_bytes(changed := flipped(whole, at, bit))
            with contextlib.suppress(ValueError):
                if json.loads(changed) == json.loads(whole):
                    continue
            assert noticed(folder, "a"), changed


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '{"files": []}', '{"files": {"a": {}}}', '{"files": {"a": 3}}']
)
def test_manifest_that_is_none_is_an_artifact_error(place, text):
    """JSON of another form is a damaged folder, not a fault of weft."""
    folder = sealed_folder(place, {"a": b"content"})
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError):
        read_verified(folder, "a")


def test_manifest_names_size_and_hash(tmp_path):
    """What the manifest holds, by hand."""
    folder = sealed_folder(tmp_path / "run", {"a": b"abc"})
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert read_json(folder / MANIFEST) == {"files": {"a": {"bytes": 3, "sha256": digest}}}


def test_folder_without_manifest_is_not_sealed(tmp_path):
    """Files alone do not make a folder complete."""
    (tmp_path / "a").write_bytes(b"content")
    assert not storage.is_sealed(tmp_path)
    for read in (lambda: read_verified(tmp_path, "a"), lambda: verify(tmp_path)):
        with pytest.raises(ArtifactError):
            read()


def test_file_beside_the_manifest_is_not_read(tmp_path):
    """Only what was sealed is part of a folder."""
    folder = sealed_folder(tmp_path / "run", {"a": b"content"})
    (folder / "b").write_bytes(b"late")
    with pytest.raises(ArtifactError) as caught:
        read_verified(folder, "b")
    assert caught.value.cause == "'b' is not part of this folder"
    assert verify(folder) == []


# locks

HOLDER = """
import sys, time
from pathlib import Path
from weft.storage import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held_elsewhere(folder):
    """Another process that holds a folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            yield holder
        finally:
            holder.kill()


def test_second_holder_is_refused_at_once_and_told_who_holds(tmp_path):
    """Two processes never write one folder; the second names the first within two seconds."""
    with held_elsewhere(tmp_path) as holder:
        start = time.monotonic()
        with pytest.raises(ResourceError) as caught, locked(tmp_path):
            pass
        assert time.monotonic() - start < 2
        assert f"process {holder.pid} on " in caught.value.cause
        assert (caught.value.exit_code, caught.value.where, caught.value.code) == (5, str(tmp_path), "R12")


def test_lock_of_a_killed_process_is_free(tmp_path):
    """The system gives a dead holder's lock back: nothing is left to remove by hand."""
    with held_elsewhere(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=10)
        with locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / "lock.owner").read_text("utf-8")


def test_lock_is_free_after_the_block_and_after_an_error(tmp_path):
    """A holder can come back, however the block ended."""
    with locked(tmp_path / "new"):
        pass
    with pytest.raises(KeyError), locked(tmp_path / "new"):
        raise KeyError
    with locked(tmp_path / "new"):
        pass


def test_second_holder_of_the_same_process_is_refused(tmp_path):
    """Two threads of one process are no better than two processes."""
    with locked(tmp_path), pytest.raises(ResourceError), locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_folder_that_cannot_be_locked_is_a_resource_error(tmp_path, monkeypatch, number):
    """A runs folder that cannot be written is told as such, before anything is trained."""
    monkeypatch.setattr(Path, "mkdir", failing(number))
    with pytest.raises(ResourceError), locked(tmp_path / "run"):
        pass


def test_file_in_place_of_the_folder_is_a_resource_error(tmp_path):
    """A file where the folder of runs should be."""
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(ResourceError), locked(tmp_path / "runs" / "a"):
        pass


def test_owner_that_cannot_be_written_frees_the_lock(tmp_path, monkeypatch):
    """On a full disk the holder's name cannot be written: a ResourceError, and the lock is free again."""
    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "write", failing(errno.ENOSPC))
        with pytest.raises(ResourceError), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass
