"""What a step computes, counted: matrix products, rows of the output matrix, tensors kept for backward.

Counts, not times, so that nothing here depends on the machine. A linear map of N weights costs 2N operations
a token forward, and 2N for the gradient of its input; a gradient of its weights would cost 2N more.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from weft.config.training import DistillConfig
from weft.data.batch import Encoded, collate
from weft.evaluation import answering
from weft.losses.distillation import distillation_loss
from weft.losses.objective import Totals, lm_loss
from weft.models.tuned import with_bank, with_prompts
from weft.prompts.bank import PromptBank
from weft.tasks import Task

ROOT = Path(__file__).parents[1]
PROMPT = 4
LINEAR = (torch.ops.aten.mm, torch.ops.aten.addmm)
NAMES = ["t5", "llama-prefix", "llama-suffix", "gpt2-prefix", "gpt2-suffix", "qwen2-suffix"]
SUFFIXES = ["llama-suffix", "gpt2-suffix", "qwen2-suffix"]
INNER = ("down_proj", "Attention.q", "mlp.c_proj")  # maps whose input nothing else keeps for backward


def rows(length, count=3):
    """Rows of one text length, with targets of unlike length."""
    targets = [(5, 6, 1), (7, 1), (1,)]
    return [Encoded(tuple(range(3, 3 + length)), targets[i % 3]) for i in range(count)]


def batch_of(length=6, tasks=(0, 1, 0)):
    """A batch of rows of two tasks."""
    return collate(rows(length, len(tasks)), list(tasks))


def student(backbone, tasks=2):
    """A bank with two tasks."""
    draw = torch.Generator().manual_seed(1)
    shared = torch.randn(PROMPT, backbone.width, generator=draw)
    u, v = torch.ones(tasks, PROMPT, 1), torch.ones(tasks, 1, backbone.width)
    return with_bank(backbone, PromptBank(shared, u, v, tuple("ab"[:tasks])))


def teacher(backbone, tasks=2):
    """Plain prompts for the same tasks."""
    draw = torch.Generator().manual_seed(2)
    start = torch.randn(tasks, PROMPT, backbone.width, generator=draw)
    return with_prompts(backbone, start, tuple(f"task-{k}" for k in range(tasks)))


def linear_flops(work):
    """Operations of the products with weights; attention has products of another kind."""
    with FlopCounterMode(display=False) as counter:
        work()
    return sum(counter.get_flop_counts()["Global"].get(op, 0) for op in LINEAR)


def step(model, batch, loss=lm_loss):
    """Forward and backward of a step."""
    value, _ = loss(model, batch, Totals(len(batch.sources), batch.target_tokens))
    value.backward()


def weights(module):
    """Number of weights of the linear maps of a module."""
    return sum(
        value.numel()
        for name, value in module.named_parameters()
        if value.dim() == 2 and "relative" not in name and "embed" not in name
    )


def forward_weights(backbone, batch):
    """Weights that take part in a forward pass, each counted once for every token it meets."""
    count, targets = batch.labels.shape
    texts = sum(map(len, batch.sources))
    head = backbone.lm.get_output_embeddings().weight.numel() * count * targets
    if backbone.name == "t5":
        inside, written = texts + count * PROMPT, count * targets
        cross = [block.layer[1].EncDecAttention for block in backbone.lm.decoder.block]
        crossed = sum(weights(one.k) + weights(one.v) for one in cross)
        decoder = sum(map(weights, backbone.lm.decoder.block)) - crossed
        return (
            sum(map(weights, backbone.lm.encoder.block)) * inside
            + decoder * written
            + crossed * inside
            + head
        )
    blocks = backbone.lm.base_model.h if "gpt2" in backbone.name else backbone.lm.base_model.layers
    read = 0 if "suffix" in backbone.name else texts
    return sum(map(weights, blocks)) * (read + count * (PROMPT + targets - 1)) + head


def without_gradient(backbone, batch):
    """The same for maps whose input does not depend on the prompt: where T5's decoder begins."""
    if backbone.name != "t5":
        return 0
    first = backbone.lm.decoder.block[0].layer
    return (weights(first[0]) + weights(first[1].EncDecAttention.q)) * batch.labels.numel()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_costs_4n_and_a_distillation_step_2n_more(make_backbone, name):
    """Forward and the gradient of inputs, and the teacher's forward: to the last operation."""
    backbone, batch = make_backbone(name), batch_of()
    backbone.prepare(batch.sources)
    once, spared = forward_weights(backbone, batch), without_gradient(backbone, batch)
    model = student(backbone)
    assert linear_flops(lambda: step(model, batch)) == 4 * once - 2 * spared
    loss = distillation_loss(teacher(backbone), DistillConfig(layers="all"))
    assert linear_flops(lambda: step(model, batch, loss)) == 6 * once - 2 * spared


@pytest.mark.parametrize("name", SUFFIXES)
def test_a_kept_text_costs_attention_alone(make_backbone, name):
    """Products with weights are as many with a text of 5 tokens as with one of 50."""
    backbone = make_backbone(name)
    model, batches = student(backbone), [batch_of(length) for length in (5, 50)]
    for batch in batches:
        backbone.prepare(batch.sources)
    short, long = (linear_flops(lambda batch=batch: step(model, batch)) for batch in batches)
    assert short == long > 0


@pytest.mark.parametrize("name", SUFFIXES)
def test_ten_tasks_read_a_text_once(make_backbone, name):
    """Ten tasks cost what one does, and nine times what one does on texts that are read."""
    texts = [tuple(range(3, 3 + length)) for length in (9, 4, 7)]
    tasks = [
        Task(f"task-{k}", lambda split: [], lambda row: [], lambda row: "", {}, choices=("yes", "no"))
        for k in range(10)
    ]

    def answer(backbone, count):
        model, wanted = teacher(backbone, 10), [(text, k) for text in texts for k in range(count)]
        pairs = [text for text, _ in wanted], [k for _, k in wanted]
        return linear_flops(lambda: answering.answer(model, tasks, *pairs, generate=False))

    one = make_backbone(name)
    cold, warm = answer(one, 1), answer(one, 1)
    assert answer(make_backbone(name), 10) == cold + 9 * warm
    assert 0 < warm < cold


@pytest.mark.parametrize("name", NAMES)
def test_the_output_matrix_meets_target_positions_alone(make_backbone, name):
    """A step gives logits at B x T positions, a scored batch at one a row."""
    backbone, batch, met = make_backbone(name), batch_of(), []
    backbone.lm.get_output_embeddings().register_forward_hook(
        lambda module, given, out: met.append(given[0].numel() // given[0].shape[-1])
    )
    step(student(backbone), batch)
    assert met == [batch.labels.numel()]
    assert batch.labels.numel() > batch.target_tokens  # -100 stands for positions without a target
    met.clear()
    context = student(backbone).begin(batch.sources, batch.task_ids.tolist())
    backbone.score(context, [backbone.answer_tokens(word) for word in ("yes", "no")])
    assert met == [len(batch.sources)]


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_goes_into_the_model(make_backbone, name):
    """Gradients after a step: those of the prompt, and of no weight and no embedding."""
    backbone, batch = make_backbone(name), batch_of()
    model = student(backbone)
    step(model, batch, distillation_loss(teacher(backbone), DistillConfig()))
    got = {key for key, value in model.named_parameters() if value.grad is not None}
    assert got == {"prompts.shared", "prompts.u", "prompts.v"}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_kept_for_gradients_of_weights(make_backbone, name):
    """No input of an inner map is kept for backward: only its weights' gradient would need it."""
    backbone, batch = make_backbone(name), batch_of()
    backbone.prepare(batch.sources)
    model, held, kept = student(backbone), [], set()

    def hold(module, given):
        held.append(given[0])  # held, so that its memory is not given to another tensor

    inner = [module for key, module in backbone.lm.named_modules() if key.endswith(INNER)]
    for module in inner:
        module.register_forward_pre_hook(hold)

    def pack(tensor):
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lm_loss(model, batch, Totals(len(batch.sources), batch.target_tokens))
    assert len(held) == len(inner) > 0
    assert not kept & {tensor.untyped_storage().data_ptr() for tensor in held}


@pytest.mark.parametrize("name", NAMES)
def test_no_copy_of_a_weight_is_kept(make_backbone, name):
    """Weights themselves and activations are kept for backward: no other tensor of a weight's shape."""
    backbone, batch = make_backbone(name), batch_of()
    backbone.prepare(batch.sources)
    own = {value.untyped_storage().data_ptr() for value in backbone.lm.parameters()}
    shapes = {tuple(sorted(value.shape)) for value in backbone.lm.parameters() if value.dim() > 1}
    kept = []

    def pack(tensor):
        kept.append((tensor.untyped_storage().data_ptr(), tuple(sorted(tensor.shape))))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lm_loss(student(backbone), batch, Totals(len(batch.sources), batch.target_tokens))
    assert own & {storage for storage, _ in kept}
    assert not [shape for storage, shape in kept if storage not in own and shape in shapes]


def bench(tmp_path, *arguments):
    """What `weft bench` leaves in bench.json."""
    program = [sys.executable, "-c", "from weft.cli import main; main()", "bench"]
    done = subprocess.run(
        [*program, *arguments, "--quick", "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.split("\n\n")[1].splitlines())) <= 80
    return json.loads((tmp_path / "bench.json").read_text())


def test_the_comparison_with_peft_runs(tmp_path):
    """Equal losses at equal prompts, raw samples, facts of the machine."""
    found = bench(tmp_path, "t5-step")
    names = [one["name"] for one in found["results"]]
    assert names[:2] == ["t5-step", "t5-step-no-dropout"]
    rates = found["machine"]["rates"]
    rounded = 1e-3 if max(rates, key=rates.get) == "float32" else 0.2  # losses are near 6
    assert found["results"][0]["checks"]["loss of PEFT less ours"] < rounded
    assert all(len(samples) == 1 for samples in found["results"][0]["seconds"].values())
    assert {"processor", "features", "threads", "rates", "packages"} <= set(found["machine"])


@pytest.mark.slow
@pytest.mark.smollm2
def test_every_benchmark_runs(tmp_path):
    """All of them on tiny shapes, with the same answers as PEFT where they are compared."""
    found = bench(tmp_path)
    checks = {one["name"]: one["checks"] for one in found["results"]}
    assert {"whole-job", "predict-8", "distill-encoder", "together", "linear", "demo"} <= set(checks)
    assert checks["closed-t5"]["same answers"] == checks["closed-smollm2"]["same answers"] == 1
    assert (tmp_path / "performance-linear.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_gpu_script_runs_on_tiny_shapes():
    """On the CPU with --tiny; without it and without a device it says so."""
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run([*command, "--tiny"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "steps/s" in done.stdout
    if not torch.cuda.is_available():
        refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert "--tiny" in refused.stderr
