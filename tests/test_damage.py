"""Finished run folders with one thing wrong in one file: whatever reads them works, or says what is wrong."""

import copy
import json
import random
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from test_artifacts import entry, flip, put, reheaded, rename, reseal
from test_reporting import fill, make_plan
from tiny_job import EXPERIMENT, command, write_job

from weft import runs, storage
from weft.checks import doctor
from weft.errors import ArtifactError, WeftError
from weft.experiments import tables
from weft.experiments.report import html_page, plots
from weft.runs import Run, config_file, parents, tensor_file
from weft.runs.workspace import Workspace
from weft.storage import durable

TRIALS, SEED = 200, 20261128
PAGES = 5  # of so many trials, one also writes the whole report
LOADS = 60  # of a damaged run of each method
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
    monkeypatch.setattr(plots, "svg", lambda *args: "")
    monkeypatch.setattr(config_file, "_plain", cache(config_file._plain))  # the same YAML, again and again
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
        "saved": run.saved,
        "noted": lambda: runs.noted(path),
        "doctor": lambda: doctor.check_run(path),
        "collect": lambda: tables.table_csv(tables.collect(plan, root)),
        "page": lambda: html_page.page(plan, root, None).encode(),
    }


def without_remedy(fault):
    """What a fault says, if it lacks its place or what to do."""
    return set() if fault.where and fault.fix else {f"{fault.cause} ({fault.where})"}


def test_one_damaged_file_is_read_or_refused(root, plan):
    """Each of many changes, sealed anew or not: readers fail only by WeftError, with place and remedy.

    What was changed and not sealed anew, `doctor` finds.
    """
    rng, crashed, missed, unsaid = random.Random(SEED), [], [], set()
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
            except WeftError as fault:
                unsaid |= without_remedy(fault)
            except Exception as error:
                crashed.append((path.name, name, what, data[-300:], reader, repr(error)))
        if not sealed and name != storage.MANIFEST and data != whole[name] and not doctor.check_run(path):
            missed.append((path.name, name, what))
        for one in {name, storage.MANIFEST}:
            put(path / one, whole[one])
    assert (crashed, missed, unsaid) == ([], [], set())
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


INCOMPLETE = [
    ("adapt", lambda result: result["rows"].clear()),
    ("adapt", lambda result: result["rows"].update(banking={})),
    ("adapt", lambda result: result["rows"].update(other=result["rows"].pop("banking"))),
    ("adapt", lambda result: result["tasks"].clear()),
    ("adapt", lambda result: result.update(tasks=["other"])),
    ("evaluate", lambda result: result["scores"].clear()),
    ("evaluate", lambda result: result["scores"].update(other=result["scores"].pop("banking"))),
    ("evaluate", lambda result: result["scores"]["banking"]["metrics"].clear()),
    ("evaluate", lambda result: result["scores"]["banking"]["written"].clear()),
]


@pytest.mark.parametrize(("stage", "edit"), INCOMPLETE)
def test_results_of_other_tasks_are_refused(root, plan, stage, edit):
    """Whatever a table asks of a result is there, or the fault names the file."""
    path = next(path for path in sorted(root.glob(f"{stage}-*banking-*")) if Run(path).done)
    result = json.loads((path / "result.json").read_bytes())
    edit(result)
    put(path / "result.json", json.dumps(result).encode())
    reseal(path)
    for read in (Run(path).result, lambda: tables.collect(plan, root)):
        with pytest.raises(ArtifactError) as caught:
            read()
        assert (caught.value.where, bool(caught.value.fix)) == (str(path / "result.json"), True)
        assert "banking" in caught.value.cause
    assert len(doctor.check_run(path)) == 1


@pytest.mark.parametrize(("stage", "other"), [("adapt", "evaluate"), ("evaluate", "adapt")])
def test_a_configuration_of_another_stage_is_refused(root, plan, stage, other):
    """A run's name begins with its stage, and its readers rely on what such a run holds."""
    paths = {path.name.partition("-")[0]: path for path in sorted(root.iterdir()) if path.is_dir()}
    path = paths[stage]
    for name in ("config.yaml", "result.json"):
        put(path / name, (paths[other] / name).read_bytes())
    reseal(path)
    for read in (Run(path).config, Run(path).result, Run(path).saved, lambda: tables.collect(plan, root)):
        with pytest.raises(ArtifactError, match=f"'{other}'") as caught:
            read()
        assert (caught.value.where, bool(caught.value.fix)) == (str(path / "config.yaml"), True)
    assert len(doctor.check_run(path)) == 1


# what answers from a run

ROWS_THAT_KEEP = """  - {{label: TF-IDF, method: {{name: tfidf}}}}
  - {{label: features, method: {{name: frozen_features}}}}
  - {{label: examples, method: {{name: in_context, examples: 4, context_tokens: 60}}}}
  - {{label: weft, method: {{name: weft, encoders: [], views: 5}}}}
  - label: LoRA
    method: {{name: lora}}
    optim: {{lr: {{lora: 0.01}}, steps: 2, batch_size: 4}}
  - label: ATTEMPT
    method: {{name: attempt}}
    optim: {{lr: {{prompt: 0.1, attention: 0.1}}, steps: 2, batch_size: 4}}
  - label: DePT
    method: {{name: dept, length: 2, rank: 2}}
    optim: {{lr: {{prompt: 0.1, offsets: 0.01}}, steps: 2, batch_size: 4}}
  - label: ULPT
    method: {{name: ulpt, rank: 4}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 4}}
"""
CLASSIFIERS = ("tfidf", "frozen-features", "in-context", "weft")
KINDS = (*CLASSIFIERS, "lora", "attempt", "dept", "ulpt", "prompt-tuning", "mpt")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One finished run of each method that keeps something, of a small experiment on a tiny model."""
    place = tmp_path_factory.mktemp("made")
    path = write_job(place, "llama", "suffix", EXPERIMENT + ROWS_THAT_KEEP)
    small = ("--set", "seeds=[0]", "--set", "targets=[gamma]", "--set", "limits.source_tokens=12")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable.os, "fsync", lambda handle: None)
        assert command("run", path, "--runs", place / "runs", "--quiet", *small) == 0
    return place / "runs"


@pytest.fixture(scope="module")
def workspace(made):
    """What loads the runs; the model is loaded once for all that leave it as it is."""
    return Workspace(made, keep_texts=False)


@pytest.fixture
def copy_of(made, tmp_path):
    """Gives a copy of one method's run, to be damaged."""

    def give(kind):
        return Path(shutil.copytree(of_kind(made, kind), tmp_path / of_kind(made, kind).name))

    return give


def of_kind(made, kind):
    """The folder of a method's run."""
    return sorted(made.glob(f"adapt-{kind}-gamma-*"))[0]


def answered(path, workspace):
    """Answers of a run to two texts."""
    texts = ["the good film", "a bad dog sits"]
    return parents.load(Run(path), workspace).answer(texts, [0, 0], generate=False)


def refusal(path, workspace):
    """What loading a damaged run ends in: a fault that names the folder, and a remedy."""
    with pytest.raises(ArtifactError) as caught:
        answered(path, workspace)
    assert str(path) in caught.value.where
    assert caught.value.fix
    return caught.value


def with_tensors(path, edit):
    """Change a run's named tensors, under the label that they had, and seal the folder anew."""
    name = runs.TENSORS
    label, tensors = tensor_file.read((path / name).read_bytes(), name, "here")
    edit(tensors)
    put(path / name, tensor_file.write(tensors, label))
    reseal(path)


def with_json(path, name, edit):
    """Change the value in one of a run's JSON files, and seal the folder anew."""
    value = json.loads((path / name).read_bytes())
    put(path / name, json.dumps(edit(value)).encode())
    reseal(path)


def changed(*place, **to):
    """An edit of a JSON value: one field, deep inside, becomes another, or goes."""

    def edit(value):
        inner = value
        for key in place[:-1]:
            inner = inner[key]
        inner.pop(place[-1]) if not to else inner.update({place[-1]: to["to"]})
        return value

    return edit


@pytest.mark.parametrize("kind", KINDS)
def test_whole_runs_answer(made, workspace, kind):
    """What is refused below is refused for its damage."""
    answers = answered(of_kind(made, kind), workspace)
    assert all(one.chosen in ("positive", "negative") for one in answers)
    assert all(sum(one.probabilities.values()) == pytest.approx(1) for one in answers)
    assert doctor.check_run(of_kind(made, kind)) == []


def in_tensors(data, rng):
    """A file of tensors in which one has another name or shape, under the same label."""
    names = ["x", "0.x", "1.weights", "prompts", "lm.x", "0.bias"]
    shapes = [lambda s: [*s, 1], lambda s: s[::-1], lambda s: [1, *s], lambda s: [-1], lambda s: [0, *s]]
    edits = [lambda: rename(rng.choice(names)), lambda: entry("shape", rng.choice(shapes))]
    return reheaded(data, rng.choice(edits)())


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_run_answers_or_is_refused(copy_of, workspace, kind, monkeypatch):
    """Each of many changes, sealed anew: loads and answers fail only by WeftError, with place and remedy."""
    monkeypatch.setattr(durable.os, "fsync", lambda handle: None)
    rng, crashed, unsaid, path = random.Random(f"{SEED} {kind}"), [], set(), copy_of(kind)
    whole = {name: (path / name).read_bytes() for name in [*storage.names(path), storage.MANIFEST]}
    read = ["result.json", *(name for name in whole if name == "notes.json" or "tensors" in name)]
    for _ in range(LOADS):
        name = rng.choice(read)
        data = whole[name]
        what, data = damaged(name, data, rng) if rng.random() < 0.6 else ("part", in_part(name, data, rng))
        put(path / name, data)
        reseal(path)
        try:
            answered(path, workspace)
        except WeftError as fault:
            unsaid |= without_remedy(fault)
        except Exception as error:
            crashed.append((name, what, data[-300:], repr(error)))
        for one in {name, storage.MANIFEST}:
            put(path / one, whole[one])
    assert (crashed, unsaid) == ([], set())
    answered(path, workspace)  # undamaged again


def in_part(name, data, rng):
    """A field of a JSON file, a name or shape of a file of tensors."""
    return with_other_field(data, rng) if name.endswith(".json") else in_tensors(data, rng)


@pytest.mark.parametrize("value", ["many", "7", "", -1, 0.5, True, None, [7], {}, 10**30])
@pytest.mark.parametrize("kind", ["tfidf", "prompt-tuning"])
def test_a_count_of_trained_numbers_is_a_count(copy_of, workspace, kind, value):
    """`result.json`: what a run kept is not read without it, and `doctor` finds the fault."""
    path = copy_of(kind)
    with_json(path, "result.json", changed("trained_parameters", to=value))
    with pytest.raises(ArtifactError, match="trained_parameters"):
        Run(path).saved()
    fault = refusal(path, workspace)
    assert (fault.where, fault.code) == (str(path / "result.json"), "A04")
    assert len(doctor.check_run(path)) == 1


ANSWERS, OTHERS = ["negative", "positive"], ["negative", "neither"]
NOTES = [
    ("tfidf", lambda notes: {}, "'gamma'"),
    ("tfidf", lambda notes: {"delta": notes["gamma"]}, "'gamma'"),
    ("tfidf", lambda notes: [notes], "object"),
    ("tfidf", changed("gamma", to=None), "gamma"),
    ("tfidf", changed("gamma", "answers"), "gamma.answers"),
    ("tfidf", changed("gamma", "answers", to="positive"), "gamma.answers"),
    ("tfidf", changed("gamma", "answers", to=[0, 1]), "gamma.answers.0"),
    ("tfidf", changed("gamma", "answers", to=OTHERS), "'neither'"),
    ("tfidf", changed("gamma", "answers", to=ANSWERS[:1]), "weights"),
    ("tfidf", changed("gamma", "answers", to=[*ANSWERS, "neither"]), "'neither'"),
    ("tfidf", changed("gamma", "answers", to=ANSWERS[:1] * 2), "twice"),
    ("tfidf", changed("gamma", "answers", to=[]), "weights"),
    ("tfidf", changed("gamma", "terms"), "gamma.terms"),
    ("tfidf", changed("gamma", "terms", to=None), "gamma.terms"),
    ("tfidf", changed("gamma", "terms", to=[]), "weights"),
    ("tfidf", changed("gamma", "terms", to=["film"]), "weights"),
    ("tfidf", lambda notes: changed("gamma", "terms", to=twice(notes["gamma"]["terms"]))(notes), "twice"),
    ("tfidf", lambda notes: changed("gamma", "terms", to=[*notes["gamma"]["terms"], "x"])(notes), "weights"),
    ("frozen-features", lambda notes: {}, "'gamma'"),
    ("frozen-features", changed("gamma", to=7), "gamma"),
    ("frozen-features", changed("gamma", "answers", to=OTHERS), "'neither'"),
    ("frozen-features", changed("gamma", "answers", to={}), "gamma.answers"),
    ("frozen-features", changed("gamma", "layer"), "gamma.layer"),
    ("frozen-features", changed("gamma", "layer", to="1"), "gamma.layer"),
    ("frozen-features", changed("gamma", "layer", to=-1), "gamma.layer"),
    ("frozen-features", changed("gamma", "layer", to=3), "layer 3"),
    ("frozen-features", changed("gamma", "layer", to=10**30), "layer 1000"),
    ("frozen-features", changed("gamma", "pooling", to="max"), "gamma.pooling"),
    ("frozen-features", changed("gamma", "pooling"), "gamma.pooling"),
    ("in-context", lambda notes: {}, "'gamma'"),
    ("in-context", lambda notes: None, "object"),
    ("in-context", changed("examples"), "'gamma'"),
    ("in-context", changed("examples", to=[]), "examples"),
    ("in-context", changed("examples", "gamma"), "'gamma'"),
    ("in-context", changed("examples", "gamma", to="x"), "examples.gamma"),
    ("in-context", changed("examples", "gamma", to=[["a film"]]), "examples.gamma.0"),
    ("in-context", changed("examples", "gamma", to=[["a film", "positive", "x"]]), "examples.gamma.0"),
    ("in-context", changed("examples", "gamma", to=[["a film", 1]]), "examples.gamma.0.1"),
    ("in-context", changed("examples", "gamma", to=[["a film", "neither"]]), "'neither'"),
    ("in-context", changed("examples", "gamma", to=[["", "positive"]]), "has no token"),
    ("in-context", changed("source_tokens", to="12"), "source_tokens"),
    ("in-context", changed("source_tokens", to=0), "source_tokens"),
    ("in-context", changed("source_tokens", to=-3), "source_tokens"),
]


def twice(terms):
    """As many terms, the last of them one that there is already."""
    return [*terms[:-1], terms[0]]


@pytest.mark.parametrize(("kind", "edit", "said"), NOTES)
def test_notes_that_do_not_fit_are_refused(copy_of, workspace, kind, edit, said):
    """Every way in which what a method noted can be other than it needs."""
    path = copy_of(kind)
    with_json(path, "notes.json", edit)
    assert said in refusal(path, workspace).cause


@pytest.mark.parametrize("kind", ["tfidf", "frozen-features", "in-context"])
def test_notes_that_are_gone_are_missed(copy_of, workspace, kind):
    """A manifest that does not name them, sealed anew."""
    path = copy_of(kind)
    (path / "notes.json").unlink()
    manifest = json.loads((path / storage.MANIFEST).read_bytes())
    del manifest["files"]["notes.json"]
    put(path / storage.MANIFEST, json.dumps(manifest).encode())
    assert "'gamma'" in refusal(path, workspace).cause


def without(name):
    return lambda tensors: tensors.pop(name)


def to(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name]).contiguous()})


def also(name):
    return lambda tensors: tensors.update({name: torch.ones(2)})


TENSORS = [
    ("tfidf", without("0.weights"), "0.weights"),
    ("tfidf", without("0.idf"), "0.idf"),
    ("tfidf", also("0.mean"), "0.mean"),
    ("tfidf", also("1.idf"), "1.idf"),
    ("tfidf", to("0.weights", lambda one: one.T), "0.weights"),
    ("tfidf", to("0.weights", lambda one: one[:, :-1]), "0.weights"),
    ("tfidf", to("0.weights", lambda one: one[None]), "0.weights"),
    ("tfidf", to("0.bias", lambda one: one[:1]), "0.bias"),
    ("tfidf", to("0.bias", lambda one: one[:, None]), "0.bias"),
    ("tfidf", to("0.idf", lambda one: one[:-1]), "0.idf"),
    ("tfidf", to("0.idf", lambda one: one[0]), "0.idf"),
    ("frozen-features", without("0.scale"), "0.scale"),
    ("frozen-features", also("x"), "needs 0.bias"),
    ("frozen-features", to("0.weights", lambda one: one[:, :1]), "0.weights"),
    ("frozen-features", to("0.bias", lambda one: one[:1]), "0.bias"),
    ("frozen-features", to("0.mean", lambda one: one[:1]), "0.mean"),
    ("frozen-features", to("0.scale", lambda one: one[None]), "0.scale"),
    ("frozen-features", to("0.scale", lambda one: 0 * one), "0.scale"),
    ("frozen-features", to("0.scale", lambda one: -one), "0.scale"),
    ("attempt", without("gain"), "gain"),
    ("attempt", to("sources", lambda one: one[..., :-1]), "sources"),
    ("dept", to("a", lambda one: one[..., :-1]), "'b'"),
    ("ulpt", to("draw", lambda one: one + 1), "drawn again"),
    ("ulpt", to("draw", lambda one: one - 7), "'draw'"),
    ("ulpt", to("draw", lambda one: one + 0.5), "'draw'"),
]


@pytest.mark.parametrize(("kind", "edit", "said"), TENSORS)
def test_tensors_that_do_not_fit_are_refused(copy_of, workspace, kind, edit, said):
    """Other names, shapes or values than the method needs, under the right label."""
    path = copy_of(kind)
    with_tensors(path, edit)
    assert said in refusal(path, workspace).cause


def test_examples_without_room_are_refused(copy_of, workspace):
    """As those of a run that is scored with longer texts are."""
    path = copy_of("in-context")
    with_json(path, "notes.json", changed("examples", "gamma", to=[["a film", "positive"]] * 40))
    with pytest.raises(WeftError, match="room for") as caught:
        answered(path, workspace)
    assert caught.value.fix


def test_answers_without_numbers_are_refused(copy_of, workspace):
    """A scale so small that features overflow is known by the first text alone; no answer is made up."""
    path = copy_of("frozen-features")
    with_tensors(path, to("0.scale", lambda one: 0 * one + 1e-44))
    with pytest.raises(WeftError, match="no numbers") as caught:
        answered(path, workspace)
    assert (caught.value.where, caught.value.exit_code) == ("task gamma", 6)


def test_weights_of_another_shape_are_refused(copy_of, workspace):
    """By the folder that holds them."""
    path = copy_of("lora")
    name = next(name for name in storage.names(path) if name.startswith("weights"))
    put(path / name, reheaded((path / name).read_bytes(), entry("shape", lambda shape: shape[::-1])))
    reseal(path)
    assert "not of" in refusal(path, workspace).cause
