"""Finished run folders with one thing wrong in one file: whatever reads them works, or says what is wrong."""

import copy
import json
import random
import re
from functools import cache

import pytest
from test_artifacts import flip, put, reseal
from test_reporting import fill, make_plan

from weft import runs, storage
from weft.checks import doctor
from weft.errors import ArtifactError, WeftError
from weft.experiments import tables
from weft.experiments.report import html_page, plots
from weft.runs import Run, folder
from weft.storage import durable

TRIALS, SEED = 200, 20261128
PAGES = 5  # of so many trials, one also writes the whole report
DEEP = [[[[[[[["x"]]]]]]]]
VALUES = [None, True, False, -1, 0, 7, 0.5, 1e308, -1e308, 10**30, 10**400, float("nan"), float("inf")]
VALUES += [
    "",
    "x",
    "suffix",
    "\ud800",
    "\u2028",
    "x" * 5_000,
    [],
    {},
    [None],
    ["x"],
    {"x": 1},
    {"x": None},
    DEEP,
]
WORDS = ["", "x", "-1", "1e999", "nan", "null", "true", "[]", "{}", "[1, 2]", "{a: 1}", "'\\0'", "x" * 5_000]
WORDS += [
    "!!binary x",
    "!!set {x}",
    "2020-01-01",
    "0o7",
    "&a [*a]",
    "*a",
    "|",
    "? x",
    '"\\ud800"',
    "prefix",
    "0",
]
BODIES = [
    b"",
    b"\n",
    b"null",
    b"3",
    b"[]",
    b"{}",
    b'"x"',
    b"\xff\xfe\n",
    b"{" * 50_000,
    b"[" * 50_000,
    b"- 1\n",
]


@pytest.fixture
def plan():
    """A small experiment: one target, one seed."""
    return make_plan(targets=("banking",), seeds=(0,))


@pytest.fixture
def root(plan, tmp_path, monkeypatch):
    """All of its runs, finished; nothing waits for the disk, and no plot is drawn."""
    monkeypatch.setattr(durable.os, "fsync", lambda handle: None)
    monkeypatch.setattr(plots, "_svg", lambda *args: "")
    monkeypatch.setattr(folder, "_plain", cache(folder._plain))  # the same YAML, again and again
    fill(plan, tmp_path)
    return tmp_path


def places(value, path=()):
    """The path of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def with_other_field(text, rng):
    """A JSON value with one field of another value, of another name, or without it."""
    value = copy.deepcopy(json.loads(text))
    *path, last = rng.choice(list(places(value)))
    inner = value
    for key in path:
        inner = inner[key]
    old = inner.pop(last)
    if rng.random() < 0.8:
        other = rng.choice(VALUES)
        inner.insert(last, other) if isinstance(inner, list) else inner.update({last: other})
    elif isinstance(inner, dict) and rng.random() < 0.5:
        inner[f"{last}x"] = old
    return json.dumps(value).encode()


def with_other_setting(text, rng):
    """YAML with another value behind one key, or without one line."""
    lines = text.decode().split("\n")
    at = rng.randrange(len(lines) - 1)
    lines[at] = re.sub(r": .*|:$|^(\s*- ).*", lambda _: f": {rng.choice(WORDS)}", lines[at], count=1)
    return "\n".join(lines[:at] + lines[at + (rng.random() < 0.2) :]).encode("utf-8", "surrogatepass")


def with_other_part(name, data, rng):
    """One field of a file that has fields; else one bit."""
    if name.endswith(".json"):
        return with_other_field(data, rng)
    if name.endswith(".yaml"):
        return with_other_setting(data, rng)
    if name.endswith(".jsonl"):
        lines = data.split(b"\n")[:-1]
        at = rng.randrange(len(lines))
        return b"\n".join([*lines[:at], with_other_field(lines[at], rng), *lines[at + 1 :], b""])
    return flip(data, rng.randrange(8 * len(data)))


def damaged(name, data, rng):
    """The bytes of a file with one thing wrong, and what that is."""
    at, byte = rng.randrange(len(data)), bytes([rng.randrange(256)])
    kinds = {
        "field": lambda: with_other_part(name, data, rng),
        "bit": lambda: flip(data, rng.randrange(8 * len(data))),
        "byte": lambda: data[:at] + byte + data[at + 1 :],
        "more": lambda: data[:at] + byte * rng.randrange(1, 9) + data[at:],
        "less": lambda: data[:at] + data[at + rng.randrange(1, 9) :],
        "cut": lambda: data[:at],
        "body": lambda: rng.choice(BODIES),
    }
    kind = rng.choices(list(kinds), [6, 1, 1, 1, 1, 1, 1])[0]
    return kind, kinds[kind]()


def readers(root, path, plan):
    """All that reads a run folder without its base model: name -> function."""
    run = Run(path)
    return {
        "env": run.env,
        "config": run.config,
        "result": run.result,
        "seconds": run.seconds,
        "metrics": lambda: run.lines("metrics.jsonl"),
        "predictions": lambda: run.lines("predictions.jsonl"),
        "tensors": run.tensors,
        "noted": lambda: runs.noted(path),
        "doctor": lambda: doctor.check_run(path),
        "collect": lambda: tables.table_csv(tables.collect(plan, root)),
        "page": lambda: html_page.page(plan, root, None).encode(),
    }


def test_one_damaged_file_is_read_or_refused(root, plan):
    """Each of many changes, sealed anew or not: no reader fails otherwise than by WeftError.

    What was changed and not sealed anew, `doctor` finds.
    """
    rng, crashed, missed = random.Random(SEED), [], []
    folders = sorted(path for path in root.iterdir() if Run(path).done)
    for trial in range(TRIALS):
        path = rng.choice(folders)
        whole = {name: (path / name).read_bytes() for name in [*storage.names(path), storage.MANIFEST]}
        name = rng.choice(sorted(whole))
        what, data = damaged(name, whole[name], rng)
        sealed = name != storage.MANIFEST and rng.random() < 0.7
        put(path / name, data)
        if sealed:
            reseal(path)
        for reader, read in readers(root, path, plan).items():
            try:
                if reader != "page" or trial % PAGES == 0:
                    read()
            except WeftError:
                pass
            except Exception as error:
                crashed.append((path.name, name, what, data[-300:], reader, repr(error)))
        if not sealed and name != storage.MANIFEST and data != whole[name] and not doctor.check_run(path):
            missed.append((path.name, name, what))
        for one in {name, storage.MANIFEST}:
            put(path / one, whole[one])
    assert (crashed, missed) == ([], [])
    for path in folders:
        assert doctor.check_run(path) == []  # undamaged again


@pytest.mark.parametrize(
    "text", ["", "\udcff", "{", "[]", "{}", '{"seconds": "x"}', '{"seconds": -1}', '{"seconds": null}']
)
@pytest.mark.parametrize("sealed", [True, False])
def test_damaged_seconds_are_refused(root, text, sealed):
    """`timing.json`: an ArtifactError that names the file, and a fault that `doctor` finds."""
    path = next(path for path in root.iterdir() if path.name.startswith("adapt-"))
    put(path / "timing.json", text.encode("utf-8", "surrogateescape"))
    if sealed:
        reseal(path)
    with pytest.raises(ArtifactError) as caught:
        Run(path).seconds()
    assert caught.value.where == str(path / "timing.json")
    assert caught.value.code == ("A04" if sealed else "A01")
    assert caught.value.fix
    assert len(doctor.check_run(path)) == 1


def test_settings_that_are_no_text_are_refused(root):
    """YAML may write half of a character, which no reader could hand on."""
    path = next(path for path in root.iterdir() if path.name.startswith("adapt-"))
    data = (path / "config.yaml").read_bytes()
    put(path / "config.yaml", data.replace(b"references:", b'references: "\\ud800"'))
    reseal(path)
    with pytest.raises(ArtifactError) as caught:
        Run(path).config()
    assert caught.value.code == "A20"


def test_a_log_that_is_gone_is_missed(root):
    """A sealed log whose file is not there is no empty log."""
    path = next(path for path in root.iterdir() if path.name.startswith("teachers-"))
    (path / "metrics.jsonl").unlink()
    with pytest.raises(ArtifactError) as caught:
        Run(path).lines("metrics.jsonl")
    assert caught.value.code == "A01"


def test_notes_of_a_finished_run_are_those_that_were_sealed(root):
    """A finished run's notes of its machine are verified; an unfinished one's count as none if damaged."""
    path = next(path for path in root.iterdir() if path.name.startswith("source-"))
    assert runs.noted(path)["dtype"] == "float32"
    put(path / "env.json", (path / "env.json").read_bytes().replace(b"float32", b"bfloat1"))
    with pytest.raises(ArtifactError) as caught:
        runs.noted(path)
    assert caught.value.code == "A01"
    (path / storage.MANIFEST).unlink()
    assert runs.noted(path) == {}
