"""Banks: what runs kept comes back to the bit, and nothing is believed that is not as it was written."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tiny_bank import BASE, GROUP, LENGTH, P_STAR, RANK, SHARED, WIDTH, definition, factors, held, prompt
from tiny_job import READERS, SHORT, command, write_job

from weft import bank, runs, storage
from weft.bank import compaction, draft, exchange, from_runs, index, names, records, verification
from weft.bank import manifest as manifests
from weft.bank.errors import ConflictError, QuarantinedError, UnknownTaskError
from weft.bank.forms import Form, composed, decoded, encoded
from weft.bank.manifest import check_same
from weft.bank.writer import change
from weft.errors import ArtifactError, ConfigError, ResourceError, UnsupportedError, WeftError
from weft.interop.prompts import prompt_of
from weft.methods.kept_views import uses
from weft.runs.places import Places
from weft.runs.workspace import Workspace

RUNS = Path(__file__).parent / "fixtures" / "format-1" / "finished"
SOURCE, ALONE, FROZEN = (
    "source-alpha+beta-s0-4d4fda07",
    "adapt-mpt-gamma-s0-32afba04",
    "adapt-mpt-gamma-s0-57d165e0",
)
SCORES, FULL = "evaluate-gamma-s0-0d09fdb8", "adapt-full-gamma-s0-ad186d7a"


@pytest.fixture
def folder(tmp_path):
    """A bank with four tasks: three of one group, and a plain prompt."""
    path = tmp_path / "bank"
    bank.create(path, BASE)
    rows = [factors("b", 1), factors("a", 2), prompt("c", 3), factors("d", 4)]
    assert change(path, rows, shared=SHARED) == 1
    return path


def newest(path):
    return bank.open(path).snapshot()


# what comes back


@pytest.fixture(scope="module")
def workspace():
    """The base model of the runs of format 1."""
    places = Places(str(RUNS.parent / "base"))
    return Workspace(RUNS, places=places, keep_texts=False)


@pytest.mark.parametrize("run", [SOURCE, ALONE, FROZEN, "teachers-beta-s0-b0874f09"])
def test_prompts_of_runs_come_back_to_the_bit(run, workspace, tmp_path):
    """Whatever form a prompt is kept in, it is the one that the run itself answers with."""
    found = from_runs.of_runs([run], RUNS, "float32")
    bank.create(tmp_path / "bank", found.base)
    change(tmp_path / "bank", found.rows, shared=found.shared)
    with newest(tmp_path / "bank") as snapshot:
        for name in snapshot.names():
            expected = prompt_of(runs.find(RUNS, run), name, workspace).numpy()
            assert snapshot.prompt(snapshot.find(name)).tobytes() == expected.tobytes()


def test_a_shared_prompt_is_kept_once_and_one_that_a_single_task_trained_not_at_all():
    """P* with several tasks, or not trained, makes a group; P* of one task alone is composed away."""
    kinds = {
        run: [row.form.kind for row in from_runs.of_runs([run], RUNS, "float32").rows]
        for run in (SOURCE, ALONE, FROZEN)
    }
    assert kinds == {SOURCE: ["factors", "factors"], ALONE: ["prompt"], FROZEN: ["factors"]}
    tensors = load_file(RUNS / ALONE / "prompts.safetensors")
    [row] = from_runs.of_runs([ALONE], RUNS, "float32").rows
    assert row.data == (tensors["shared"] * (tensors["u"][0] @ tensors["v"][0])).tobytes()
    group = from_runs.of_runs([ALONE], RUNS, "float32", [_hash(tensors["shared"])])
    assert [row.form.kind for row in group.rows] == ["factors"]


def _hash(values):
    import hashlib

    return hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()


def test_an_evaluation_leads_to_its_run_and_gives_its_scores():
    """The run is named once, though it was named too; texts and limits are the run's."""
    found = from_runs.of_runs([SCORES, ALONE], RUNS, "float32")
    [row] = found.rows
    config = runs.find(RUNS, ALONE).config()
    scored = runs.find(RUNS, SCORES).result()["scores"]["gamma"]["metrics"]
    said = bank.Definition.model_validate_json(row.definition)
    assert (row.run, json.loads(row.metrics)) == (ALONE, scored)
    assert said.source_tokens == config.limits.tokens("gamma")
    assert (said.task.source, said.task.labels) == (config.tasks[0].source, config.tasks[0].labels)
    assert list(said.task.labels) == list(config.tasks[0].labels)
    assert not said.task.files


def test_what_changes_weights_is_refused_with_the_remedy():
    """Full fine-tuning cannot be kept."""
    with pytest.raises(UnsupportedError, match="does not keep") as caught:
        from_runs.of_runs([FULL], RUNS, "float32")
    assert "weft predict" in caught.value.fix


@pytest.mark.parametrize(
    ("key", "code"),
    [("tokenizer_hash", "A09"), ("embedding_hash", "A08"), ("base_hash", "A08"), ("position", "A07")],
)
def test_tasks_of_another_base_are_refused(key, code):
    """By each of the facts, with the number of its fault."""
    other = BASE.model_copy(update={key: "prefix" if key == "position" else "0" * 64})
    check_same(BASE, BASE, "here")
    with pytest.raises(ArtifactError) as caught:
        check_same(other, BASE, "here")
    assert caught.value.code == code


def test_readers_answer_as_their_run_does(tmp_path):
    """Two tasks of one run of `method: weft` with prompts in common: kept apart, each answers to the bit."""
    job = write_job(tmp_path, "llama", "suffix", READERS)
    root, place = tmp_path / "runs", tmp_path / "bank"
    assert command("run", job, "--runs", root, "--quiet") == 0
    [run] = [path.name for path in root.glob("adapt-weft-*")]
    assert command("bank", "add", place, run, "--runs", root, "--name", "gamma=Gamma 2") == 0
    work = Workspace(root, keep_texts=False)
    whole = runs.parents.load(runs.find(root, run), work)
    texts = [row.source for row in whole.tasks[0].load("test")]
    with newest(place) as snapshot:
        assert snapshot.names() == ["Gamma 2", "delta"]
        assert snapshot.manifest.arrays  # the prompts that both read under
        for number, name in enumerate(["Gamma 2", "delta"]):
            entry = snapshot.find(name)
            setup = runs.parents.setup_of(runs.find(root, run).config(), work)
            one = work.task(entry.task)
            alone = entry.method.restore(
                from_dataclass(setup, tasks=(one,), source_tokens=(entry.source_tokens,)),
                snapshot.saved(entry),
            )
            expected = whole.answer(texts, [number] * len(texts), generate=False)
            found = alone.answer(texts, [0] * len(texts), generate=False)
            assert [one.probabilities for one in found] == [one.probabilities for one in expected]
            assert {one.task for one in found} == {name}


def test_codes_of_ulpt_are_kept_as_the_prompts_that_they_give(tmp_path):
    """To the bit those that the run answers with; nothing is said of a method that would restore them."""
    optim = "optim: {lr: {prompt: 0.1}, steps: 2, batch_size: 4}"
    row = f"  - {{label: ULPT, method: {{name: ulpt, rank: 3}}, group: true, {optim}}}\n"
    job = write_job(tmp_path, "llama", "suffix", SHORT + row.replace("{", "{{").replace("}", "}}"))
    root, place = tmp_path / "runs", tmp_path / "bank"
    assert command("run", job, "--runs", root, "--quiet") == 0
    [run] = [path.name for path in root.glob("adapt-ulpt-*")]
    assert command("bank", "add", place, run, "--runs", root, "--dtype", "float32") == 0
    work = Workspace(root, keep_texts=False)
    with newest(place) as snapshot:
        assert snapshot.names() == ["delta", "gamma"]
        for name in snapshot.names():
            entry = snapshot.find(name)
            assert (entry.kind, entry.method) == ("prompt", None)
            expected = prompt_of(runs.find(root, run), name, work).numpy()
            assert snapshot.prompt(entry).tobytes() == expected.tobytes()


def test_a_task_takes_the_prompts_and_scales_along_that_it_reads_with():
    """And no others: those are of other tasks of its run."""
    view = {"encoder": "", "prompt": "alpha", "layer": 2, "compares": "", "weight": 1.0}
    notes = {"answers": ["a", "b"], "views": [view, {**view, "encoder": "minilm", "prompt": ""}]}
    read = ["prompt.alpha", 'gain.["", "alpha", 2]', 'gain.["minilm", "", 2]']
    other = ["prompt.beta", "prompt.", 'gain.["", "alpha", 3]', 'gain.["", "", 2]', "0.codes"]
    assert [name for name in read + other if uses(notes, name)] == read


def from_dataclass(value, **changed):
    from dataclasses import replace

    return replace(value, **changed)


# numbers


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50))
def test_bfloat16_is_rounded_as_torch_rounds_it(values):
    """To the nearest, of two the even one."""
    expected = torch.tensor(values, dtype=torch.float32).bfloat16().float().numpy()
    assert decoded(encoded(values, "bfloat16"), "bfloat16").tobytes() == expected.tobytes()
    assert decoded(encoded(values, "float32"), "float32").tobytes() == np.float32(values).tobytes()


def test_factors_of_a_group_are_stacked(folder):
    """In the order that is asked for, with their shared prompt; other entries are refused."""
    with newest(folder) as snapshot:
        entries = [snapshot.find(name) for name in ("d", "b")]
        u, v = snapshot.factors(entries)
        assert (u.shape, v.shape) == ((2, LENGTH, RANK), (2, RANK, WIDTH))
        rows = [
            np.random.default_rng(seed).normal(size=(LENGTH + WIDTH) * RANK).astype("f4") for seed in (4, 1)
        ]
        assert np.array_equal(u.reshape(2, -1), [row[: LENGTH * RANK] for row in rows])
        assert np.array_equal(v.reshape(2, -1), [row[LENGTH * RANK :] for row in rows])
        assert np.array_equal(snapshot.shared(GROUP), P_STAR)
        assert np.allclose(snapshot.prompt(entries[0]), P_STAR * (u[0] @ v[0]))
        with pytest.raises(UnsupportedError):
            snapshot.factors([entries[0], snapshot.find("c")])
        with pytest.raises(UnsupportedError):
            snapshot.saved(entries[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_factors_of_a_file_are_one_array(dtype, tmp_path):
    """The row that an entry names there is the task's own; nothing is copied."""
    bank.create(tmp_path / "bank", BASE, dtype=dtype)
    rows = [factors(name, seed, dtype) for seed, name in enumerate("xyz")]
    change(tmp_path / "bank", rows, shared=SHARED)
    change(tmp_path / "bank", [prompt("p", 1, dtype=dtype)], remove=["x"])
    with newest(tmp_path / "bank") as snapshot:
        u, v = snapshot.stacked("factors-000001.rows")
        assert (u.shape, v.shape) == ((3, LENGTH, RANK), (3, RANK, WIDTH))
        assert u.base is not None
        for name in "yz":
            entry = snapshot.find(name)
            one, other = snapshot.factors([entry])
            assert entry.line.shard == "factors-000001.rows"
            place = entry.line.place
            assert np.array_equal(decoded(u[place].tobytes(), dtype), one.ravel())
            assert np.array_equal(decoded(v[place].tobytes(), dtype), other.ravel())
        for wrong in ("prompt-000002.rows", "none"):
            with pytest.raises(UnsupportedError):
                snapshot.stacked(wrong)


def test_rank_one_is_one_product(tmp_path):
    """Composed by the bank, by torch and by hand: the same to the bit."""
    draw = np.random.default_rng(1)
    shared, u, v = (draw.normal(size=shape).astype("f4") for shape in ((7, 5), (7, 1), (1, 5)))
    by_torch = torch.tensor(shared) * (torch.tensor(u) @ torch.tensor(v))
    assert composed(shared, u, v).tobytes() == by_torch.numpy().tobytes()


def test_a_bank_of_bfloat16_has_rows_of_half_the_size(tmp_path):
    """What it gives back is each number rounded."""
    bank.create(tmp_path / "bank", BASE, dtype="bfloat16")
    change(tmp_path / "bank", [factors("a", 1, "bfloat16")], shared=SHARED)
    exact = np.random.default_rng(1).normal(size=(LENGTH + WIDTH) * RANK).astype("f4")
    with newest(tmp_path / "bank") as snapshot:
        u, _ = snapshot.factors([snapshot.find("a")])
    assert np.array_equal(u.ravel(), torch.tensor(exact[: LENGTH * RANK]).bfloat16().float().numpy())
    [shard] = (tmp_path / "bank").glob("*.rows")
    assert shard.stat().st_size == 2 * (LENGTH + WIDTH) * RANK


BAD = {
    "no number": (prompt("x", 1, data=encoded([np.nan] * 20, "float32")), "A05"),
    "infinite": (prompt("x", 1, data=encoded([np.inf] * 20, "float32")), "A05"),
    "too large": (prompt("x", 1, data=encoded([2e6] * 20, "float32")), "A06"),
    "composed too large": (factors("x", 1, data=encoded([5e4] * 14, "float32")), "A06"),
    "short": (prompt("x", 1, data=b"\0" * 76), "A07"),
    "other format": (prompt("x", 1, dtype="bfloat16"), "A07"),
    "other width": (factors("x", 1, form=Form("factors", (5, 2, 2), "float32")), "A07"),
    "no such group": (factors("x", 1, group="0" * 64), "A14"),
    "no record": (prompt("x", 1, form=Form("readers", (), "float32"), data=b"no"), "A04"),
    "no definition": (prompt("x", 1, definition='{"task": 1}'), "A04"),
    "no metrics": (prompt("x", 1, metrics='{"accuracy": "high"}'), "A04"),
}


@pytest.mark.parametrize("row, code", BAD.values(), ids=list(BAD))  # noqa: PT006
def test_numbers_that_no_training_gives_are_refused(folder, row, code):
    """And the bank stays as it was, whatever was added before in the same change."""
    before = held(newest(folder))
    with pytest.raises(ArtifactError) as caught:
        change(folder, [prompt("fine", 1), row], shared=SHARED)
    assert caught.value.code == code
    assert held(newest(folder)) == before
    assert verification.damage(folder) == []


def test_shared_arrays_and_groups_are_looked_at_too(folder):
    """One that holds no numbers; one of another hash; a group that names what is not there, or is not P*."""
    wild = np.full((LENGTH, WIDTH), np.inf, np.float32)
    digest = _hash(wild)
    group = manifests.Group(kind="factors", arrays={"P*": digest})
    other = group.model_copy(update={"arrays": {"P*": GROUP}})
    for shared, code in (
        (draft.Shared({digest: wild}, {digest: group}), "A05"),
        (draft.Shared({digest: P_STAR}, {}), "A14"),
        (draft.Shared({}, {digest: group}), "A14"),
        (draft.Shared({}, {digest: other}), "A14"),
    ):
        with pytest.raises(ArtifactError) as caught:
            change(folder, [prompt("x", 1)], shared=shared)
        assert caught.value.code == code
    assert len(newest(folder)) == 4


# names


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\0b", "a\u2028b", "\ud800", "x" * 201, "a\x7f"])
def test_names_that_no_screen_shows_are_refused(folder, name):
    """When they are added and when they are asked for."""
    for wrong in (lambda: change(folder, [prompt(name, 1)]), lambda: newest(folder).find(name)):
        with pytest.raises(ConfigError, match="no name of a task"):
            wrong()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "C:\\x",
        "%2e%2e/",
        "a'; DROP TABLE tasks; --",
        "日本語 🙂",
        "-",
        "a/b#c?",
        "x" * 200,
    ],
)
def test_any_other_name_is_a_name_and_never_a_path(folder, name):
    """It comes back, and no file bears it."""
    before = {path.name for path in folder.glob("*[!ml]")}  # without what SQLite puts beside its file
    change(folder, [prompt(name, 1)])
    with newest(folder) as snapshot:
        assert snapshot.find(name).task.name == name
        assert name in snapshot.names()
        assert snapshot.search(name[:3])
    assert {path.name for path in folder.glob("*[!ml]")} == before


def test_one_spelling_of_a_name():
    """A letter with an accent may be one sign or two; it is one name."""
    assert names.checked("cafe\u0301") == names.checked("caf\u00e9") == "caf\u00e9"


def test_names_come_in_pages(folder):
    """Prefixes, pages and groups, against a sorted list; signs that SQL knows are plain here."""
    more = ["a%", "a_b", "aab", "ab", "b'b", "é", "\U0010ffffx"]
    change(folder, [prompt(name, i) for i, name in enumerate(more)])
    every = sorted(["a", "b", "c", "d", *more])
    with newest(folder) as snapshot:
        assert snapshot.names() == every
        assert snapshot.names(limit=3, after="a_b") == every[every.index("a_b") + 1 :][:3]
        for prefix in ("a", "a%", "a_", "é", "\U0010ffff", "zz"):
            assert snapshot.names(prefix=prefix) == [name for name in every if name.startswith(prefix)]
        assert snapshot.names(group=GROUP) == ["a", "b", "d"]
        assert snapshot.names(group="") == sorted(["c", *more])
        assert snapshot.names(group="none") == []
        assert snapshot.search("_") == ["a_b"]
        assert snapshot.search("b", 2) == ["b", "b'b"]
        assert set(snapshot.search("B")) == {"b", "b'b", "aab", "ab", "a_b"}
        with pytest.raises(UnknownTaskError) as caught:
            snapshot.find("aa_b")
    assert "'a_b'" in caught.value.fix
    assert "a_b" in caught.value.near


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_a_search_goes_on_from_block_to_block(folder, block, monkeypatch):
    """Against all names, where some lines are of other generations; threads have their turns in between."""
    monkeypatch.setattr(index, "BLOCK", block)
    more = ["mx00", *(f"{first}x{second}" for first in "mnopq" for second in range(3))]
    change(folder, [prompt(name, 1) for name in more])
    change(folder, [prompt("px1", 2)], replace=True, remove=["nx0", "a"])
    with newest(folder) as snapshot:
        every = snapshot.names()
        for text in ("x", "X1", "p", "q", "none", ""):
            wanted = [name for name in every if text.lower() in name]
            ordered = sorted(wanted, key=lambda name: (not name.startswith(text), name))
            for limit in (1, 2, 5, 100):
                assert snapshot.search(text, limit) == ordered[:limit]


# generations


def test_what_is_there_is_not_replaced_unless_it_is_said(folder):
    """Nor is one name added twice."""
    with pytest.raises(ConfigError, match="already"):
        change(folder, [prompt("new", 1), prompt("a", 1)])
    with pytest.raises(ConfigError, match="already"):
        change(folder, [prompt("new", 1), prompt("new", 2)])
    with pytest.raises(UnknownTaskError):
        change(folder, remove=["a", "x"])
    with pytest.raises(ConfigError, match="already"):
        change(folder, [prompt("a", 1), prompt("a", 2)], replace=True)
    assert newest(folder).names() == ["a", "b", "c", "d"]
    assert change(folder, [prompt("a", 9)], replace=True) == 2
    with newest(folder) as snapshot:
        assert (snapshot.find("a").kind, snapshot.find("a").since, len(snapshot)) == ("prompt", 2, 4)


def test_a_change_for_another_generation_is_refused_with_both(folder):
    """And changes nothing."""
    for late in (
        lambda: change(folder, [prompt("x", 1)], generation=0),
        lambda: change(folder, remove=["a"], generation=2),
        lambda: compaction.compact(folder, generation=7),
    ):
        with pytest.raises(ConflictError, match=r"generation 1, .* for [027]"):
            late()
    assert (newest(folder).generation, len(newest(folder))) == (1, 4)


def test_of_two_writers_one_loses(folder):
    """Both mean generation 1; one makes 2, the other one is told."""
    outcomes = []

    def write(name):
        try:
            outcomes.append(change(folder, [prompt(name, 1)], generation=1))
        except ConflictError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("x", "y")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(type, outcomes), key=str) == [int, str]
    assert len(newest(folder)) == 5


def test_a_snapshot_outlives_all_that_writers_do(folder):
    """Its files are unlinked, its rows replaced; it says what it said."""
    opened = bank.open(folder)
    old = opened.snapshot()
    before, files = held(old), {path.name for path in folder.glob("*.*")}
    change(folder, [factors("a", 77)], replace=True)
    middle = opened.snapshot()
    then = held(middle)
    change(folder, remove=["b", "c"])
    assert opened.snapshot().generation == 3
    assert compaction.compact(folder) == opened.snapshot().generation == 4
    change(folder, [prompt("new", 5)])
    assert (held(old), held(middle)) == (before, then)
    assert held(opened.snapshot()).keys() == {"a", "d", "new"}
    assert then["a"] != before["a"]
    left = files & {path.name for path in folder.glob("*.*")}
    assert left == {"manifest.json", "lock.owner", f"shared-{GROUP}.f32"}


def test_many_threads_look_up_while_a_writer_writes(folder):
    """Each finds what its snapshot has, with the numbers of its own task."""
    opened = bank.open(folder)
    snapshot, faults, done = opened.snapshot(), [], threading.Event()
    before = held(snapshot)

    def look(seed):
        draw = random.Random(seed)
        try:
            while not done.is_set():
                name = draw.choice("abcd")
                entry = snapshot.find(name)
                assert (entry.name, snapshot.prompt(entry).tobytes()) == (name, before[name][-1])
                assert snapshot.names() == ["a", "b", "c", "d"]
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for i in range(6):
        change(folder, [factors("a", 50 + i), prompt(f"n{i}", i)], replace=True)
    compaction.compact(folder)
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(opened.snapshot()) == 10


def test_a_bank_that_may_not_be_written_is_read(folder, monkeypatch):
    """As on a disk that is mounted to be read: SQLite makes no file beside its own."""
    before = held(newest(folder))
    for left in [*folder.glob("*-wal"), *folder.glob("*-shm")]:
        left.unlink()
    monkeypatch.setattr(index.os, "access", lambda *about: False)
    files = {path.name for path in folder.iterdir()}
    assert held(newest(folder)) == before
    assert {path.name for path in folder.iterdir()} == files


def test_compaction_drops_what_nothing_names(folder):
    """Rows, the group whose tasks are gone, and its shared prompt; living rows stay byte for byte."""
    before = held(newest(folder))
    change(folder, remove=["a", "b", "d"])
    assert compaction.compact(folder) == 3
    with newest(folder) as snapshot:
        assert held(snapshot) == {"c": before["c"]}
        assert (snapshot.manifest.groups, snapshot.manifest.arrays) == ({}, {})
    assert [path.stat().st_size for path in folder.glob("*.rows")] == [5 * WIDTH * 4]
    assert not list(folder.glob("shared-*"))


def test_shards_have_a_largest_size(folder, monkeypatch):
    """Rows that no longer fit begin another file; all of them are found."""
    monkeypatch.setattr(draft, "LARGEST_SHARD", 3 * (LENGTH + WIDTH) * RANK * 4)
    monkeypatch.setattr(draft, "BUFFER", 100)
    change(folder, [factors(f"t{i}", 10 + i) for i in range(8)])
    with newest(folder) as snapshot:
        rows = held(snapshot)
        assert len(list(folder.glob("factors-*"))) == 4
        for i in range(8):
            u, _ = snapshot.factors([snapshot.find(f"t{i}")])
            assert np.array_equal(
                u.ravel(), np.random.default_rng(10 + i).normal(size=14).astype("f4")[: LENGTH * RANK]
            )
    compaction.compact(folder)
    assert held(newest(folder)) == rows
    assert verification.damage(folder) == []


def test_an_export_comes_back_row_for_row(folder, tmp_path, monkeypatch):
    """All tasks, in several parts, or some; into a new bank and into one that has tasks."""
    monkeypatch.setattr(exchange, "PART", 2)
    with newest(folder) as snapshot:
        assert exchange.export(snapshot, tmp_path / "all") == 4
        assert exchange.export(snapshot, tmp_path / "some", ["c", "a"]) == 2
    before = held(newest(folder))
    assert exchange.take(tmp_path / "new", tmp_path / "all") == 1
    assert held(newest(tmp_path / "new")) == before
    change(folder, remove=["a", "c"])
    exchange.take(folder, tmp_path / "some")
    after = held(newest(folder))
    assert {name: one[3:] for name, one in after.items()} == {name: one[3:] for name, one in before.items()}
    with pytest.raises(ConfigError, match="already"):
        exchange.take(folder, tmp_path / "some")
    tensors = load_file(tmp_path / "all" / "0000-factors.safetensors")
    assert tensors["u"].shape == (2, LENGTH, RANK)  # which any reader of the format reads


def test_an_export_is_refused_where_anything_in_it_changed(folder, tmp_path):
    """A bit of every file; another base; another number format."""
    exchange.export(newest(folder), tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes()
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 4]) + data[-2:])
        with pytest.raises(ArtifactError):
            exchange.take(tmp_path / "new", tmp_path / "out")
        path.write_bytes(data)
        assert not (tmp_path / "new").exists() or len(newest(tmp_path / "new")) == 0
    bank.create(tmp_path / "half", BASE, dtype="bfloat16")
    bank.create(tmp_path / "other", BASE.model_copy(update={"base_hash": "0" * 64}))
    for place, code in (("half", "A07"), ("other", "A08")):
        with pytest.raises(ArtifactError) as caught:
            exchange.take(tmp_path / place, tmp_path / "out")
        assert caught.value.code == code


def test_an_export_that_was_made_to_deceive_is_refused_or_whole(folder, tmp_path):
    """Bytes changed and the folder sealed again: an error of weft, or a bank that `verify` finds whole."""
    draw, out, taken = random.Random(3), tmp_path / "out", 0
    change(folder, [reader("r")], shared=READERS_SHARED)
    exchange.export(newest(folder), out)
    files = [path for path in out.iterdir() if path.name != "manifest.json"]
    for path in files:
        whole = path.read_bytes()
        for _ in range(5):
            head = draw.randrange(min(len(whole), 400))
            path.write_bytes(whole[:head] + draw.choice([b"", b"9", b"[", b'"', b"\xff"]) + whole[head + 1 :])
            storage.seal(out, [one.name for one in files])
            place = tmp_path / "new"
            try:
                exchange.take(place, out)
            except WeftError:
                pass
            else:
                taken += 1
                assert verification.damage(place) == []
                with newest(place) as snapshot:
                    assert len(snapshot) == 5
                    [snapshot.find(name) for name in snapshot.names()]
            shutil.rmtree(place, ignore_errors=True)
        path.write_bytes(whole)
    assert taken < 20


def test_numbers_of_an_export_are_those_of_their_task(folder, tmp_path):
    """One bit of a row, in a folder that was sealed again."""
    exchange.export(newest(folder), tmp_path / "out")
    names = [path.name for path in (tmp_path / "out").iterdir() if path.name != "manifest.json"]
    path = tmp_path / "out" / "0000-factors.safetensors"
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 4, 0))
    storage.seal(tmp_path / "out", names)
    with pytest.raises(ArtifactError) as caught:
        exchange.take(tmp_path / "new", tmp_path / "out")
    assert caught.value.code == "A14"


READERS_GROUP = storage.sha256_json({"prompt.alpha": GROUP})
READERS_SHARED = draft.Shared(
    {GROUP: P_STAR}, {READERS_GROUP: manifests.Group(kind="readers", arrays={"prompt.alpha": GROUP})}
)


def reader(name, **changed):
    """A task of readers, whose prompt is that of the group of factors."""
    said = json.loads(definition())
    said |= {"method": {"name": "weft", "encoders": []}, "encoders": {}}
    record = records.record({"bias": torch.zeros(2)}, {"answers": ["no", "yes"], "views": []})
    about = {"definition": json.dumps(said), "metrics": "{}", "run": "adapt-weft", "group": READERS_GROUP}
    return draft.Row(
        **{"name": name, "form": Form("readers", (), "float32"), "data": record, **about, **changed}
    )


def test_arrays_in_common_are_kept_once(folder):
    """The prompt of readers that is P* of a group is one file; each gives back its own."""
    change(folder, [reader("r"), reader("q")], shared=READERS_SHARED)
    assert len(list(folder.glob("shared-*"))) == 1
    with newest(folder) as snapshot:
        entry = snapshot.find("q")
        saved = snapshot.saved(entry)
        assert (entry.kind, entry.method.name, entry.prompt_length) == ("readers", "weft", 0)
        assert saved.notes == {"q": {"answers": ["no", "yes"], "views": []}}
        assert np.array_equal(saved.tensors["prompt.alpha"].numpy(), P_STAR)
        assert saved.tensors.keys() == {"prompt.alpha", "0.bias"}
        assert snapshot.names(group=READERS_GROUP) == ["q", "r"]
    for wrong, code in ((reader("x", group=GROUP), "A14"), (reader("x", definition=definition()), "A04")):
        with pytest.raises(ArtifactError) as caught:
            change(folder, [wrong])
        assert caught.value.code == code
    unknown = json.dumps({**json.loads(definition()), "method": {"name": "not here"}})
    with pytest.raises(UnsupportedError, match="not here"):
        change(folder, [reader("x", definition=unknown)])


# damage


def test_a_shared_array_that_was_damaged_comes_back_with_its_run(folder):
    """The group's tasks cannot be composed meanwhile, and `verify` names the file."""
    [path] = folder.glob("shared-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with newest(folder) as snapshot, pytest.raises(ArtifactError, match="shared array"):
        snapshot.prompt(snapshot.find("a"))
    assert [one.where for one in verification.damage(folder)] == [str(path)]
    change(folder, [factors("a", 2)], shared=SHARED, replace=True)
    assert path.read_bytes() == whole
    assert verification.damage(folder) == []


def flipped(data, place, bit):
    """One bit of some bytes changed."""
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def entries_in(data, snapshot):
    """Places in the bytes of an index where it speaks of a task, or of the text that tasks have in common."""
    lines = [snapshot.find(name).line for name in "abcd"]
    marks = [data.index(line.sha256) for line in lines]
    texts = [
        data.index(lines[2].definition.encode()[-100:]),
        data.index(b"adapt-x"),
        data.index(GROUP.encode()),
    ]
    state = data.index(snapshot.manifest.bank.encode())
    return [
        *range(marks[0] - 45, marks[0] + 41),
        *range(marks[2] - 20, marks[2]),
        *texts,
        *range(state, state + 120, 3),
    ]


@pytest.mark.parametrize("name", ["factors", "prompt", "shared", "manifest", "index"])
def test_every_flipped_bit_is_found_or_changes_nothing(folder, name):
    """In rows, shared arrays and the manifest each is found; in the index, those that change what it says."""
    before, draw, found = held(newest(folder)), random.Random(5), 0
    assert not any(path.stat().st_size for path in folder.glob("*-wal"))  # all is in the index itself
    [path] = [path for path in folder.glob(f"{name}*") if not path.name.endswith(("-wal", "-shm"))]
    whole = path.read_bytes()
    places = [draw.randrange(len(whole)) for _ in range(25)]
    if name == "index":
        places += entries_in(whole, newest(folder))
    for place in places:
        path.write_bytes(flipped(whole, place, draw.randrange(8)))
        try:
            clean = verification.damage(folder) == []
        except WeftError:
            clean = False
        if clean:
            assert name == "index"  # a page of SQLite has room where nothing is
            assert held(newest(folder)) == before
        found += not clean
    path.write_bytes(whole)
    assert found >= (120 if name == "index" else 25)
    assert verification.damage(folder) == []


def test_a_task_that_comes_back_for_another_is_noticed(folder):
    """The index counts as many tasks, each of which was written once, and yet it is not what holds."""
    change(folder, [factors("a", 9)], replace=True)
    assert verification.damage(folder) == []
    with sqlite3.connect(folder / "index-000000.sqlite") as db:
        db.execute("UPDATE tasks SET until = CASE since WHEN 1 THEN NULL ELSE 2 END WHERE name = 'a'")
    db.close()
    [found] = verification.damage(folder)
    assert "its 4 tasks are not the 4 that were written" in found.what


def test_a_damaged_row_is_quarantined_alone(folder, capsys):
    """Its numbers and its entry are refused by name; the others are served, and it may be added again."""
    before = held(newest(folder))
    shard = folder / newest(folder).find("a").line.shard
    place = newest(folder).find("a").line.place * (LENGTH + WIDTH) * RANK * 4
    data = shard.read_bytes()
    shard.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with newest(folder) as snapshot:
        with pytest.raises(QuarantinedError, match="'a' is quarantined"):
            snapshot.find("a")
        for name in ("b", "c", "d"):
            assert snapshot.prompt(snapshot.find(name)).tobytes() == before[name][-1]
    assert [one.task for one in verification.damage(folder)] == ["a"]
    assert command("bank", "verify", folder) == 4
    assert "task 'a'" in capsys.readouterr().out
    with pytest.raises(QuarantinedError):
        compaction.compact(folder)
    change(folder, [factors("a", 2)], replace=True)
    assert held(newest(folder))["a"][3:] == before["a"][3:]
    assert verification.damage(folder) == []


def test_a_shard_that_was_cut_or_lost_costs_its_own_rows_alone(folder):
    """The first rows of a cut file are served; of a lost one none; other files' rows are."""
    row = (LENGTH + WIDTH) * RANK * 4
    shard = folder / "factors-000001.rows"
    os.truncate(shard, 2 * row + 5)
    assert [one.task for one in verification.damage(folder) if one.task] == ["d"]
    newest(folder).find("a")
    shard.unlink()
    assert sorted(one.task for one in verification.damage(folder) if one.task) == ["a", "b", "d"]
    newest(folder).find("c")


def test_what_an_interrupted_change_left_is_told_and_cut_off(folder):
    """Rows behind those of the index are nobody's; the next change, of whatever, removes them."""
    path = folder / "factors-000001.rows"
    whole = path.read_bytes()
    path.write_bytes(whole + b"left")
    [found] = verification.damage(folder)
    assert found.what.startswith("4 bytes stand behind")
    with newest(folder) as snapshot:
        assert len(snapshot.stacked(path.name)[0]) == 3
    change(folder, [prompt("x", 1)])
    assert (path.read_bytes(), verification.damage(folder)) == (whole, [])


def test_a_lost_or_stale_or_strange_index_is_named(folder, tmp_path):
    """Lost; of before a change of files; of another bank: each is refused when the bank is opened."""
    kept = (folder / "index-000000.sqlite").read_bytes()
    change(folder, [prompt("x", 1)])
    compaction.compact(folder)
    [newer] = folder.glob("index-*.sqlite")
    whole = newer.read_bytes()
    for content in (None, kept, b"no index", b""):
        newer.unlink()
        if content is not None:
            newer.write_bytes(content)
        with pytest.raises(WeftError, match="index"):
            newest(folder)
        newer.write_bytes(whole)
    newest(folder)
    bank.create(tmp_path / "other", BASE)
    (tmp_path / "other" / "index-000000.sqlite").write_bytes(kept)
    with pytest.raises(ArtifactError, match="of bank"):
        newest(tmp_path / "other")


def test_links_in_a_bank_are_not_followed(folder, tmp_path):
    """A shard, the index or the manifest that is a link is refused."""
    for name in ("factors-000001.rows", "index-000000.sqlite", "manifest.json"):
        shutil.move(folder / name, tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        with pytest.raises(ArtifactError) as caught:
            newest(folder)
        assert caught.value.code == "A13"
        (folder / name).unlink()
        shutil.move(tmp_path / name, folder / name)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    """No bank is made over it, and none is found in it."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ResourceError, match=r"notes\.txt"):
        bank.create(tmp_path, BASE)
    with pytest.raises(ArtifactError, match="no bank"):
        bank.open(tmp_path)
    with pytest.raises(ArtifactError, match="no bank"):
        change(tmp_path, [prompt("x", 1)])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_another_versions_bank_is_refused_naming_it(folder):
    """Before anything else of the manifest is looked at."""
    values = json.loads((folder / manifests.NAME).read_text())
    (folder / manifests.NAME).write_text(json.dumps({**values, "format": 9}))
    with pytest.raises(ArtifactError, match="format 9") as caught:
        bank.open(folder)
    assert caught.value.code == "A20"


# the whole


def test_a_bank_is_read_without_torch(folder):
    """Opened, looked up and composed."""
    code = (
        "import sys; from weft import bank; s = bank.open(sys.argv[1]).snapshot(); "
        "s.prompt(s.find('a')); s.search('a'); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_the_commands(tmp_path, capsys):
    """From runs to a bank, to another one, and what is left when a task is taken out."""
    place, other = tmp_path / "bank", tmp_path / "other"
    steps = [
        ("add", place, SOURCE, SCORES, "--runs", RUNS),
        ("add", place, FROZEN, "--runs", RUNS, "--name", "gamma=gamma 2"),
        ("rm", place, "beta", "--generation", "2"),
        ("compact", place),
        ("verify", place),
        ("export", place, tmp_path / "out"),
        ("import", other, tmp_path / "out"),
        ("ls", other),
        ("show", other, "gamma 2"),
    ]
    for step in steps:
        assert command("bank", *step) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-5:-1] == ["alpha", "gamma", "gamma 2", "3 of 3 tasks, generation 1"]
    shown = json.loads(out[-1])
    assert (shown["name"], shown["kind"], shown["run"]) == ("gamma 2", "factors", FROZEN)
    assert held(newest(place)).keys() == {"alpha", "gamma", "gamma 2"}
    assert command("bank", "add", place, ALONE, "--runs", RUNS) == 2
    assert command("bank", "rm", place, "alpha", "--generation", "2") == 5
    assert command("bank", "show", place, "alpah") == 4
    assert "near names: 'alpha'" in capsys.readouterr().err
    assert command("bank", "add", place, ALONE, "--runs", RUNS, "--name", "x=y") == 2
    assert command("bank", "add", place, ALONE, "--runs", RUNS, "--dtype", "bfloat16") == 2


def test_definitions_are_kept_once(folder):
    """A hundred tasks of one text format add one text to the index."""
    with newest(folder) as snapshot:
        before = len(list(snapshot.index.rows("SELECT 1 FROM words")))
    change(folder, [factors(f"t{i}", i, definition=definition(("x", "y", "z"))) for i in range(100)])
    with newest(folder) as snapshot:
        assert len(list(snapshot.index.rows("SELECT 1 FROM words"))) == before + 1
        assert snapshot.find("t7").task.choices == ("x", "y", "z")
