"""Frozen layers spread over processes: the same numbers, a part of the weights in each."""

import json

import pytest
import torch
from several import alone, together
from test_parallel import close, gradients, student
from test_teaching import drawn_rows
from tiny_job import SHORT, write_job

from weft import stages
from weft.config.files import load_config
from weft.data.batch import collate
from weft.errors import ConfigError, UnsupportedError
from weft.experiments import jobs
from weft.experiments.config import Experiment
from weft.models.memory import checkpoint_layers
from weft.models.sharding import own_part, shard_layers
from weft.runs.config import AdaptRun, SourceRun, TeacherRun
from weft.runs.workspace import Workspace

NAMES = ("t5", "llama-prefix", "gpt2-prefix")


def spread(group, name, *, double=True, checkpointing=False):
    """A bank on a backbone whose layers are spread."""
    model = student(name, double=double)
    if checkpointing:
        checkpoint_layers(model.backbone.lm)
    shard_layers(model.backbone.lm, torch.device("cpu"))
    model.backbone.sharded = True
    return model


def sizes(lm):
    """Numbers in the layers, and in all else, that this process holds."""
    parts = {True: 0, False: 0}
    for name, value in lm.named_parameters():
        parts[any(piece.isdigit() for piece in name.split("."))] += own_part(value).numel()
    return parts[True], parts[False]


def logits(group, name):
    """Of a batch, and how much of the model each process holds."""
    model = spread(group, name)
    before = model.backbone.weights_hash()
    with torch.no_grad():
        found = model(collate(drawn_rows(3), [0, 1, 0])).logits
    return found, sizes(model.backbone.lm), before == model.backbone.weights_hash()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_whole_model(name):
    """To the last bit, of a model in float64; each process holds about half of the layers, and all else."""
    model = student(name, double=True)
    with torch.no_grad():
        wanted = model(collate(drawn_rows(3), [0, 1, 0])).logits
    layers, rest = sizes(model.backbone.lm)
    found = together(2, logits, name)
    for mine, (own, other), unchanged in found:
        assert torch.equal(mine, wanted)
        assert 0.45 * layers <= own <= 0.55 * layers
        assert other == rest
        assert unchanged
    assert sum(own for _, (own, _), _ in found) == layers


def stepped(group, name, rows, checkpointing):
    """Gradients of a step on some rows, one at a time in memory."""
    import test_parallel

    made = spread(group, name, checkpointing=checkpointing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_parallel, "student", lambda name, double: made)
        [(found, line)] = gradients(group, name, (rows,), True)
    return found, line


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("name", NAMES[:2])
def test_gradients_are_those_of_one_process(name, checkpointing):
    """Of 5 rows, of which one process has fewer parts than the other, and of 1, where one has none."""
    tolerance = 1e-12 if name != "t5" else 1e-4  # T5 norms in float32
    for rows in (5, 1):
        [(wanted, line)] = alone(gradients, name, (rows,), True)
        for found, said in together(2, stepped, name, rows, checkpointing):
            for group, values in wanted.items():
                for ours, theirs in zip(found[group], values, strict=True):
                    close(ours, theirs, tolerance)
            assert said["loss"] == pytest.approx(line["loss"], rel=1e-6)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Runs of a small experiment with prompts before the text."""
    text = SHORT.replace("{base}, dtype", "{base}, sharded: true, dtype").replace("steps: 2", "steps: 8")
    text += (
        "  - {{label: SPoT, method: {{name: prompt_tuning, start: nearest}}, "
        "optim: {{lr: {{prompt: 0.1}}, steps: 8, batch_size: 5, eval_every: 4}}}}\n"
        "  - {{label: LoRA, method: {{name: lora}}, optim: {{lr: {{lora: 0.1}}, steps: 2, batch_size: 5}}}}\n"
    )
    config = load_config(
        write_job(tmp_path_factory.mktemp("sharded"), "llama", "prefix", text), Experiment, {}
    )
    return jobs.plan(config, jobs.specs_of(config), Workspace(tmp_path_factory.mktemp("none")).run_id).jobs


def perform(group, root, config):
    """A run, and the layers of its model that this process holds."""
    workspace = Workspace(root, group=group)
    stages.perform(config, workspace)
    workspace.check_frozen()
    [backbone] = workspace._backbones.values()
    return sizes(backbone.lm)


def test_a_run_of_two_processes_has_a_part_of_the_layers_in_each(plan, tmp_path):
    """A teacher: the prompt within 1e-6 of one process, the same name, and dev rows judged on the way."""
    config = next(one.config for one in plan if isinstance(one.config, TeacherRun))
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"eval_every": 4})})
    layers, rest = alone(perform, tmp_path / "one", config)
    found = together(2, perform, tmp_path / "two", config)
    assert sum(own for own, _ in found) == layers
    assert {other for _, other in found} == {rest}
    ours, theirs = (Workspace(tmp_path / name).run(config) for name in ("two", "one"))
    assert ours.id == theirs.id
    torch.testing.assert_close(ours.tensors()["prompts"], theirs.tensors()["prompts"], rtol=0, atol=1e-6)
    lines = [json.loads(line) for line in (ours.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "dev" in line] == [4, 8]


def test_what_runs_a_model_unequally_is_refused(plan, tmp_path):
    """Distillation, methods that change weights, and prompts after the text, before any weights load."""
    workspace = Workspace(tmp_path)
    distils = next(one.config for one in plan if isinstance(one.config, SourceRun))
    changes = next(
        one.config for one in plan if isinstance(one.config, AdaptRun) and one.config.method.name == "lora"
    )
    teacher = next(one.config for one in plan if isinstance(one.config, TeacherRun))
    for config in (distils, changes):
        with pytest.raises(UnsupportedError, match="does not go with layers that are spread"):
            workspace.position(config)
    after = teacher.model_copy(update={"prompt": teacher.prompt.model_copy(update={"position": "suffix"})})
    with pytest.raises(ConfigError, match="cached texts do not go with layers"):
        workspace.position(after)
    assert workspace.position(teacher) == "prefix"
    assert not stages.can_share(teacher)
