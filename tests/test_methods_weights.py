"""Methods that add weights or choose among them: counts, what moves, PEFT and NumPy as references, runs."""

import json
import sys

import numpy as np
import peft
import pytest
import torch
from conftest import EVERY_BACKBONE, PAD, build_backbone, build_lm
from tiny_job import SHORT, command, write_job
from transformers import T5Config, T5ForConditionalGeneration

from weft import methods, runs
from weft.config.training import OptimConfig, PromptConfig
from weft.data.batch import IGNORE, Encoded, collate
from weft.errors import ArtifactError, ConfigError, UnsupportedError
from weft.losses.objective import lm_loss
from weft.methods.adapter import Adapters
from weft.methods.bitfit import BitFit
from weft.methods.full import FullFineTuning
from weft.methods.ia3 import IA3
from weft.methods.lora import LoRA
from weft.methods.method import Saved, Setup
from weft.models import added
from weft.serving import predictor
from weft.tasks import Task
from weft.training.course import Checkpoint, Hooks
from weft.training.loop import fit

TASKS = ("a", "b", "c")
NEAR = {"rtol": 1e-4, "atol": 1e-4}
SOURCES = [(11, 15, 19), (6, 65, 46, 4, 41, 36), (31,), (51, 56, 47), (8, 9, 10, 11)]
TARGETS = [(63, 1), (1,), (36, 44, 43, 1), (6, 18, 1), (5, 1)]
BATCH = collate([Encoded(*pair) for pair in zip(SOURCES, TARGETS, strict=True)], [2, 0, 1, 0, 2])
ADDED = {"lora": LoRA(rank=2), "ia3": IA3(), "bitfit": BitFit(), "adapter": Adapters(bottleneck=3)}
every_method = pytest.mark.parametrize("name", ADDED)
T5_BASE = {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_heads": 12}
T5_XL = {"d_model": 2048, "d_ff": 5120, "d_kv": 64, "num_layers": 24, "num_heads": 32}


def setup_on(backbone, *, seed=0, dropout=False):
    """What a method is given: three tasks and a backbone."""
    tasks = tuple(Task(name, list, list, str, {}) for name in TASKS)
    prompt = PromptConfig(length=3)
    return Setup(tasks, [], seed, prompt, (64,) * len(tasks), dropout=dropout, load_backbone=lambda: backbone)


def built(name, backbone, **kw):
    """A method's model before training."""
    return ADDED[name].build(setup_on(backbone, **kw))[0]


def optim(method, steps=3, **kw):
    """Settings with one batch a step."""
    lr = dict.fromkeys(method.groups, 0.01)
    return OptimConfig(lr=lr, steps=steps, batch_size=len(SOURCES), warmup=0, **kw)


def trained(name, backbone, **kw):
    """A method's model after some steps."""
    model = built(name, backbone, **kw)
    fit(model, lambda step: BATCH, lm_loss, optim(ADDED[name]))
    return model


def logits_of(model):
    """Logits of the batch where there are targets."""
    with torch.no_grad():
        return model(BATCH).logits[BATCH.labels != IGNORE]


def equal(one, other):
    """Whether two dictionaries of tensors are the same bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# counts


@pytest.mark.parametrize(
    ("method", "shape", "numbers"),
    [
        (LoRA(rank=8), T5_BASE, 36 * 2 * 2 * 8 * 768),  # 884,736, as PEFT prints it for t5-base
        (IA3(), T5_BASE, 36 * 2 * 768 + 24 * 3072),
        (IA3(), T5_XL, 540_672),  # Liu et al. 2022: 0.54 million at T0-3B
        (BitFit(), T5_BASE, 282_496),  # the tables of ATTEMPT and MPT: 280K
        (Adapters(), T5_BASE, 1_855_104),  # the same tables: 1.9M
        (Adapters(norms=False), T5_BASE, 48 * (2 * 768 * 24 + 24 + 768)),
        (FullFineTuning(), T5_BASE, 222_903_552),
    ],
)
def test_counts_are_the_published_ones(method, shape, numbers):
    """On shapes without numbers behind them."""
    backbone = build_backbone("t5")
    with torch.device("meta"):
        backbone.lm = T5ForConditionalGeneration(T5Config(vocab_size=32128, **shape))
        assert method.build(setup_on(backbone))[0].trained_parameters == numbers


def test_biases_of_t5_base_come_from_one_set_of_places():
    """Of all sets of kinds of layers, that of every linear layer and every norm alone gives the paper's."""
    D, kinds = 768, {}
    kinds |= {"q": 36 * D, "k": 36 * D, "v": 36 * D, "o": 36 * D, "wi": 24 * 3072, "wo": 24 * D}
    kinds |= {"norms": 60 * D, "last norms": 2 * D, "output layer": 32128}
    sizes = list(kinds.values())
    counts = [sum(size for i, size in enumerate(sizes) if kept >> i & 1) for kept in range(1 << len(sizes))]
    assert [kept for kept, count in enumerate(counts) if count == 282_496] == [(1 << len(sizes)) - 1]


# what moves


@pytest.mark.parametrize("place", EVERY_BACKBONE)
@every_method
def test_training_starts_at_the_base_model_and_moves_what_is_declared(name, place):
    """Before training the logits are the frozen model's; afterwards all else is as it was, bit for bit."""
    backbone = build_backbone(place)
    plain = {key: value.clone() for key, value in backbone.lm.named_parameters()}
    frozen = methods.known()["no_prompt"]().restore(setup_on(build_backbone(place)), Saved()).model
    model = built(name, backbone)
    torch.testing.assert_close(logits_of(model), logits_of(frozen), rtol=1e-5, atol=1e-5)
    before = {key: value.detach().clone() for key, value in backbone.lm.named_parameters()}
    declared = {key.removeprefix("lm.") for key in model.state()}
    assert sum(before[key].numel() for key in declared) == model.trained_parameters
    fit(model, lambda step: BATCH, lm_loss, optim(ADDED[name]))
    after = dict(backbone.lm.named_parameters())
    assert {key for key, value in after.items() if not torch.equal(value, before[key])} == declared
    assert {key for key, value in after.items() if value.grad is not None} == declared
    kept = {key.replace("base_layer.", ""): value for key, value in after.items() if key not in declared}
    assert all(torch.equal(value, plain[key]) for key, value in kept.items())
    assert (logits_of(model) - logits_of(frozen)).abs().max() > 1e-3


def test_models_with_biases_train_those_they_have():
    """GPT-2 and BERT get none, Qwen2 trains those of its queries, keys and values; Llama gets its first."""
    for place in ("gpt2-prefix", "bert", "qwen2-prefix"):
        backbone = build_backbone(place)
        own = {f"lm.{key}" for key, _ in backbone.lm.named_parameters() if key.endswith(".bias")}
        assert set(built("bitfit", backbone).state()) == own
    llama = built("bitfit", build_backbone("llama-prefix"))
    assert llama.trained_parameters == 2 * (32 + 16 + 16 + 32 + 48 + 48 + 32 + 2 * 32) + 32 + 72


def test_first_weights_follow_from_the_seed():
    """The same seed draws the same, another seed others; the random state of the process stays."""
    state = torch.get_rng_state()
    one, same, other = (built("lora", build_backbone("t5"), seed=seed).state() for seed in (0, 0, 1))
    assert equal(one, same)
    assert not equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


# references


def peft_model(name, family, kept):
    """PEFT's own model of a family with the parameters of ours, at the places that PEFT chooses."""
    config = peft.LoraConfig(r=2, lora_alpha=16) if name == "lora" else peft.IA3Config()
    if family == "gpt2":
        config.fan_in_fan_out = True
    theirs = peft.get_peft_model(build_lm(family), config).eval()
    own = dict(theirs.named_parameters())
    assert {key for key, value in own.items() if value.requires_grad} == {
        key.replace("lm.", "base_model.model.", 1) for key in kept
    }
    with torch.no_grad():
        for key, value in kept.items():
            own[key.replace("lm.", "base_model.model.", 1)].copy_(value)
    return theirs


@pytest.mark.parametrize("place", ["t5", "llama-prefix", "gpt2-prefix"])
@pytest.mark.parametrize("name", ["lora", "ia3"])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers
def test_logits_are_those_of_peft(name, place):
    """With the same parameters, PEFT's model has the same logits; it reads token ids, each row alone."""
    model = trained(name, build_backbone(place))
    theirs = peft_model(name, place.partition("-")[0], model.state())
    with torch.no_grad():
        ours = model(BATCH).logits
    for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        with torch.no_grad():
            if place == "t5":
                start = torch.tensor([[PAD, *target[:-1]]])
                logits = theirs(input_ids=torch.tensor([source]), decoder_input_ids=start).logits[0]
            else:
                ids = torch.tensor([[*source, *target[:-1]]])
                logits = theirs(input_ids=ids).logits[0, len(source) - 1 :]
        torch.testing.assert_close(ours[i, : len(target)], logits, **NEAR)


def float64(parameter):
    """As NumPy has it."""
    return parameter.detach().numpy().astype(np.float64)


@pytest.mark.parametrize(
    ("place", "layer"),
    [
        ("t5", "decoder.block.1.layer.2.DenseReluDense.wo"),
        ("llama-prefix", "model.layers.0.self_attn.o_proj"),
        ("gpt2-prefix", "transformer.h.1.mlp.c_proj"),
        ("bert", "decoder.bert.encoder.layer.1.attention.output.dense"),
    ],
)
def test_an_adapter_behind_a_layer_equals_numpy(place, layer):
    """x W + b, and then plus up(gelu(down(.)))."""
    backbone = build_backbone(place)
    trained("adapter", backbone)
    module = backbone.lm.get_submodule(layer)
    weight = float64(module.weight) if place.startswith("gpt2") else float64(module.weight).T
    x = np.random.default_rng(0).normal(size=(3, len(weight)))
    out = x @ weight + (0 if module.bias is None else float64(module.bias))
    down, up = module.adapter.down, module.adapter.up
    low = out @ float64(down.weight).T + float64(down.bias)
    low = low / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (low + 0.044715 * low**3)))
    expected = out + low @ float64(up.weight).T + float64(up.bias)
    with torch.no_grad():
        found = module(torch.from_numpy(x).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - out).max() > 1e-3


def test_adapters_stand_where_the_paper_has_them():
    """Two a layer: behind self-attention and feed-forward part, not behind attention to the encoder."""
    backbone = build_backbone("t5")
    built("adapter", backbone)
    found = [name for name, layer in backbone.lm.named_modules() if hasattr(layer, "adapter")]
    ends = [name.split(".", 3)[0] + " " + name.rpartition(".layer.")[2] for name in found]
    encoder = ["encoder 0.SelfAttention.o", "encoder 1.DenseReluDense.wo"]
    decoder = ["decoder 0.SelfAttention.o", "decoder 2.DenseReluDense.wo"]
    assert ends == encoder * 2 + decoder * 2


def test_biases_of_t5_equal_numpy():
    """Of a layer norm without a mean, and of a linear layer that had none."""
    backbone = build_backbone("t5")
    trained("bitfit", backbone)
    x = np.random.default_rng(0).normal(size=(3, 32))
    norm = backbone.lm.get_submodule("decoder.block.0.layer.1.layer_norm")
    size = np.sqrt((x**2).mean(-1, keepdims=True) + norm.variance_epsilon)
    wi = backbone.lm.get_submodule("encoder.block.1.layer.1.DenseReluDense.wi")
    for layer, expected in (
        (norm, x / size * float64(norm.weight) + float64(norm.bias)),
        (wi, x @ float64(wi.weight).T + float64(wi.bias)),
    ):
        with torch.no_grad():
            found = layer(torch.from_numpy(x).float())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert np.abs(float64(layer.bias)).mean() > 1e-3


# keeping


@pytest.mark.parametrize("place", ["t5", "gpt2-suffix"])
@every_method
def test_what_is_kept_answers_alike_on_a_fresh_base(name, place):
    """Bit for bit, whatever the seed of the restored model; another model's weights are refused."""
    model = trained(name, build_backbone(place))
    saved = Saved(model.tensors())
    again = ADDED[name].restore(setup_on(build_backbone(place), seed=9), saved).model
    assert torch.equal(logits_of(again), logits_of(model))
    with pytest.raises(ArtifactError, match="not of this model"):
        ADDED[name].restore(setup_on(build_backbone("llama-prefix")), saved)


@every_method
def test_training_goes_on_bit_by_bit(name):
    """Stopped after two steps of four, and resumed on a fresh base with another draw."""
    saved: list[Checkpoint] = []
    whole, cut = (built(name, build_backbone("t5")) for _ in range(2))
    settings = optim(ADDED[name], steps=4)
    fit(whole, lambda step: BATCH, lm_loss, settings)

    def pace(save, *, must=False):
        if not saved:
            save()

    def batches(step):
        if step == 1:
            raise KeyboardInterrupt
        return BATCH

    with pytest.raises(KeyboardInterrupt):
        fit(cut, batches, lm_loss, settings, hooks=Hooks(save=saved.append), pace=pace)
    later = built(name, build_backbone("t5"), seed=5)
    fit(later, lambda step: BATCH, lm_loss, settings, resume=saved[0])
    assert equal(later.state(), whole.state())


def test_a_backbone_belongs_to_one_method():
    """What one has changed is no start for the next."""
    backbone = build_backbone("t5")
    built("lora", backbone)
    with pytest.raises(UnsupportedError, match="changed by another method"):
        built("bitfit", backbone)


# faults


def test_named_layers_get_additions():
    """Ends of names choose the layers, in any family; a dot in a name is a dot."""
    model = LoRA(rank=1, targets=("wi", "SelfAttention.o")).build(setup_on(build_backbone("t5")))[0]
    layers = {key.partition(".lora_")[0].rpartition(".")[2] for key in model.state()}
    assert layers == {"wi", "o"}
    assert model.trained_parameters == 4 * (32 + 64) + 4 * (16 + 32)


def test_a_layer_that_is_not_there_is_named():
    """With the nearest one that is."""
    with pytest.raises(ConfigError, match="no linear layer 'q_prj'") as caught:
        LoRA(targets=("q_prj",)).build(setup_on(build_backbone("llama-prefix")))
    assert "q_proj" in caught.value.fix


def test_an_unknown_family_is_refused(monkeypatch):
    """Where the layers' names are unknown; biases need none."""
    monkeypatch.setattr(added, "FAMILIES", added.FAMILIES[1:])
    for name in ("lora", "ia3", "adapter"):
        with pytest.raises(UnsupportedError, match="names that weft does not know"):
            built(name, build_backbone("t5"))
    assert built("bitfit", build_backbone("t5")).trained_parameters


def test_without_peft_the_remedy_is_told(monkeypatch):
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UnsupportedError, match="not installed") as caught:
        built("lora", build_backbone("t5"))
    assert "weft[peft]" in caught.value.fix


def test_dropout_of_additions_goes_with_the_models():
    """Alone it would silently be off; with the model's it is on in training, and off in answers."""
    method = LoRA(rank=2, dropout=0.5)
    with pytest.raises(ConfigError, match="only where the model's is"):
        method.build(setup_on(build_backbone("t5")))
    model = method.build(setup_on(build_backbone("t5"), dropout=True))[0]
    fit(model, lambda step: BATCH, lm_loss, optim(method))
    assert torch.equal(logits_of(model), logits_of(model))


# whole runs


JOB = (
    SHORT
    + """\
  - label: MPT mean
    method: {{name: mpt, start: mean}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
  - label: LoRA
    method: {{name: lora, rank: 2}}
    optim: {{lr: {{lora: 0.01}}, steps: 4, batch_size: 6, eval_every: 2}}
  - label: IA3
    method: {{name: ia3}}
    group: true
    optim: {{lr: {{ia3: 0.01}}, steps: 2, batch_size: 6, micro_batch: 4}}
  - {{label: BitFit, method: {{name: bitfit}}, optim: {{lr: {{bias: 0.01}}, steps: 2, batch_size: 6}}}}
  - label: adapters
    method: {{name: adapter, bottleneck: 2}}
    group: true
    optim: {{lr: {{adapter: 0.01}}, steps: 2, batch_size: 6}}
"""
)


@pytest.fixture(scope="module", params=["t5-prefix", "llama-suffix"])
def job(request, tmp_path_factory):
    """A finished experiment of MPT and the methods of this file."""
    folder = tmp_path_factory.mktemp(request.param)
    write_job(folder, *request.param.split("-"), JOB)
    assert command("run", folder / "tiny.yaml", "--runs", folder / "runs", "--quiet") == 0
    return folder


def of(job, start):
    """The finished runs whose name starts so."""
    return [run for run in runs.finished(job / "runs") if run.id.startswith(start)]


def test_runs_are_whole(job):
    """Every run proves itself; files hold what was added and nothing of the base."""
    counts = {"lora": 2, "ia3": 1, "bitfit": 2, "adapter": 1}
    for name, count in counts.items():
        found = of(job, f"adapt-{name}-")
        assert len(found) == count
        for run in found:
            assert command("doctor", run.path) == 0
            kept, result = run.tensors(), run.result()
            assert sum(value.numel() for value in kept.values()) == result["trained_parameters"]
            assert (run.path / "weights.safetensors").exists()
            size = (job / "base" / "model.safetensors").stat().st_size
            assert (run.path / "weights.safetensors").stat().st_size < size


def test_predict_answers_from_lora_beside_mpt(job, capsys):
    """Each run answers as it does alone; the command writes both tasks' answers."""
    mpt, lora = of(job, "adapt-mpt-gamma")[0].id, of(job, "adapt-lora-delta")[0].id
    texts = [{"text": text} for text in ("the good film", "the bad dog river", "the fine city story man")]
    both = predictor.load(mpt, lora, root=job / "runs").predict(texts)
    for name, task in ((mpt, "gamma"), (lora, "delta")):
        alone = predictor.load(name, root=job / "runs").predict(texts)
        own = [one for one in both if one.task == task]
        assert [one.answer for one in own] == [one.answer for one in alone]
        for ours, theirs in zip(own, alone, strict=True):
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)
    (job / "rows.jsonl").write_text("\n".join(map(json.dumps, texts)), "utf-8")
    capsys.readouterr()
    arguments = (mpt, lora, job / "rows.jsonl", "--runs", job / "runs")
    assert command("predict", *arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["task"], line["answer"]) for line in lines] == [(one.task, one.answer) for one in both]


def test_scores_are_those_of_the_loaded_run(job):
    """Predictions of the evaluation are what the loaded run answers."""
    run = of(job, "adapt-bitfit-gamma")[0]
    scored = next(one for one in of(job, "evaluate-") if one.config().run == run.id)
    lines = [line for line in scored.lines("predictions.jsonl") if line["task"] == "gamma"]
    rows = [json.loads(line) for line in (job / "tasks" / "gamma-test.jsonl").read_text("utf-8").splitlines()]
    loaded = predictor.load(run.id, root=job / "runs").predict(rows)
    assert [one.answer for one in loaded] == [line["answer"] for line in lines]
