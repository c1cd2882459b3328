"""Run folders: what names a run, how it is finished, and that what was changed afterwards is refused."""

import itertools
import json
import os
import re
from typing import Literal, get_args, get_origin

import pytest
import torch
from pydantic import BaseModel

from weft import runs, storage
from weft.config.task import HubConfig, TaskSpec
from weft.config.training import PromptConfig, TaskLimits
from weft.errors import ArtifactError, ResourceError, WeftError
from weft.methods.majority import Majority
from weft.methods.prompt_tuning import PromptTuning
from weft.runs import Run, config_file
from weft.runs.config import AdaptRun, EvaluateRun, SourceRun, TeacherRun
from weft.storage import durable

# Where things lie, how much memory they may take, and names of what is hashed by its content:
# these leave every number as it is. Everything else is part of a run's name.
CHANGES_NO_NUMBER = {
    "base.attention",
    "base.checkpointing",
    "base.model",
    "base.products",
    "base.revision",
    "base.sharded",
    "base.text_cache_mb",
    "distill.targets",
    "distill.targets_mb",
    "optim.micro_batch",
    "tasks.*.benchmark",
    "tasks.*.files",
    "tasks.*.folder",
    "tasks.*.hub",
    "tasks.*.in_data_root",
    "tasks.*.licence",
}
HASHES = {"a/train": "1" * 64, "b/train": "2" * 64}

SPEC = {
    "files": {"train": "train.csv"},
    "source": "{text}",
    "target": "{label}",
    "labels": {"0": "no", "1": "yes"},
    "references": "all",
    "metrics": ("f1_binary", "accuracy"),
    "positive": "yes",
    "folder": "/data",
}
COMMON = {
    "base": {"model": "some/model", "revision": "abc"},
    "prompt": {"init": "text", "init_text": "Answer:"},
    "limits": {"train_rows": 10, "dev_rows": 20, "test_rows": 30},
    "tasks": ({"name": "a", **SPEC}, {"name": "b", **SPEC}),
}
PROMPT_LR, BANK_LR = {"prompt": 0.1}, {"shared": 0.1, "factors": 0.2}


def optim(lr):
    """Settings of a training, every one of them set."""
    return {"lr": lr, "steps": 8, "micro_batch": 4, "eval_every": 2, "patience": 3}


CONFIGS = {
    "teachers": TeacherRun(**COMMON, optim=optim(PROMPT_LR)),
    "source": SourceRun(
        **COMMON,
        optim=optim(BANK_LR),
        teachers={"a": "run-a"},
        sampling={"kappa": 2},
        distill={"layers": (0, 2)},
    ),
    "adapt mpt": AdaptRun(
        **COMMON,
        optim=optim(BANK_LR),
        method={"name": "mpt"},
        source="run-s",
        teachers={"a": "run-a"},
        shots=4,
    ),
    "adapt prompt tuning": AdaptRun(**COMMON, optim=optim(PROMPT_LR), method={"name": "prompt_tuning"}),
    "evaluate": EvaluateRun(**COMMON, run="run-x", method={"name": "no_prompt"}),
}


PROMPTS = torch.arange(12.0).reshape(2, 2, 3)


def identity(config, base_hash="f" * 64, data_hashes=HASHES):
    """The identity of a run on some base model and data."""
    return runs.identity(config, base_hash=base_hash, data_hashes=data_hashes)


def choices(kind):
    """The values of a type with fixed choices, alone or in a union."""
    parts = [kind, *get_args(kind)]
    return [one for part in parts if get_origin(part) is Literal for one in get_args(part)]


def others(value, kind):
    """Values of a setting's type that differ from its value."""
    if choices(kind) and not isinstance(value, dict):
        return [one for one in choices(kind) if one != value]
    if value is None:
        return [{int: 1, str: "x", HubConfig: HubConfig(path="x", splits={})}[get_args(kind)[0]]]
    if value == ():
        return [("x",)]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1]
    if isinstance(value, str):
        return [f"{value}x"]
    if value == {}:
        return [{"a": TaskLimits(source_tokens=9) if TaskLimits in get_args(kind) else "run-x"}]
    if isinstance(value, dict):
        first, rest = next(iter(value)), dict(list(value.items())[1:])
        renamed = "dev" if first == "train" else f"{first}x"
        return [
            {**value, first: others(value[first], type(value[first]))[0]},
            {renamed: value[first], **rest},
            {**value, ("test" if first == "train" else "new"): value[first]},
        ]
    return [value[:-1], value[::-1], (*value, *value)]


def variants(config):
    """Every leaf of a configuration in turn: its dotted path, and a copy in which it alone differs."""
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            inner = variants(value)
            yield from ((f"{name}.{path}", config.model_copy(update={name: one})) for path, one in inner)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for path, one in variants(value[0]):
                yield f"{name}.*.{path}", config.model_copy(update={name: (one, *value[1:])})
        else:
            found = others(value, info.annotation)
            yield from ((name, config.model_copy(update={name: one})) for one in found)


CASES = [
    pytest.param(config, path, other, id=f"{kind}-{path}-{number}")
    for kind, config in CONFIGS.items()
    for path, group in itertools.groupby(variants(config), key=lambda pair: pair[0])
    for number, (_, other) in enumerate(group)
]


@pytest.mark.parametrize(("config", "path", "other"), CASES)
def test_identity_follows_every_setting_that_can_change_a_number(config, path, other):
    """Each setting alone: another value gives another identity, unless it is listed above as harmless."""
    assert config != other
    assert (identity(config) == identity(other)) == (path in CHANGES_NO_NUMBER)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_setting_is_tried(kind):
    """The test above leaves out no setting but the stage and the method's name, which have one value each."""

    def leaves(config):
        for name in type(config).model_fields:
            value = getattr(config, name)
            if isinstance(value, BaseModel):
                yield from (f"{name}.{path}" for path in leaves(value))
            elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
                yield from (f"{name}.*.{path}" for path in leaves(value[0]))
            else:
                yield name

    tried = {path for path, _ in variants(CONFIGS[kind])}
    assert set(leaves(CONFIGS[kind])) - tried <= {"stage", "method.name"}
    assert set(leaves(CONFIGS["source"])) >= CHANGES_NO_NUMBER
    assert len(tried) > 20


def test_identity_is_stable():
    """The same settings, data and model give the same identity, whatever the order of the hashes."""
    for config in CONFIGS.values():
        again = type(config).model_validate(config.model_dump())
        assert identity(config) == identity(again, data_hashes=dict(reversed(HASHES.items())))
        assert re.fullmatch("[0-9a-f]{64}", identity(config))


def test_a_source_stage_keeps_the_name_that_it_had():
    """Golden: as commit 1ea283f named it; keys that came later change nothing where they are unused."""
    spec = {"files": {"train": "train.csv"}, "source": "{text}", "target": "{label}"}
    spec["labels"] = {"0": "no", "1": "yes"}
    settings = {"teachers": {}, "optim": {"lr": BANK_LR, "steps": 8}}
    run = SourceRun(tasks=({"name": "a", **spec}, {"name": "b", **spec}), **settings)
    found = identity(run, base_hash="d" * 64)
    assert found == "0dc9309450a42ac0c1931172e45e8645542c32c9519b8f1b76bb9a75a575459c"


def test_identities_of_stages_and_methods_differ():
    """No two of the configurations above share a name."""
    adapt = CONFIGS["adapt mpt"]
    all_configs = [*CONFIGS.values(), adapt.model_copy(update={"method": PromptTuning(start="mean")})]
    assert len({identity(config) for config in all_configs}) == len(all_configs)


def test_identity_follows_the_data_and_the_base_model():
    """Other rows or other weights are another run."""
    config = CONFIGS["teachers"]
    assert identity(config) != identity(config, base_hash="e" * 64)
    assert identity(config) != identity(config, data_hashes={**HASHES, "a/train": "3" * 64})
    assert identity(config) != identity(config, data_hashes={**HASHES, "a/dev": "3" * 64})


def test_identity_follows_the_order_of_tasks():
    """The order of tasks is the order of the factors, and of the draws."""
    config = CONFIGS["source"]
    assert identity(config) != identity(config.model_copy(update={"tasks": config.tasks[::-1]}))


def test_identity_follows_the_order_of_labels():
    """Prompts may start from label words in their order, and ties between choices go to the first."""
    config = CONFIGS["teachers"]
    spec = config.tasks[0].model_copy(update={"labels": {"1": "yes", "0": "no"}})
    other = config.model_copy(update={"tasks": (spec, *config.tasks[1:])})
    assert identity(config) != identity(other)


def test_identity_leaves_the_configuration_as_it_is():
    """Naming a run changes nothing in it."""
    for config in CONFIGS.values():
        before = config.model_dump_json()
        identity(config)
        assert config.model_dump_json() == before


# names


def named(stage, names, **settings):
    """A run configuration of some tasks."""
    tasks = tuple(TaskSpec(name=name, source="x", target="y") for name in names)
    return stage(tasks=tasks, **settings)


LR, BANK = optim(PROMPT_LR), optim(BANK_LR)
LONG = [f"task-{i:02}" for i in range(8)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (named(TeacherRun, ["banking"], optim=LR), "teachers-banking-s0"),
        (named(TeacherRun, ["banking"], optim=LR, seed=7), "teachers-banking-s7"),
        (named(SourceRun, ["a", "b"], teachers={}, optim=BANK), "source-a+b-s0"),
        (named(SourceRun, LONG, teachers={}, optim=BANK), "source-8tasks-s0"),
        (named(AdaptRun, ["banking"], method={"name": "mpt"}, optim=BANK), "adapt-mpt-banking-s0"),
        (named(AdaptRun, ["a"], method={"name": "prompt_tuning"}, optim=LR), "adapt-prompt-tuning-a-s0"),
        (named(EvaluateRun, ["a"], method={"name": "no_prompt"}), "evaluate-no-prompt-a-s0"),
        (named(EvaluateRun, ["a"], run="adapt-mpt-a-s0-12345678"), "evaluate-a-s0"),
    ],
)
def test_run_is_named_by_stage_tasks_seed_and_identity(config, expected):
    """`<stage>-<what>-s<seed>-<8 hex>`, short enough for a folder, and without odd signs."""
    name = runs.run_id(config, "0123456789abcdef" * 4)
    assert name == f"{expected}-01234567"
    assert re.fullmatch(r"[a-z0-9+._-]{1,100}", name)


# folders


@pytest.fixture
def config():
    """A small run: prompts of two tasks, two tokens each."""
    return CONFIGS["adapt prompt tuning"].model_copy(update={"prompt": PromptConfig(length=2)})


RESULT = {"tasks": ["a", "b"], "steps": 4, "best_step": 2, "parameters_per_task": 6.0, "dev": 1.5}
RESULT["rows"] = {"a": {"train": 8}, "b": {"train": 8}}


def finished(root, config, name="adapt-mpt-a-s0-12345678"):
    """A finished run with a result and prompts."""
    with runs.create(root, name, config, {"base_hash": "f"}) as run:
        run.write_json("result.json", RESULT)
        run.write("metrics.jsonl", '{"step": 1}\n')
        run.save_tensors({"prompts": PROMPTS})
    return run


def interrupted(root, name, config, error=RuntimeError):
    """A run that ends with an error after its result was written."""
    with runs.create(root, name, config, {}) as run:
        run.write_json("result.json", {})
        raise error("stop")


def test_finished_run_holds_its_files_and_what_they_say(tmp_path, config):
    """A run comes back from its folder: configuration, environment, result and prompts."""
    made = finished(tmp_path, config)
    run = Run(tmp_path / made.id)
    assert run.done
    assert run.config() == config
    assert type(run.config()) is AdaptRun
    assert run.result() == RESULT
    assert torch.equal(run.tensors()["prompts"], PROMPTS)
    assert run.lines("metrics.jsonl") == [{"step": 1}]
    env = storage.read_json(run.path / "env.json")
    assert env["base_hash"] == "f"
    assert env["versions"]["torch"] == torch.__version__
    assert storage.verify(run.path) == []
    assert set(storage.read_json(run.path / storage.MANIFEST)["files"]) == {
        "config.yaml",
        "env.json",
        "metrics.jsonl",
        "prompts.safetensors",
        "result.json",
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_configuration_comes_back_from_the_folder(tmp_path, kind):
    """Every stage's configuration reads back equal, and so does the order of its labels."""
    with runs.create(tmp_path, "run", CONFIGS[kind], {}) as run:
        pass
    again = Run(run.path).config()
    assert again == CONFIGS[kind]
    assert identity(again) == identity(CONFIGS[kind])
    assert list(again.tasks[0].labels) == list(CONFIGS[kind].tasks[0].labels)


def test_manifest_is_written_last(tmp_path, config, monkeypatch):
    """Nothing is written after the manifest, so a folder with one is whole."""
    written = []
    real = os.replace

    def replace(source, target):
        written.append(os.path.basename(target))  # noqa: PTH119
        real(source, target)

    monkeypatch.setattr(durable.os, "replace", replace)
    finished(tmp_path, config)
    assert written[:2] == ["env.json", "config.yaml"]
    assert written[-1] == storage.MANIFEST
    assert written.count(storage.MANIFEST) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ResourceError])
def test_error_leaves_the_run_unfinished(tmp_path, config, error):
    """A run that fails or is stopped has no manifest, and its lock is free for the next try."""
    with pytest.raises(error):
        interrupted(tmp_path, "run", config, error)
    run = Run(tmp_path / "run")
    assert not run.done
    for read in (run.result, run.tensors, run.check_done):
        with pytest.raises(ArtifactError, match="not finished"):
            read()
    with runs.create(tmp_path, "run", config, {}) as again:
        again.write_json("result.json", RESULT)
    assert again.result() == RESULT


def test_a_finished_run_is_not_opened_again(tmp_path, config):
    """What is finished stays as it is; who wanted to fill the folder is told."""
    run = finished(tmp_path, config, "run")
    before = (run.path / "manifest.json").read_bytes()
    with pytest.raises(ResourceError, match="finished this run meanwhile"):
        interrupted(tmp_path, "run", config)
    assert (run.path / "manifest.json").read_bytes() == before


def test_leftovers_of_a_killed_run_are_swept(tmp_path, config):
    """Temporary files of an interrupted write are gone when the run is done again."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"{storage.TEMPORARY}0-result.json").write_bytes(b"half")
    with runs.create(tmp_path, "run", config, {}) as run:
        pass
    assert not list(run.path.glob(f"{storage.TEMPORARY}*"))


def test_run_that_is_worked_on_is_refused(tmp_path, config):
    """Two processes never fill one folder."""
    with (
        runs.create(tmp_path, "run", config, {}),
        pytest.raises(ResourceError, match="in use"),
        runs.create(tmp_path, "run", config, {}),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "read"), [("result.json", Run.result), ("prompts.safetensors", Run.tensors)]
)
def test_changed_file_of_a_finished_run_is_refused(tmp_path, config, name, read):
    """One bit of a result or a prompt changed afterwards: refused, with the file's name."""
    run = finished(tmp_path, config)
    path = run.path / name
    data = path.read_bytes()
    place = data.index(b"1.5") if name == "result.json" else len(data) - 2
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(ArtifactError) as caught:
        read(run)
    assert (caught.value.where, caught.value.code) == (str(path), "A01")


def test_missing_prompts_are_refused(tmp_path, config):
    """An evaluation has no prompts; a run whose prompts were deleted is damaged."""
    run = finished(tmp_path, config)
    (run.path / "prompts.safetensors").unlink()
    with pytest.raises(ArtifactError, match="SHA-256"):
        run.tensors()
    with runs.create(tmp_path, "empty", config, {}) as empty:
        pass
    with pytest.raises(ArtifactError, match="without its prompts or weights"):
        empty.tensors()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_prompts_that_are_no_numbers_are_refused(tmp_path, config, value):
    """A prompt with NaN or infinity in it is not handed on."""
    with runs.create(tmp_path, "run", config, {}) as run:
        run.save_tensors({"prompts": torch.full((2, 2, 3), value)})
    with pytest.raises(ArtifactError) as caught:
        run.tensors()
    assert caught.value.code == "A05"


def test_prompts_that_are_views_are_saved_whole(tmp_path, config):
    """A transposed tensor reads back equal."""
    value = torch.arange(12.0).reshape(2, 3, 2).mT
    with runs.create(tmp_path, "run", config, {}) as run:
        run.save_tensors({"prompts": value})
    assert torch.equal(run.tensors()["prompts"], value)


@pytest.mark.parametrize(
    "text",
    [
        "stage: teachers\n",
        "stage: cooking\n",
        "{}\n",
        "stage: adapt\ntasks: 3\n",
        "a: [1\n",
        "title: 2020-01-01\n",
    ],
)
def test_folder_with_another_configuration_is_an_artifact_error(tmp_path, text):
    """A configuration of another version, or a broken one, is a damaged folder (exit code 4)."""
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(WeftError) as caught:
        Run(tmp_path).config()
    assert caught.value.exit_code == 4
    assert str(tmp_path) in caught.value.where


def test_a_configuration_is_read_once_for_its_bytes(tmp_path, config, monkeypatch):
    """An experiment asks its runs again and again; what the folder holds now is what counts."""
    read, plain = [], config_file._plain
    monkeypatch.setattr(config_file, "_plain", lambda data, path: read.append(data) or plain(data, path))
    run, other = finished(tmp_path, config), config.model_copy(update={"seed": 4711})
    config_file._parsed.cache_clear()
    read.clear()
    assert run.config() == Run(run.path).config() == config
    assert len(read) == 1
    changed = finished(tmp_path, other, "adapt-mpt-a-s4711-12345678")
    assert (changed.config(), len(read)) == (other, 2)


def test_folder_without_configuration_is_no_run(tmp_path):
    """Any other folder is refused by name."""
    with pytest.raises(ArtifactError, match=r"no config\.yaml"):
        Run(tmp_path).config()


# logs


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "{", '{"step": 3}', '{"name": "ä'])
def test_torn_last_line_is_left_out(tmp_path, torn):
    """The log of a run that was killed reads up to its last whole line, wherever the last one was torn."""
    whole = '{"step": 1}\n{"step": 2, "text": "a\u2028b"}\n'.encode()
    data = torn.encode()
    for length in range(len(data) + 1):
        (tmp_path / "metrics.jsonl").write_bytes(whole + data[:length])
        assert Run(tmp_path).lines("metrics.jsonl") == [{"step": 1}, {"step": 2, "text": "a\u2028b"}]


def test_log_that_is_not_there_has_no_lines(tmp_path):
    """A run that has not begun has no lines."""
    assert Run(tmp_path).lines("metrics.jsonl") == []
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    assert Run(tmp_path).lines("metrics.jsonl") == []


# finding


def test_run_is_found_by_id_and_by_folder(tmp_path, config, monkeypatch):
    """A run has two names: its id under the folder of runs, and its path."""
    made = finished(tmp_path / "runs", config)
    assert runs.find(tmp_path / "runs", made.id).path == made.path
    assert runs.find(tmp_path / "elsewhere", str(made.path)).path == made.path
    monkeypatch.chdir(tmp_path)
    assert runs.find(tmp_path / "elsewhere", f"runs/{made.id}").id == made.id


def test_unknown_run_says_which_one_is_near(tmp_path, config):
    """A misspelt id names the nearest run; no run at all is said, too."""
    made = finished(tmp_path, config)
    with pytest.raises(ArtifactError) as caught:
        runs.find(tmp_path, made.id.replace("8", "9"))
    assert caught.value.fix == f"did you mean {made.id!r}?"
    assert (caught.value.where, caught.value.code) == (str(tmp_path), "C12")
    with pytest.raises(ArtifactError) as caught:
        runs.find(tmp_path / "none", "x")
    assert caught.value.fix == "known: none"


def test_unfinished_run_is_refused(tmp_path, config):
    """A run without manifest is found and refused, with what to do."""
    with pytest.raises(RuntimeError):
        interrupted(tmp_path, "run", config)
    with pytest.raises(ArtifactError) as caught:
        runs.find(tmp_path, "run")
    assert (caught.value.cause, caught.value.where) == ("the run is not finished", str(tmp_path / "run"))
    assert caught.value.fix == "run the same command again to finish it"


def test_finished_runs_are_listed_by_name(tmp_path, config):
    """Unfinished runs and other folders are left out."""
    for name in ("b", "a"):
        finished(tmp_path, config, name)
    with pytest.raises(RuntimeError):
        interrupted(tmp_path, "c", config)
    (tmp_path / "notes").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / storage.MANIFEST).write_text(json.dumps({"files": {}}), encoding="utf-8")
    assert [run.id for run in runs.finished(tmp_path)] == ["a", "b"]


def test_majority_needs_no_run():
    """The stage of an evaluation without a run is named by its method."""
    config = CONFIGS["evaluate"].model_copy(update={"run": None, "method": Majority()})
    assert runs.run_id(config, "0" * 64) == "evaluate-majority-a+b-s0-00000000"
