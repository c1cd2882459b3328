"""What a run folder holds is believed only where all of it agrees: damage and mix-ups are refused."""

import copy
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import sys
import zipfile
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import torch
from conftest import build_lm, build_tokenizer
from reference.make_format_1 import TEXTS
from safetensors.numpy import save_file
from test_end_to_end import command

from weft import runs, storage
from weft.checks import doctor
from weft.config.task import TaskSpec
from weft.data.batch import collate
from weft.errors import ArtifactError, WeftError
from weft.interop import peft_adapter
from weft.models import embedding_hash
from weft.models.base_folder import describe
from weft.models.text_cache import TextCache
from weft.runs import Run, config_file, parents, tensor_file
from weft.runs.config import AdaptRun, SourceRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.storage import durable, tensor_header

FIXTURE = Path(__file__).parent / "fixtures" / "format-1"
TRIALS, SEED = 10_000, 20261121
LENGTH, WIDTH = 3, 4
ENV = {"base": "made up", "base_hash": "b" * 64, "embedding_hash": "e" * 64, "tokenizer_hash": "t" * 64}


def spec(name, **settings):
    """A closed task."""
    return TaskSpec(name=name, source="{text}", target="{y}", labels={"0": "no", "1": "yes"}, **settings)


def optim(*groups):
    return {"lr": dict.fromkeys(groups, 0.1), "steps": 2}


COMMON = {"prompt": {"length": LENGTH}}
TEACHERS = {
    f"teachers-{name}-s0": TeacherRun(**COMMON, tasks=(spec(name),), optim=optim("prompt"))
    for name in ("alpha", "beta")
}
BANK = SourceRun(
    **COMMON,
    tasks=(spec("alpha"), spec("beta")),
    teachers={"alpha": "teachers-alpha-s0", "beta": "teachers-beta-s0"},
    optim=optim("shared", "factors"),
)
FULL = AdaptRun(**COMMON, tasks=(spec("alpha"),), method={"name": "full"}, optim=optim("model"))


@pytest.fixture(autouse=True, scope="module")
def quick_disk():
    """These folders need not outlive a power cut, and there are many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable.os, "fsync", lambda handle: None)
        yield


def write_run(root, name, config, tensors):
    with runs.create(root, name, config, ENV) as run:
        names = [task.name for task in config.tasks]
        result = {"steps": 2, "best_step": 2, "parameters_per_task": 12.0, "dev": None, "tasks": names}
        run.write_json("result.json", {**result, "rows": {name: {"train": 8} for name in names}})
        run.write_json("timing.json", {"seconds": 1.5})
        run.save_tensors(tensors)
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two teachers, a bank and a fully tuned model, with random numbers in them."""
    root, draw = tmp_path_factory.mktemp("made"), torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(shape, generator=draw)  # noqa: E731
    for name, config in TEACHERS.items():
        write_run(root, name, config, {"prompts": normal(1, LENGTH, WIDTH)})
    bank = {"shared": normal(LENGTH, WIDTH), "u": normal(2, LENGTH, 1), "v": normal(2, 1, WIDTH)}
    write_run(root, "source-alpha+beta-s0", BANK, bank)
    weights = {"lm.a.weight": normal(2, 3), "lm.b.weight": normal(4).bfloat16()}
    write_run(root, "adapt-full-alpha-s0", FULL, weights)
    return root


@pytest.fixture
def quick_yaml(monkeypatch):
    """Reading the same bytes of YAML again gives the same; it is the slowest part by far."""
    monkeypatch.setattr(config_file, "_plain", cache(config_file._plain))


@pytest.fixture
def root(made, tmp_path):
    """The same folders, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


# what is written


def test_a_label_says_what_made_the_tensors(made):
    """Every entry of a bank's label, against values that are written out or made here in another way."""
    data = (made / "source-alpha+beta-s0" / "prompts.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    found = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["weft"])
    sha = lambda text: hashlib.sha256(text.encode()).hexdigest()  # noqa: E731
    text = sha('{"format":"plain","source":"{text}","target":"{y}"}')
    answers = sha('[["0","no"],["1","yes"]]')
    assert found == {
        "format": 1,
        "run": "source-alpha+beta-s0",
        "kind": "bank",
        "method": "source",
        "length": LENGTH,
        "width": WIDTH,
        "rank": 1,
        "tasks": [{"name": name, "text": text, "answers": answers} for name in ("alpha", "beta")],
        "base": ENV,
        "parents": ["teachers-alpha-s0", "teachers-beta-s0"],
    }


def test_tensors_come_back(made):
    """All kinds read back; weights lie in a file of their own."""
    draw = torch.Generator().manual_seed(1)
    first = torch.randn(1, LENGTH, WIDTH, generator=draw)
    assert torch.equal(Run(made / "teachers-alpha-s0").tensors()["prompts"], first)
    assert Run(made / "source-alpha+beta-s0").tensors().keys() == {"shared", "u", "v"}
    full = Run(made / "adapt-full-alpha-s0")
    assert full.tensors()["lm.b.weight"].dtype == torch.bfloat16
    assert "weights.safetensors" in storage.names(full.path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["t5", "llama", "gpt2"])
def test_embedding_hash_is_that_of_the_matrix(tmp_path, family, dtype):
    """The hash, read from the file alone, equals that of the loaded model's matrix as fp32."""
    lm = build_lm(family).to(dtype)
    lm.save_pretrained(tmp_path)
    matrix = lm.get_input_embeddings().weight.detach().float().numpy()
    assert (
        embedding_hash.embedding_hash(tmp_path) == hashlib.sha256(matrix.astype("<f4").tobytes()).hexdigest()
    )


def test_tokenizer_hash_follows_the_tokenizer_alone(tmp_path):
    """Another word changes it; other weights do not, and change the embedding hash."""
    hashes = []
    for number, (seed, other) in enumerate(((3, False), (9, False), (3, True))):
        folder = tmp_path / str(number)
        build_lm("llama", seed=seed).save_pretrained(folder)
        build_tokenizer(ends_texts=other).save_pretrained(folder)
        base = describe("x", folder, "x")
        hashes.append((base.tokenizer_hash, base.embedding_hash, base.hash))
    first, weights, words = hashes
    assert (weights[0] == first[0], weights[1] == first[1], weights[2] == first[2]) == (True, False, False)
    assert (words[0] == first[0], words[1] == first[1], words[2] == first[2]) == (False, True, False)


# forgery: parts of a file, and whole files


def split(data):
    """Header and numbers of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header, numbers):
    """A safetensors file, from a header as text or as a value."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + numbers


def put(path, data):
    """Write a file anew; writing over one waits for the disk on some systems."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def reseal(folder):
    """Make the manifest agree with the files, as a forger would."""
    files = {}
    for name in json.loads((folder / "manifest.json").read_bytes())["files"]:
        data = (folder / name).read_bytes()
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    put(folder / "manifest.json", json.dumps({"files": files}).encode())


class Canary:
    """A pickle of this makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, (CANARY,)


CANARY = f"{gettempdir()}/weft-canary-{os.getpid()}"


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../escape", b"0" * 10_000)
    return stream.getvalue()


def relabelled(data, **changes):
    """The file with another label."""
    header, numbers = split(data)
    label = {**json.loads(header["__metadata__"]["weft"]), **changes}
    header["__metadata__"] = {"weft": json.dumps(label, sort_keys=True, separators=(",", ":"))}
    return join(header, numbers)


def with_value(data, value, at):
    """The file with one number overwritten."""
    header, numbers = split(data)
    at = at % (len(numbers) // 4) * 4
    return join(header, numbers[:at] + struct.pack("<f", value) + numbers[at + 4 :])


def reheaded(data, edit):
    """The file with an edited header."""
    header, numbers = split(data)
    edit(header)
    return join(header, numbers)


def entry(key, value):
    """An edit of one tensor's line."""

    def edit(header):
        name = next(name for name in header if name != "__metadata__")
        old = copy.deepcopy(header[name][key])
        header[name][key] = value(old) if callable(value) else value

    return edit


def rename(name):
    def edit(header):
        header[name] = header.pop(next(key for key in header if key != "__metadata__"))

    return edit


def add(header):
    last = max(line["data_offsets"][1] for key, line in header.items() if key != "__metadata__")
    header["extra"] = {"dtype": "F32", "shape": [1], "data_offsets": [last - 4, last]}


def twice(data):
    header, numbers = split(data)
    text = json.dumps(header).encode()
    name = next(key for key in header if key != "__metadata__")
    again = f', "{name}": {json.dumps(header[name])}}}'.encode()
    return join(text[:-1] + again, numbers)


def bomb(data):
    return join(b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}", split(data)[1])


def crowd(data):
    header, numbers = split(data)
    line = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return join({**header, **{f"t{i}": line for i in range(2_000)}}, numbers)


SHAPES = [
    lambda s: [*s, 1],
    lambda s: s[::-1],
    lambda s: [-1, *s[1:]],
    lambda s: [0, *s[1:]],
    lambda s: [2**62, *s[1:]],
    lambda s: [float(s[0]), *s[1:]],
    lambda s: [True, *s[1:]],
    lambda s: [str(s[0]), *s[1:]],
    lambda s: [],
    lambda s: None,
    lambda s: [[1]],
    lambda s: [1] * 40_000,
    lambda s: [10**4000, *s[1:]],
]
OFFSETS = [
    lambda o: [o[0] + 4, o[1]],
    lambda o: [o[0], o[1] - 4],
    lambda o: [o[0], o[1] + 4],
    lambda o: [-4, o[1]],
    lambda o: [o[1], o[0]],
    lambda o: [2**63, 2**63 + o[1]],
    lambda o: [float(o[0]), o[1]],
    lambda o: [False, o[1]],
    lambda o: [*o, o[1]],
    lambda o: [o[0]],
    lambda o: "0,4",
]
FORGED = {  # kind -> (file, random number, another run's file) -> another file, sealed as if it were right
    "shape": lambda d, n, o: reheaded(d, entry("shape", SHAPES[n % len(SHAPES)])),
    "offsets": lambda d, n, o: reheaded(d, entry("data_offsets", OFFSETS[n % len(OFFSETS)])),
    "dtype": lambda d, n, o: reheaded(
        d, entry("dtype", ["F16", "F64", "I32", "U8", "f32", "", 3, None, ["F32"]][n % 9])
    ),
    "line": lambda d, n, o: reheaded(d, lambda h: h.update({"prompts": [[], 3, None, {}, "x"][n % 5]})),
    "name": lambda d, n, o: reheaded(d, rename(["x", "../x", "lm.x", "", "prompt", "é" * 300][n % 6])),
    "added": lambda d, n, o: reheaded(d, add),
    "twice": lambda d, n, o: twice(d),
    "bomb": lambda d, n, o: bomb(d),
    "crowd": lambda d, n, o: crowd(d),
    "no numbers": lambda d, n, o: with_value(d, [float("nan"), float("inf"), -float("inf")][n % 3], n),
    "huge": lambda d, n, o: with_value(d, [3e38, -1e7, 2e6][n % 3], n),
    "cut": lambda d, n, o: d[: n % len(d)],
    "longer": lambda d, n, o: d + bytes([n % 256]) * (1 + n % 9),
    "length": lambda d, n, o: (
        [0, 1, 2**63, len(d), len(d) - 8, 2**64 - 1][n % 6].to_bytes(8, "little") + d[8:]
    ),
    "header bit": lambda d, n, o: flip(d, n % (8 * (len(d) - len(split(d)[1])))),
    "swapped": lambda d, n, o: o,
    "swapped numbers": lambda d, n, o: relabelled(
        o, **[{"run": "x"}, {"parents": []}, {"kind": "soft"}][n % 3]
    ),
    "pickle": lambda d, n, o: pickle.dumps(Canary(), n % 6),
    "pickle inside": lambda d, n, o: join(pickle.dumps(Canary()), split(d)[1]),
    "pickle behind": lambda d, n, o: d + pickle.dumps(Canary()),
    "zip": lambda d, n, o: zipped(),
    "zip behind": lambda d, n, o: d + zipped(),
    "no label": lambda d, n, o: reheaded(
        d, lambda h: h.update({"__metadata__": [{}, None, [], {"weft": 3}, {"weft": "{}", "a": "b"}][n % 5]})
    ),
    "label": lambda d, n, o: relabelled(
        d,
        **{
            ["run", "kind", "method", "length", "width", "rank", "tasks", "base", "parents"][n % 9]: VALUES[
                n % 7
            ]
        },
    ),
    "format": lambda d, n, o: relabelled(d, format=[2, 0, True, "1", None, 10**9, 1.0][n % 7]),
    "task": lambda d, n, o: relabelled(d, tasks=[{"name": f"t{n}"}]),
    "not text": lambda d, n, o: join(bytes((n + i * 7) % 256 for i in range(64)), split(d)[1]),
    "utf-16": lambda d, n, o: join(json.dumps(split(d)[0]).encode("utf-16-le"), split(d)[1]),
}
VALUES = [None, 7, -1, True, "x", [9], {"a": [1e300]}]
DAMAGED = {  # the same without a new seal
    "bit": lambda d, n, o: flip(d, n % (8 * len(d))),
    "cut": FORGED["cut"],
    "longer": FORGED["longer"],
    "empty": lambda d, n, o: b"",
    "swapped": FORGED["swapped"],
    "zeros": lambda d, n, o: d[: n % (len(d) - 8)] + b"\1" * 8 + d[n % (len(d) - 8) + 8 :],
}


def flip(data, bit):
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


BAD_ROWS = [
    {"bytes": True, "sha256": "0" * 64},
    {"bytes": -1, "sha256": "0" * 64},
    {"bytes": 1.5, "sha256": "0" * 64},
    {"bytes": 10**15, "sha256": "0" * 64},
    {"bytes": "9", "sha256": "0" * 64},
    {"bytes": 9, "sha256": "0" * 63},
    {"bytes": 9, "sha256": 7},
    {"bytes": 9},
    {"bytes": 9, "sha256": "0" * 64, "path": "/etc/passwd"},
    None,
    [],
]
PATHS = [
    "../x",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "",
    "a\\b",
    "C:x",
    "a\0b",
    "x" * 300,
    "%2e%2e",
    "é",
    "~",
    "-x",
]


def forged_manifest(text, n):
    """A manifest with a name that leads elsewhere, a row of the wrong form, or no manifest at all."""
    content = json.loads(text)
    row = content["files"]["prompts.safetensors"]
    if n % 4 == 0:
        content["files"][PATHS[n // 4 % len(PATHS)]] = row
    elif n % 4 == 1:
        content["files"]["prompts.safetensors"] = BAD_ROWS[n // 4 % len(BAD_ROWS)]
    elif n % 4 == 2:
        whole = json.dumps(content)
        return [whole[:-2], "", "[]", "[" * 50_000, whole + "x", whole[:-1] + ', "files": {}}', "\ud800"][
            n // 4 % 7
        ].encode("utf-8", "surrogatepass")
    else:
        content["files"] = [content["files"], list(content["files"]), None, 3, {}][1 + n // 4 % 4]
    return json.dumps(content).encode()


OTHER_FILES = {  # name -> content and random number -> another content, sealed as if it were right
    "env.json": lambda d, n: [
        d.replace(b'"format": 1', b'"format": 2'),
        d.replace(b'"format": 1', b'"format": 0'),
        d.replace(b'"format": 1', b'"format": true'),
        d.replace(b"alpha", b"beta"),
        d.replace(b"e" * 64, b"f" * 64),
        b"[]",
        b"",
        b"[" * 100_000,
        d[: n % (len(d) - 2)],
    ][n % 9],
    "config.yaml": lambda d, n: [
        d.replace(b"length: 3", b"length: 4"),
        d.replace(b"name: alpha", b"name: beta"),
        d.replace(b"yes", b"right"),
        d.replace(b"'{text}'", b"'{text} x'"),
        b"stage: evaluate\n",
        b"a: &a [1, 1]\nb: &b [*a, *a]\nstage: *b\n",
        f"!!python/object/apply:os.mkdir [{CANARY}]".encode(),
        b"- 1",
        b"\xff",
        b"a: " + b"[" * 500,
        b"",
    ][n % 11],
}


def trial(rng, files, other):
    """One folder's content that must be refused, and what was done to it."""
    data, n = files["prompts.safetensors"], rng.getrandbits(40)
    what = rng.choices(["damaged", "forged", "manifest", *OTHER_FILES], [30, 55, 10, 3, 2])[0]
    if what == "manifest":
        return what, {"manifest.json": forged_manifest(files["manifest.json"], n)}, False
    if what in OTHER_FILES:
        return what, {what: OTHER_FILES[what](files[what], n)}, True
    kinds = DAMAGED if what == "damaged" else FORGED
    kind = rng.choice(sorted(kinds))
    return f"{what}: {kind}", {"prompts.safetensors": kinds[kind](data, n, other)}, what == "forged"


watched, seen = [], []


def watch(event, arguments):
    """Note every file that is opened, and every class that a pickle asks for, while somebody watches."""
    if watched and event in ("open", "pickle.find_class", "os.mkdir", "exec", "subprocess.Popen"):
        seen.append((event, arguments[0]))


def events(action):
    """What an action opened and ran."""
    if watch not in watched:
        sys.addaudithook(watch)
    seen.clear()
    watched[:] = [watch]
    try:
        action()
    finally:
        watched.clear()
    return list(seen)


def test_the_watch_sees_files_and_pickles(tmp_path):
    """The watch below is not blind."""
    (tmp_path / "a").write_bytes(pickle.dumps(Path("x")))
    found = events(lambda: pickle.loads((tmp_path / "a").read_bytes()))
    assert ("pickle.find_class", "pathlib") in found
    assert any(event == "open" and str(path) == str(tmp_path / "a") for event, path in found)


def test_ten_thousand_bad_artifacts_are_refused(root, quick_yaml):
    """None loads, none fails otherwise than by ArtifactError, none opens a file elsewhere or unpickles."""
    rng = random.Random(SEED)
    subjects = []
    for name, rival in (
        ("teachers-alpha-s0", "teachers-beta-s0"),
        ("source-alpha+beta-s0", "teachers-beta-s0"),
    ):
        path = root / name
        whole = {file.name: file.read_bytes() for file in path.iterdir()}
        subjects.append((path, whole, (root / rival / "prompts.safetensors").read_bytes()))
        Run(path).tensors()  # imports are done before the watch begins
    assert "x".encode("utf-16-le")  # loads the codec
    loaded, crashed = [], []

    def all_trials():
        for _ in range(TRIALS):
            path, whole, other = rng.choice(subjects)
            what, changed, sealed = trial(rng, whole, other)
            if all(whole[name] == data for name, data in changed.items()):
                continue
            for name, data in changed.items():
                put(path / name, data)
            if sealed:
                reseal(path)
            try:
                Run(path).tensors()
                loaded.append(what)
            except ArtifactError:
                pass
            except Exception as error:
                crashed.append((what, repr(error)))
            for name in (*changed, "manifest.json"):
                put(path / name, whole[name])

    found = events(all_trials)
    assert (loaded, crashed) == ([], [])
    opened = {str(place) for event, place in found if event == "open" and not isinstance(place, int)}
    assert opened
    assert {place for place in opened if not place.startswith(str(root))} == set()
    assert [event for event in found if event[0] != "open"] == []
    assert not Path(CANARY).exists()
    for path, _, _ in subjects:
        Run(path).tensors()  # undamaged again


def test_every_flipped_bit_is_refused(root, quick_yaml):
    """Each bit of a prompt file: refused. Every third of its header, sealed again: refused all the same."""
    path = root / "teachers-alpha-s0"
    whole, manifest = (path / runs.TENSORS).read_bytes(), (path / storage.MANIFEST).read_bytes()
    loaded = []
    for bit in range(8 * len(whole)):
        put(path / runs.TENSORS, flip(whole, bit))
        for sealed in (False, True):
            if sealed and (bit % 3 or bit >= 8 * (len(whole) - len(split(whole)[1]))):
                continue
            if sealed:
                reseal(path)
            try:
                Run(path).tensors()
                loaded.append((bit, sealed))
            except ArtifactError:
                pass
        put(path / storage.MANIFEST, manifest)
    assert loaded == []


CASES = [
    ("damaged", "bit", 9_000, "A01", "SHA-256"),
    ("forged", "no numbers", 0, "A05", "no numbers"),
    ("forged", "huge", 2, "A06", "2e+06"),
    ("forged", "shape", 1, "A07", "[4, 3, 1]"),
    ("forged", "twice", 0, "A04", "twice"),
    ("forged", "bomb", 0, "A04", "too deep"),
    ("forged", "longer", 1, "A04", "are there"),
    ("forged", "swapped", 0, "A14", "teachers-beta-s0"),
    ("forged", "format", 0, "A20", "format 2"),
    ("forged", "no label", 0, "A20", "does not say"),
]


@pytest.mark.parametrize(("what", "kind", "n", "code", "words"), CASES)
def test_refusals_say_why(root, what, kind, n, code, words):
    """The code of the catalogue, the file, and the value that is wrong."""
    path = root / "teachers-alpha-s0"
    other = (root / "teachers-beta-s0" / runs.TENSORS).read_bytes()
    forge = (DAMAGED if what == "damaged" else FORGED)[kind]
    (path / runs.TENSORS).write_bytes(forge((path / runs.TENSORS).read_bytes(), n, other))
    if what == "forged":
        reseal(path)
    with pytest.raises(ArtifactError) as caught:
        Run(path).tensors()
    assert (caught.value.code, caught.value.where) == (code, str(path / runs.TENSORS))
    assert words in caught.value.cause
    assert caught.value.fix


def test_tensors_that_share_bytes_are_refused_by_ourselves(made, monkeypatch):
    """Two tensors on the same bytes, and bytes that belong to none, without the help of safetensors."""
    monkeypatch.setattr("safetensors.torch.load", lambda data: {})
    header, numbers = split((made / "source-alpha+beta-s0" / runs.TENSORS).read_bytes())
    tensor_file.read(join(header, numbers), runs.TENSORS, "here")
    size = header["u"]["data_offsets"][1] - header["u"]["data_offsets"][0]
    header["u"]["data_offsets"] = [0, size]
    with pytest.raises(ArtifactError, match="belong to no tensor, or to two") as caught:
        tensor_file.read(join(header, numbers), runs.TENSORS, "here")
    assert caught.value.code == "A04"


def test_large_files_are_not_read(root):
    """A manifest that announces more than a prompt can be is refused before a byte is read."""
    path = root / "teachers-alpha-s0"
    content = json.loads((path / storage.MANIFEST).read_bytes())
    content["files"][runs.TENSORS]["bytes"] = (64 << 20) + 1
    (path / storage.MANIFEST).write_text(json.dumps(content), "utf-8")
    (path / runs.TENSORS).unlink()
    with pytest.raises(ArtifactError) as caught:
        Run(path).tensors()
    assert caught.value.code == "A03"


def test_weights_are_not_taken_for_prompts(root):
    """A model's weights under the name of prompts, and the other way round: refused."""
    for name in ("teachers-alpha-s0", "adapt-full-alpha-s0"):
        other = {"teachers-alpha-s0": "adapt-full-alpha-s0"}.get(name, "teachers-alpha-s0")
        file = runs.TENSORS if name.startswith("teachers") else tensor_header.WEIGHTS
        source = tensor_header.WEIGHTS if file == runs.TENSORS else runs.TENSORS
        before = (root / name / file).read_bytes()
        (root / name / file).write_bytes((root / other / source).read_bytes())
        reseal(root / name)
        with pytest.raises(ArtifactError) as caught:
            Run(root / name).tensors()
        assert caught.value.code == "A04"
        (root / name / file).write_bytes(before)
        reseal(root / name)


def test_a_composed_prompt_is_bounded_too(root):
    """Factors that are sane alone and not together."""
    bank = {"shared": torch.full((LENGTH, WIDTH), 9e5), "u": torch.full((2, LENGTH, 1), 9e5)}
    run = write_run(root, "huge", BANK, {**bank, "v": torch.ones(2, 1, WIDTH)})
    with pytest.raises(ArtifactError, match=r"shared \* \(u v\)") as caught:
        run.tensors()
    assert caught.value.code == "A06"


READS = {
    "config.yaml": Run.config,
    "env.json": Run.env,
    "result.json": Run.result,
    runs.TENSORS: Run.tensors,
    storage.MANIFEST: Run.result,
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_links_pipes_and_folders_are_refused(root, name, kind):
    """Only ordinary files are read, without waiting for a pipe's other end."""
    path = root / "teachers-alpha-s0"
    moved = (path / name).rename(root / "elsewhere")
    {
        "link": lambda: (path / name).symlink_to(moved),
        "pipe": lambda: os.mkfifo(path / name),
        "folder": (path / name).mkdir,
    }[kind]()
    with pytest.raises(ArtifactError) as caught:
        READS[name](Run(path))
    assert caught.value.code == "A13" or (name == storage.MANIFEST and kind != "link")
    assert doctor.check_run(path)


def test_a_link_says_that_it_is_one(root):
    """The code of the catalogue and the file."""
    path = root / "teachers-alpha-s0" / runs.TENSORS
    path.rename(root / "elsewhere")
    path.symlink_to(root / "elsewhere")
    with pytest.raises(ArtifactError) as caught:
        Run(path.parent).tensors()
    assert (caught.value.code, caught.value.where) == ("A13", str(path))


@pytest.mark.parametrize("name", ["config.yaml", "env.json", "metrics.jsonl"])
def test_every_file_is_read_as_it_was_sealed(root, name):
    """Settings, machine and log of a finished run, changed afterwards: refused by name."""
    with runs.create(root, "run", TEACHERS["teachers-alpha-s0"], ENV) as run:
        run.write("metrics.jsonl", '{"step": 1}\n')
    read = {"config.yaml": run.config, "env.json": run.env}.get(name, lambda: run.lines("metrics.jsonl"))
    read()
    (run.path / name).write_bytes((run.path / name).read_bytes().replace(b"1", b"2"))
    with pytest.raises(ArtifactError) as caught:
        read()
    assert (caught.value.code, caught.value.where) == ("A01", str(run.path / name))


def test_settings_with_references_are_refused(root):
    """References can unfold to any size; weft writes none, so none are read."""
    path = root / "teachers-alpha-s0"
    text = (path / "config.yaml").read_text("utf-8").replace("dropout: false", "dropout: &f false")
    (path / "config.yaml").write_text(text.replace("in_data_root: false", "in_data_root: *f"), "utf-8")
    reseal(path)
    with pytest.raises(ArtifactError) as caught:
        Run(path).config()
    assert caught.value.code == "A20"


def test_a_folder_under_another_name_is_refused(root):
    """A teacher's whole folder in the place of another's."""
    shutil.rmtree(root / "teachers-beta-s0")
    (root / "teachers-alpha-s0").rename(root / "teachers-beta-s0")
    for read in ("env", "config", "result", "tensors"):
        with pytest.raises(ArtifactError, match="'teachers-alpha-s0'") as caught:
            getattr(Run(root / "teachers-beta-s0"), read)()
        assert caught.value.code == "A14"


def test_a_newer_format_names_the_version_it_needs(root):
    """Settings, results and prompts of a later format are refused before they are read."""
    path = root / "teachers-alpha-s0"
    env = json.loads((path / "env.json").read_bytes())
    (path / "env.json").write_text(json.dumps({**env, "format": 2}), "utf-8")
    (path / "config.yaml").write_text("a setting of the future: 1\n", "utf-8")
    reseal(path)
    for read in ("env", "config", "result", "tensors"):
        with pytest.raises(ArtifactError, match="needs a version of weft that reads format 2") as caught:
            getattr(Run(path), read)()
        assert caught.value.code == "A20"
    assert "format 2" in doctor.check_run(path)[0]


# format 1 is read by all later versions


@pytest.fixture
def old(tmp_path):
    """The folders that format 1 was fixed with, and the place they were made in."""
    shutil.copytree(FIXTURE, tmp_path / "old")
    with chdir(tmp_path / "old"):
        yield tmp_path / "old"


@pytest.fixture
def workspace(old):
    """A workspace over those folders."""
    return Workspace(Path("finished"), Path("data"))


GOLDEN = json.loads((FIXTURE / "golden.json").read_text("utf-8")) if FIXTURE.exists() else {}


@pytest.mark.parametrize("name", GOLDEN)
def test_runs_of_format_1_answer_as_they_did(workspace, name, monkeypatch):
    """Every logit of every task; how texts are kept, and rounded, is no matter of format."""
    monkeypatch.setattr(TextCache, "_kept", lambda self, source: None)
    monkeypatch.setattr(TextCache, "_rounded", lambda self, row: row)
    answerer = parents.load(runs.find(workspace.root, name), workspace)
    model, tasks = answerer.model, answerer.tasks
    assert [task.name for task in tasks] == list(GOLDEN[name])
    for number, task in enumerate(tasks):
        rows = [model.backbone.encode(text, task.choices[0]) for text in TEXTS]
        with torch.no_grad():
            logits = model(collate(rows, [number] * len(rows))).logits
        golden = torch.tensor(GOLDEN[name][task.name])
        far = (logits - golden).abs().max() / golden.abs().max()  # another processor's float32 made the file
        assert far < 1e-5


def test_folders_of_format_1_are_whole(old, workspace, capsys):
    """All stages and kinds are there, `doctor` finds no fault, scores and answers read."""
    stages = sorted(run.config().stage for run in runs.finished(workspace.root))
    assert stages == ["adapt", "adapt", "adapt", "evaluate", "source", "teachers", "teachers"]
    assert sorted(GOLDEN) == sorted(
        run.id for run in runs.finished(workspace.root) if run.config().stage != "evaluate"
    )
    assert command("doctor", "finished") == 0
    assert capsys.readouterr().out.count("whole") == 7
    scored = next(run for run in runs.finished(workspace.root) if run.config().stage == "evaluate")
    assert scored.result()["scores"]["gamma"]["metrics"]["accuracy"] is not None
    assert len(scored.lines("predictions.jsonl")) == 6


def one(workspace, start):
    return next(run for run in runs.finished(workspace.root) if run.id.startswith(start))


def other_base(old, *, weights=False, words=False):
    """Change the base model in place: its embeddings, or its tokenizer."""
    if weights:
        from safetensors.numpy import load_file

        tensors = load_file(old / "base" / "model.safetensors")
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] + np.float32(1e-3)
        save_file(tensors, old / "base" / "model.safetensors", {"format": "pt"})
    if words:
        text = (old / "base" / "tokenizer.json").read_text("utf-8")
        (old / "base" / "tokenizer.json").write_text(text.replace('"film"', '"movie"'), "utf-8")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [({"weights": True}, "A08", "base model"), ({"words": True}, "A09", "tokenizer")],
)
def test_another_base_is_refused_by_name(old, change, code, words):
    """Same name, same width, other embeddings or other words; `doctor` says so, too."""
    fresh = Workspace(Path("finished"), Path("data"))
    run = one(fresh, "adapt-mpt")
    trained_on = run.env()["embedding_hash" if "weights" in change else "tokenizer_hash"]
    other_base(old, **change)
    with pytest.raises(ArtifactError, match=words) as caught:
        parents.load(run, fresh)
    assert caught.value.code == code
    here = fresh.base(run.config())
    now = here.embedding_hash if "weights" in change else here.tokenizer_hash
    assert trained_on[:12] in caught.value.cause
    assert now[:12] in caught.value.cause
    assert code in doctor.check_run(run.path)[0]
    assert command("doctor", "finished") == 4


def test_a_parent_of_another_base_is_refused(old):
    """A teacher's prompt for another model of the same width: the codes of configuration."""
    shutil.copytree(old / "base", old / "other")
    fresh = Workspace(Path("finished"), Path("data"))
    config = one(fresh, "source").config()
    for change, code in (({"weights": True}, "C13"), ({"words": True}, "C14")):
        shutil.copytree(old / "other", old / "base", dirs_exist_ok=True)
        (old / "base").rename(old / "kept")
        shutil.copytree(old / "kept", old / "base")
        other_base(old, **change)
        (old / "base").rename(old / "changed")
        (old / "kept").rename(old / "base")
        child = config.model_copy(update={"base": config.base.model_copy(update={"model": "changed"})})
        with pytest.raises(ArtifactError) as caught:
            parents.check_fit(one(fresh, "teachers-alpha"), child, Workspace(Path("finished"), Path("data")))
        assert caught.value.code == code
        shutil.rmtree(old / "changed")


def changed_task(config, **changes):
    first, *rest = config.tasks
    return config.model_copy(update={"tasks": (first.model_copy(update=changes), *rest)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "text: {text}"}, "text: {text}"),
        ({"labels": {"y": "yes", "n": "never"}}, "never"),
        ({"labels": {"n": "no", "y": "yes"}}, "answer words"),
        ({"answers": "digits"}, "'1'"),
    ],
)
def test_a_parent_with_other_texts_is_refused(workspace, changes, words):
    """Teacher and source, for a task of the same name: C14, with both sides in the message."""
    for parent, child in (("teachers-alpha", "source"), ("source", "source")):
        config = changed_task(one(workspace, child).config(), **changes)
        with pytest.raises(ArtifactError, match="alpha") as caught:
            parents.load(one(workspace, parent), workspace, config)
        assert caught.value.code == "C14"
        assert words in caught.value.cause
        assert "{text}" in caught.value.cause or "no" in caught.value.cause
    adapt = one(workspace, "adapt-mpt").config()
    with pytest.raises(ArtifactError, match="gamma"):
        parents.load(
            one(workspace, "adapt-mpt"),
            workspace,
            changed_task(one(workspace, "evaluate").config(), source="other {text}"),
        )
    assert parents.load(one(workspace, "source"), workspace, adapt)


def test_a_prompt_of_another_place_is_refused(workspace):
    """Prompts that were trained after the text do not serve before it."""
    config = one(workspace, "source").config()
    prefix = config.model_copy(update={"prompt": config.prompt.model_copy(update={"position": "prefix"})})
    with pytest.raises(ArtifactError, match="suffix, and here it is prefix") as caught:
        parents.load(one(workspace, "teachers-alpha"), workspace, prefix)
    assert caught.value.code == "C15"


def test_an_exploded_prompt_is_refused(workspace):
    """A thousand times the size of embeddings is what stops training; such a prompt is not read either."""
    run = one(workspace, "teachers-alpha")
    header, numbers = split((run.path / runs.TENSORS).read_bytes())
    values = np.frombuffer(numbers, "<f4")
    for factor, refused in ((1.0, False), (5e3, True)):
        (run.path / runs.TENSORS).write_bytes(join(header, (values * np.float32(factor)).tobytes()))
        reseal(run.path)
        if refused:
            with pytest.raises(ArtifactError) as caught:
                parents.load(run, workspace)
            assert caught.value.code == "A06"
        else:
            parents.load(run, workspace)


def test_exports_hold_the_prompt_alone(workspace, tmp_path):
    """The adapter for PEFT has no label of ours, and refuses a suffix prompt as before."""
    with pytest.raises(WeftError, match="before the text"):
        peft_adapter.to_peft(one(workspace, "adapt-mpt").id, "gamma", tmp_path, workspace)


# doctor


def test_doctor_says_what_is_wrong(root, capsys):
    """One line for each run; exit code 4 where one is not whole."""
    assert command("doctor", root / "teachers-alpha-s0") == 0
    assert command("doctor", root) == 0
    assert capsys.readouterr().out.count(": whole") == 1 + 4
    (root / "teachers-alpha-s0" / "manifest.json").unlink()
    (root / "teachers-beta-s0" / "notes.txt").write_text("mine", "utf-8")
    (root / "source-alpha+beta-s0" / "result.json").unlink()
    path = root / "adapt-full-alpha-s0"
    env = json.loads((path / "env.json").read_bytes())
    del env["run"]
    (path / "env.json").write_text(json.dumps(env), "utf-8")
    reseal(path)
    assert command("doctor", root) == 4
    out, err = capsys.readouterr()
    found = dict(line.split(": ", 1) for line in out.strip().splitlines())
    assert found["teachers-alpha-s0"] == "not finished: run the same command again to finish it"
    assert found["teachers-beta-s0"] == "notes.txt is not a file of the run: delete it"
    assert (
        found["source-alpha+beta-s0"] == "result.json is missing or changed: delete the folder and run again"
    )
    assert "A20" in found["adapt-full-alpha-s0"]
    assert "before format 1" in found["adapt-full-alpha-s0"]
    assert "4 of 4 runs" in err


def test_doctor_refuses_other_folders(tmp_path):
    """Neither a run nor a folder of runs."""
    with pytest.raises(ArtifactError, match="not the folder of a run"):
        doctor.check(tmp_path)
