"""Weights that are laid out once: the library's numbers but for the last digits, and nothing else changes."""

import gc
import json

import numpy as np
import pytest
import torch
from conftest import EVERY_BACKBONE, build_backbone
from test_choices import batch_of, loss_and_gradient
from tiny_job import write_job
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from weft import stages
from weft.methods.full import FullFineTuning
from weft.models import packed as packed_module
from weft.models.backbone import HiddenSpec
from weft.models.measuring import Choice, fastest
from weft.models.packed import LARGEST, Packed, is_packed, pack, probe_products
from weft.runs.config import AdaptRun, EvaluateRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.tasks import named

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Tasks and an encoder-decoder on disk."""
    folder = tmp_path_factory.mktemp("packed")
    write_job(folder, "t5", "prefix")
    return folder


def teacher_run(job, base=None, seed=0):
    spec = named(["tasks"], job)["alpha"]
    values = {"model": str(job / "base"), "dtype": "float32", "attention": "eager", **(base or {})}
    optim = {"lr": {"prompt": 0.1}, "steps": 2, "batch_size": 6, "micro_batch": 6}
    return TeacherRun(base=values, prompt={"length": 3}, tasks=(spec,), optim=optim, seed=seed)


def choose(monkeypatch, name):
    """Let the machine measure that these products are the fastest; counts how often it is asked."""
    asked = []

    def probe(*_):
        asked.append(name)
        return Choice(name, {name: 1.0})

    monkeypatch.setattr("weft.models.machine.probe_products", probe)
    return asked


def env(run):
    return json.loads((run.path / "env.json").read_text("utf-8"))


# numbers


@pytest.mark.parametrize("shape", [(5,), (1, 5), (37, 5), (3, 4, 5), (0, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_those_of_numpy(shape, bias):
    """Rows times weights in float64, and the gradient's way back; rows of any shape, side by side or not."""
    draw = torch.Generator().manual_seed(len(shape))
    layer = nn.Linear(5, 19, bias=bias).requires_grad_(False)
    rows = torch.randn(shape, generator=draw).requires_grad_()
    weight, upstream = layer.weight.double().numpy(), torch.randn(*shape[:-1], 19, generator=draw)
    expected = rows.detach().double().numpy() @ weight.T + (layer.bias.double().numpy() if bias else 0)
    out = Packed(layer)(rows)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(out, rows, upstream)
    np.testing.assert_allclose(gradient.numpy(), upstream.double().numpy() @ weight, rtol=1e-5, atol=1e-6)


def test_rows_that_do_not_lie_side_by_side():
    """A transposed view gives what its copy gives."""
    packed, rows = Packed(nn.Linear(6, 4)), torch.randn(3, 6, 5).transpose(1, 2)
    torch.testing.assert_close(packed(rows), packed(rows.contiguous()))


@pytest.mark.parametrize("name", EVERY_BACKBONE)
def test_a_packed_model_says_the_same(name, rows):
    """Of every family: loss, gradient, scores and written answers."""
    backbone = build_backbone(name)
    batch = batch_of(backbone, rows)
    choices, found = [(3, 1), (4, 5, 1)], []
    for _ in range(2):
        state = backbone.read(batch.sources)
        context = backbone.begin(backbone.read(batch.sources), None)
        scores = backbone.score(context, choices)
        written = backbone.generate(context, 5)
        spec = HiddenSpec("all", prompt_positions=True)
        found.append((*loss_and_gradient(backbone, state, batch, hidden=spec), scores, written))
        pack(backbone.lm)
    assert is_packed(backbone.lm)
    assert found[0][-1] == found[1][-1]
    for plain, packed in zip(found[0][:-1], found[1][:-1], strict=True):
        torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-5)


def test_packing_leaves_the_weights_alone():
    """Names, bytes and the number of parameters: hashes, exports and checks see no difference."""
    backbone = build_backbone("t5")
    before, names = backbone.weights_hash(), [name for name, _ in backbone.lm.named_parameters()]
    assert not is_packed(backbone.lm)
    pack(backbone.lm)
    assert (backbone.weights_hash(), [name for name, _ in backbone.lm.named_parameters()]) == (before, names)


def test_layers_of_another_kind_are_left_alone():
    """A layer that does more than a product keeps doing it."""

    class Twice(nn.Linear):
        def forward(self, rows):
            return 2 * super().forward(rows)

    model = nn.Sequential(Twice(3, 3), nn.Linear(3, 3))
    pack(model)
    assert [isinstance(layer.forward, Packed) for layer in model] == [False, True]


def test_the_second_layout_is_made_once_and_only_for_gradients(monkeypatch):
    """Who only answers pays for one layout; who trains, for two."""
    made, layer = [], nn.Linear(4, 6).requires_grad_(False)
    laid_out = packed_module.laid_out
    monkeypatch.setattr(packed_module, "laid_out", lambda weight: made.append(weight) or laid_out(weight))
    packed, rows = Packed(layer), torch.randn(2, 4, requires_grad=True)
    with torch.no_grad():
        packed(rows)
    assert len(made) == 1
    for _ in range(3):
        packed(rows).sum().backward()
    assert len(made) == 2


def test_a_step_keeps_no_copy_of_rows():
    """Frozen weights need no gradient, so a product keeps nothing of its rows until the backward pass."""
    packed = Packed(nn.Linear(64, 64).requires_grad_(False))
    rows = (torch.randn(256, 64, requires_grad=True) * 1.5).sin()
    out = packed(rows)
    gc.collect()
    assert out.grad_fn.saved_tensors == ()


@pytest.mark.parametrize("name", ["t5", "llama-prefix"])
def test_operations_are_counted_alike(name, rows):
    """Who counts operations, such as the choice of how teachers' targets are made, sees the same number."""
    backbone, counts = build_backbone(name), []
    batch = batch_of(backbone, rows)
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            loss_and_gradient(backbone, backbone.read(batch.sources), batch)
        counts.append(counter.get_total_flops())
        pack(backbone.lm)
    assert counts[0] == counts[1] > 0


# the choice


def test_both_ways_are_measured_for_real():
    """In float32 on a processor; the seeds of training stay as they were."""
    before = torch.get_rng_state()
    found = probe_products(32, 1000, CPU, torch.float32)
    assert set(found.milliseconds) == {"library", "packed"}
    assert all(number > 0 for number in found.milliseconds.values())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("share", "name"), [(0.5, "packed"), (0.97, "library"), (2.0, "library")])
def test_memory_is_spent_only_where_it_pays(monkeypatch, share, name):
    """A gain of a few percent is not worth twice the weights."""
    times = {"library": 1.0, "packed": share}
    monkeypatch.setattr(packed_module, "fastest", lambda ways: Choice(min(times, key=times.get), times))
    assert probe_products(32, 1000, CPU, torch.float32) == Choice(name, times)


@pytest.mark.parametrize(
    ("size", "device", "dtype"),
    [
        (LARGEST + 1, "cpu", torch.float32),
        (1000, "cuda", torch.float32),
        (1000, "cpu", torch.bfloat16),
    ],
)
def test_what_is_the_librarys_affair(monkeypatch, size, device, dtype):
    """Large models, accelerators and 16-bit weights are measured by nobody."""
    monkeypatch.setattr(packed_module, "fastest", lambda ways: pytest.fail("measured"))
    assert probe_products(32, size, torch.device(device), dtype) == Choice("library", {})


def test_the_first_round_of_a_measurement_does_not_count():
    """It warms up."""
    rounds = {"slow": iter([0.0, *[1.0] * 40]), "quick": iter([9.0, *[0.5] * 40])}
    found = fastest({name: lambda times=times: next(times) for name, times in rounds.items()})
    assert found == Choice("quick", {"slow": 1000.0, "quick": 500.0})


def test_products_are_chosen_once_for_a_folder_of_runs(job, tmp_path, monkeypatch):
    """Later processes, other seeds and the scores of a run keep to it, whatever would be measured now."""
    asked = choose(monkeypatch, "packed")
    config, workspace = teacher_run(job), Workspace(tmp_path)
    run = stages.perform(config, workspace)
    assert is_packed(workspace.backbone(config).lm)
    assert (asked, env(run)["products"]) == (["packed"], "packed")
    choose(monkeypatch, "library")
    assert Workspace(tmp_path).products(teacher_run(job, seed=1)) == "packed"
    (tmp_path / ".experiments" / workspace.machine.times.name).unlink()
    later = Workspace(tmp_path)
    scored = EvaluateRun(base=config.base, prompt=config.prompt, tasks=config.tasks, run=run.id)
    assert later.products(config) == later.products(scored) == "packed"
    assert later.products(teacher_run(job, seed=1)) == "library"
    assert env(stages.perform(scored, later))["products"] == "packed"
    assert is_packed(later.backbone(scored).lm)
    assert not is_packed(later.backbone(teacher_run(job, seed=1)).lm)  # one workspace serves both


def test_training_is_the_same_but_for_last_digits(job, tmp_path):
    """A teacher under either choice."""
    prompts = []
    for products in ("library", "packed"):
        config, workspace = teacher_run(job, {"products": products}), Workspace(tmp_path / products)
        run = stages.perform(config, workspace)
        workspace.check_frozen()
        prompts.append(next(iter(run.tensors().values())))
    torch.testing.assert_close(prompts[0], prompts[1], rtol=1e-4, atol=1e-4)


def test_weights_that_are_trained_are_never_laid_out(job, tmp_path, monkeypatch):
    """Full fine-tuning, its scores too, even where it is asked for."""
    choose(monkeypatch, "packed")
    teacher = teacher_run(job, {"products": "packed"})
    shared = {"base": teacher.base, "prompt": teacher.prompt, "tasks": teacher.tasks}
    optim = {"lr": {"model": 1e-3}, "steps": 2, "batch_size": 6}
    workspace = Workspace(tmp_path)
    trained = stages.perform(AdaptRun(**shared, method=FullFineTuning(), optim=optim), workspace)
    scored = stages.perform(EvaluateRun(**shared, run=trained.id), workspace)
    assert env(trained)["products"] == env(scored)["products"] == "library"


def test_a_run_of_before_there_was_a_choice_keeps_the_librarys(job, tmp_path, monkeypatch):
    """It was begun with it, and ends with the same bits."""
    choose(monkeypatch, "packed")
    workspace, config = Workspace(tmp_path), teacher_run(job)
    folder = workspace.run(config).path
    folder.mkdir()
    (folder / "env.json").write_text('{"dtype": "float32", "attention": "eager"}', "utf-8")
    assert workspace.products(config) == "library"


def test_a_run_that_was_packed_elsewhere_is_read_without(job, tmp_path, monkeypatch):
    """On an accelerator, or with a torch that lacks oneDNN, the library's products do."""
    config = teacher_run(job, {"products": "packed"})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not is_packed(Workspace(tmp_path).backbone(config).lm)


def test_a_pinned_choice_is_measured_by_nobody(job, tmp_path, monkeypatch):
    """A setting comes before any measurement, and does not change a run's name."""
    asked = choose(monkeypatch, "library")
    config, workspace = teacher_run(job, {"products": "packed"}), Workspace(tmp_path)
    assert is_packed(workspace.backbone(config).lm)
    assert asked == []
    assert workspace.run_id(config) == workspace.run_id(teacher_run(job))
