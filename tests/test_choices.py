"""What a machine chooses once: attention, rows in memory. It changes last digits at most, and is kept."""

import gc
import json
import weakref
from collections.abc import Iterator

import pytest
import torch
from conftest import BACKBONE_IDS, FURTHER_IDS, build_backbone, build_lm, with_further
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_job import command, write_job

from weft import stages
from weft.config.model import BaseConfig
from weft.config.training import OptimConfig
from weft.data.batch import Encoded, collate
from weft.errors import ConfigError, UnsupportedError
from weft.losses.objective import lm_loss
from weft.losses.terms import lm_loss_sum
from weft.methods.full import FullFineTuning
from weft.models import Choice, Precision, base_folder, load_backbone, rows_that_fit, set_attention
from weft.models import attention as attention_module
from weft.models.attention import Heads, grouped, probe_attention
from weft.models.backbone import HiddenSpec
from weft.models.memory import SHARE, checkpoint_layers, saved_bytes
from weft.models.tuned import with_prompts
from weft.runs import Run
from weft.runs.config import AdaptRun, EvaluateRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.tasks import named
from weft.training import runner
from weft.training.course import Course
from weft.training.loop import fit, fit_together

CPU = torch.device("cpu")


def loss_and_gradient(backbone, state, batch, dtype=torch.float32, hidden=None):
    """The loss of a batch under fixed prompts, and its gradient with respect to them."""
    draw = torch.Generator().manual_seed(7)
    prompts = torch.randn(len(batch.sources), 5, backbone.width, generator=draw).to(dtype).requires_grad_()
    out = backbone.forward(state, prompts, batch.labels, hidden)
    loss = lm_loss_sum(out.logits, batch.labels) + sum(one.hidden.sin().sum() for one in out.states)
    return loss.detach(), *torch.autograd.grad(loss, prompts)


def batch_of(backbone, rows):
    examples = [
        backbone.encode(backbone.decode(source), backbone.decode(target))
        for source, target in zip(rows.sources, rows.targets, strict=True)
    ]
    return collate(examples, rows.task_ids)


# attention


SEVERAL_KINDS = with_further(
    BACKBONE_IDS, [one for one in FURTHER_IDS if one != "t5gemma"]
)  # it has one alone


def is_attention(part):
    """Whether a module asks its config which attention to use."""
    return type(part).__name__.endswith("Attention") and hasattr(part, "config")


@pytest.mark.parametrize("name", SEVERAL_KINDS)
@pytest.mark.parametrize(
    ("other", "dtype", "tolerance"),
    [("eager", torch.float32, 1e-5), ("sdpa", torch.float32, 1e-5), ("sdpa", torch.float64, 1e-9)],
)
def test_every_attention_gives_the_same_loss_and_gradient(name, other, dtype, tolerance, rows):
    """Rows of unlike length, padded on either side, query heads in groups and alone, bias and none."""
    backbone = build_backbone(name)
    backbone.lm.to(dtype)
    batch = batch_of(backbone, rows)
    state = backbone.read(batch.sources)  # one for both: rounded keys and values of texts are given
    found = []
    for attention in (other, "grouped"):
        set_attention(backbone.lm, attention)
        used = {part.config._attn_implementation for part in backbone.lm.modules() if is_attention(part)}
        assert used == {attention}
        found.append(loss_and_gradient(backbone, state, batch, dtype))
    (theirs, their_gradient), (ours, our_gradient) = found
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=0)
    size = their_gradient.abs().max()
    assert size > 1e-3
    torch.testing.assert_close(our_gradient / size, their_gradient / size, rtol=0, atol=tolerance)


def test_dropout_falls_on_the_same_weights():
    """With the frozen model's dropout on, one seed gives the same numbers as the library's attention."""
    lm = build_lm("llama").train()
    found = []
    for attention in ("eager", "grouped"):
        lm.set_attn_implementation(attention)
        torch.manual_seed(3)
        found.append(lm(input_ids=torch.arange(3, 15)[None]).logits)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)
    lm.eval()
    assert (lm(input_ids=torch.arange(3, 15)[None]).logits - found[1]).abs().max() > 1e-3


def test_keys_and_values_of_a_group_are_kept_once():
    """Beside its four inputs, attention keeps scaled queries and weights: nothing is repeated per head."""
    B, H, G, Q, K, d = 2, 6, 2, 3, 7, 4
    query, key, value = (torch.randn(B, *shape, d, requires_grad=True) for shape in ((H, Q), (G, K), (G, K)))
    kept = saved_bytes(lambda: grouped(torch.nn.Module().eval(), query, key, value, None)[0])
    assert kept == 4 * B * d * (H * Q + 2 * G * K) + 4 * B * H * Q * K


@pytest.mark.parametrize(
    ("family", "heads"),
    [
        ("llama", (4, 2, 8, False)),
        ("qwen2", (4, 2, 8, False)),
        ("gpt2", (4, 4, 8, False)),
        ("t5", (2, 2, 8, True)),
    ],
)
def test_heads_are_read_from_a_models_settings(family, heads):
    """Of every family."""
    assert Heads.of(build_lm(family).config.to_dict()) == Heads(*heads)


@pytest.mark.parametrize("fastest", ["grouped", "sdpa"])
def test_the_faster_attention_is_chosen(monkeypatch, fastest):
    """The first round warms up and does not count."""
    rounds = {name: iter([0.0, *[1.0] * 40]) for name in attention_module.FUNCTIONS}
    rounds[fastest] = iter([9.0, *[0.5] * 40])
    names = {function: name for name, function in attention_module.FUNCTIONS.items()}
    monkeypatch.setattr(attention_module, "_time", lambda function, *_: next(rounds[names[function]]))
    config = build_lm("llama").config.to_dict()
    chosen = probe_attention(config, CPU, torch.float32, suffix=True)
    assert (chosen.name, chosen.milliseconds[fastest]) == (fastest, 500.0)
    assert chosen.describe().startswith(f"{fastest} (measured: grouped ")


@pytest.mark.parametrize("suffix", [False, True])
def test_attention_is_measured_for_real(suffix):
    """Both implementations run on the measured inputs."""
    found = probe_attention(build_lm("qwen2").config.to_dict(), CPU, torch.float32, suffix=suffix)
    assert set(found.milliseconds) == {"grouped", "sdpa"}
    assert all(number > 0 for number in found.milliseconds.values())


def test_what_is_not_measured():
    """Unknown models are the library's affair; with position bias on a CPU only plain attention is exact."""
    assert probe_attention({"model_type": "gemma2"}, CPU, torch.float32, suffix=True).name == "library"
    t5 = build_lm("t5").config.to_dict()
    assert probe_attention(t5, CPU, torch.float32, suffix=False) == Choice("grouped", {})


# kept with the run


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Tasks and a causal base model on disk."""
    folder = tmp_path_factory.mktemp("choices")
    write_job(folder, "llama", "suffix")
    return folder


@pytest.fixture(autouse=True)
def kernels_as_before() -> Iterator[None]:
    """What a run asks of torch does not reach other tests."""
    yield
    torch.use_deterministic_algorithms(False)


def teacher_run(job, base=None, **optim):
    """A short run with texts before prompts."""
    spec = named(["tasks"], job)["alpha"]
    values = {"model": str(job / "base"), "dtype": "float32", **(base or {})}
    rates = {"lr": {"prompt": 0.1}, "steps": 2, "batch_size": 6, **optim}
    return TeacherRun(base=values, prompt={"length": 3}, tasks=(spec,), optim=rates)


def choose(monkeypatch, name):
    """Let the machine measure that this attention is the fastest; counts how often it is asked."""
    asked = []

    def probe(*_, suffix):
        asked.append(name)
        return Choice(name, {name: 1.0})

    monkeypatch.setattr("weft.models.machine.probe_attention", probe)
    return asked


def env(run: Run) -> dict[str, object]:
    return json.loads((run.path / "env.json").read_text("utf-8"))


def test_attention_is_chosen_once_for_a_folder_of_runs(job, tmp_path, monkeypatch):
    """Later processes, other seeds and the scores of a run keep to it, whatever would be measured now."""
    asked = choose(monkeypatch, "grouped")
    config, workspace = teacher_run(job), Workspace(tmp_path)
    run = stages.perform(config, workspace)
    assert workspace.backbone(config).lm.config._attn_implementation == "grouped"
    assert (asked, env(run)["attention"]) == (["grouped"], "grouped")
    choose(monkeypatch, "sdpa")
    assert Workspace(tmp_path).attention(config.model_copy(update={"seed": 1})) == "grouped"
    (tmp_path / ".experiments" / workspace.machine.times.name).unlink()
    later = Workspace(tmp_path)
    scored = EvaluateRun(base=config.base, prompt=config.prompt, tasks=config.tasks, run=run.id)
    assert later.attention(config) == later.attention(scored) == "grouped"
    other = config.model_copy(update={"seed": 1})
    assert later.attention(other) == "sdpa"
    found = [later.backbone(one).lm.config._attn_implementation for one in (config, other, config)]
    assert found == ["grouped", "sdpa", "grouped"]  # one workspace serves both
    assert env(stages.perform(scored, later))["attention"] == "grouped"


def test_weights_are_trained_in_float32(job, tmp_path, monkeypatch):
    """Where bfloat16 is the faster one, prompts are trained on such weights; weights themselves are not."""
    rates = {"bfloat16": 2.0, "float32": 1.0}
    monkeypatch.setattr("weft.models.machine.probe", lambda device: Precision("bfloat16", rates))
    workspace, teacher = Workspace(tmp_path), teacher_run(job, {"dtype": "auto"})
    assert workspace.dtype(teacher) == "bfloat16"
    settings = {"method": FullFineTuning(), "optim": {"lr": {"model": 1e-3}, "steps": 2, "batch_size": 6}}
    shared = {"base": teacher.base, "prompt": teacher.prompt, "tasks": teacher.tasks}
    trained = stages.perform(AdaptRun(**shared, **settings), workspace)
    scored = stages.perform(EvaluateRun(**shared, run=trained.id), workspace)
    assert env(trained)["dtype"] == env(scored)["dtype"] == "float32"
    assert env(trained)["products"] == env(scored)["products"] == "bfloat16"
    kept = torch.cat([value.flatten() for value in trained.tensors().values()])
    assert (kept != kept.bfloat16()).float().mean() > 0.9  # their steps are smaller than a bfloat16's


@pytest.mark.parametrize("base", [{"dtype": "float32"}, {"dtype": "auto", "products": "library"}])
def test_products_are_rounded_only_where_nothing_else_was_asked(job, tmp_path, monkeypatch, base):
    """Float32, or the library's products, are what they say."""
    monkeypatch.setattr("weft.models.machine.probe", lambda device: Precision("bfloat16", {}))
    config = teacher_run(job, base).model_dump(include={"base", "prompt", "tasks"})
    optim = {"lr": {"model": 1e-3}, "steps": 2, "batch_size": 6}
    run = AdaptRun(**config, method={"name": "full"}, optim=optim)
    assert Workspace(tmp_path).products(run) == "library"
    packed = AdaptRun(
        **{**config, "base": {**config["base"], "products": "packed"}}, method={"name": "full"}, optim=optim
    )
    assert Workspace(tmp_path).products(packed) == "library"


@pytest.mark.parametrize("attention", ["eager", "sdpa", "grouped"])
@pytest.mark.parametrize("name", SEVERAL_KINDS)
def test_rounded_products_are_those_of_bfloat16_with_float32_gradients(name, attention, rows):
    """Logits are off by rounding alone, as those of a model in bfloat16 are; gradients are whole."""
    exact, rounded, half = build_backbone(name), build_backbone(name), build_backbone(name)
    half.lm.bfloat16()
    rounded.rounds = True
    found = []
    for one in (exact, rounded, half):
        one.lm.requires_grad_(True)
        set_attention(one.lm, attention)
        batch = batch_of(one, rows)
        with one.mode(dropout=False):
            logits = one.forward(one.read(batch.sources), None, batch.labels).logits
        lm_loss_sum(logits, batch.labels).backward()
        found.append(logits.detach().float())
    errors = [float((one - found[0]).abs().mean()) for one in found[1:]]
    assert 0 < errors[0] < 2 * errors[1]
    assert {one.grad.dtype for one in rounded.lm.parameters() if one.grad is not None} == {torch.float32}


def test_a_run_of_before_there_was_a_choice_keeps_the_librarys(job, tmp_path, monkeypatch):
    """It was begun with it."""
    choose(monkeypatch, "grouped")
    workspace, config = Workspace(tmp_path), teacher_run(job)
    folder = workspace.run(config).path
    folder.mkdir()
    (folder / "env.json").write_text('{"dtype": "float32"}', "utf-8")
    assert workspace.attention(config) == "library"


def test_pinned_attention_is_used_and_measured_by_nobody(job, tmp_path, monkeypatch):
    """A setting comes before any measurement, and does not change a run's name."""
    asked = choose(monkeypatch, "grouped")
    config, workspace = teacher_run(job, {"attention": "eager"}), Workspace(tmp_path)
    assert workspace.backbone(config).lm.config._attn_implementation == "eager"
    assert asked == []
    assert workspace.run_id(config) == workspace.run_id(teacher_run(job))


def test_attention_that_a_model_cannot_have_is_refused(job):
    """Weft's own does bias and mask, and nothing else."""
    folder = base_folder.resolve(BaseConfig(model=str(job / "base")))
    folder.config["model_type"] = "gemma2"
    with pytest.raises(UnsupportedError, match="attention of 'gemma2'"):
        load_backbone(folder, dtype="float32", attention="grouped")


def test_deterministic_runs_measure_nothing(job, tmp_path, monkeypatch):
    """float32, eager, whole batches, kernels that repeat themselves; under a name of its own."""
    places = ("probe", "probe_attention", "probe_products")
    probes = (*(f"models.machine.{name}" for name in places), "training.runner.rows_that_fit")
    for probe in probes:
        monkeypatch.setattr(f"weft.{probe}", lambda *_, **kw: pytest.fail("measured"))
    config = teacher_run(job, {"dtype": "auto", "deterministic": True})
    workspace = Workspace(tmp_path)
    assert workspace.run_id(config) != workspace.run_id(teacher_run(job, {"dtype": "auto"}))
    run = stages.perform(config, workspace)
    assert torch.are_deterministic_algorithms_enabled()
    chosen = tuple(env(run)[name] for name in ("dtype", "attention", "products"))
    assert chosen == ("float32", "eager", "library")
    stages.perform(teacher_run(job, {"attention": "eager", "products": "library"}, micro_batch=6), workspace)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("other", [{"dtype": "bfloat16"}, {"attention": "sdpa"}, {"products": "packed"}])
def test_deterministic_contradicts_other_choices(job, other):
    """Two settings that say different things are refused."""
    with pytest.raises(ValueError, match="deterministic means float32, eager attention"):
        teacher_run(job, {**other, "deterministic": True})


def test_the_flag_sets_the_setting(job, tmp_path, capsys):
    """`--deterministic` on the command line is `base.deterministic: true`."""
    text = f"base: {{model: {job / 'base'}}}\nprompt: {{length: 3}}\ntasks: [{job / 'tasks'}]\n"
    path = tmp_path / "teachers.yaml"
    path.write_text(text + "optim: {lr: {prompt: 0.1}, steps: 2}\n", "utf-8")
    for flags, expected in (((), "deterministic: false"), (("--deterministic",), "deterministic: true")):
        assert command("teachers", path, "--runs", tmp_path / "runs", "--dry-run", *flags) == 0
        assert expected in capsys.readouterr().out


# rows in memory


def test_kept_bytes_are_counted():
    """Results that the backward pass needs, each once, whether it goes backward or not."""
    x = torch.ones(10, 3, requires_grad=True)
    assert saved_bytes(lambda: x.exp().sum()) == 120
    assert saved_bytes(lambda: (x.exp() * x.exp()).sum()) == 240
    y = x.detach().exp()
    assert saved_bytes(lambda: (x * y + x * y).sum()) == 120  # y once, and x not at all


def test_what_was_counted_is_let_go():
    """A step that keeps its own result (exp does) makes no cycle that nobody can find."""
    x, made = torch.ones(10, 3, requires_grad=True), []

    def forward():
        result = x.exp()
        made.append(weakref.ref(result))
        return result.sum()

    saved_bytes(forward)
    gc.collect()
    assert made[0]() is None


@settings(max_examples=200, deadline=None)
@given(
    batch=st.integers(1, 65), width=st.integers(1, 40), fixed=st.integers(0, 100), free=st.integers(0, 40000)
)
def test_rows_fit_and_are_an_even_share(batch, width, fixed, free):
    """As many as fit into the share of memory, cut evenly; one at least; kept weights do not count."""
    weights = torch.ones(1 + fixed, requires_grad=True)

    def forward(rows):
        return torch.ones(rows, width, requires_grad=True).exp().sum() + weights.square().sum()

    found = rows_that_fit(forward, batch, free)
    room = int(free * SHARE) // (4 * width)
    parts = -(-batch // found)
    assert 1 <= found <= max(1, min(room, batch))
    assert found == batch or parts * max(1, room) >= batch  # it takes no more parts than needed
    assert (parts - 1) * max(1, room) < batch
    assert found * parts - batch < parts  # evenly


def test_rows_in_memory_are_measured_once_for_a_run(job, tmp_path, monkeypatch):
    """The longest rows decide; the folder notes how many, and a run that goes on keeps to it."""
    workspace, config = Workspace(tmp_path), teacher_run(job, {"attention": "eager"})
    ready, per_row = stages.prepare(config, workspace), {}

    def measure(forward, batch_size, free):
        per_row["bytes"] = saved_bytes(lambda: forward(2)) - saved_bytes(lambda: forward(1))
        return rows_that_fit(forward, batch_size, int(4.5 * per_row["bytes"] / SHARE))

    monkeypatch.setattr("weft.training.runner.rows_that_fit", measure)
    with workspace.open(config) as out:
        assert runner.rows_in_memory(ready, out).micro_batch == 3  # 4 fit, 6 in two parts
        assert env(out)["micro_batch"] == 3
        assert env(out)["identity"] == workspace.identity(config)
        monkeypatch.setattr("weft.training.runner.rows_that_fit", lambda *_: pytest.fail("measured again"))
        assert runner.rows_in_memory(ready, out).micro_batch == 3
        out.write_json("result.json", {})
    assert per_row["bytes"] > 1000
    pinned = teacher_run(job, micro_batch=5)
    assert runner.rows_in_memory(stages.prepare(pinned, workspace), out) == pinned.optim


def test_there_is_room_for_a_small_step(job, tmp_path):
    """With real memory, a tiny batch stays whole."""
    workspace, config = Workspace(tmp_path), teacher_run(job, {"attention": "eager"})
    ready = stages.prepare(config, workspace)
    with workspace.open(config) as out:
        assert runner.rows_in_memory(ready, out).micro_batch == 6


# activation checkpointing


@pytest.mark.parametrize("name", ["t5", "llama-prefix", "qwen2-prefix", "gpt2-prefix"])
@pytest.mark.parametrize("attention", ["eager", "grouped"])
def test_checkpointing_changes_memory_and_nothing_else(name, attention, rows):
    """Loss, hidden states and gradient stay; less is kept for the backward pass."""
    backbone = build_backbone(name)
    backbone.lm.set_attn_implementation(attention)
    batch = batch_of(backbone, rows)

    def run():
        return loss_and_gradient(backbone, backbone.read(batch.sources), batch, hidden=HiddenSpec("all"))

    def kept():
        prompts = torch.ones(len(batch.sources), 5, backbone.width, requires_grad=True)
        return saved_bytes(
            lambda: backbone.forward(backbone.read(batch.sources), prompts, batch.labels).logits
        )

    plain, before = run(), kept()
    checkpoint_layers(backbone.lm)
    for ours, theirs in zip(run(), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert kept() < 0.7 * before
    answers = backbone.generate(backbone.begin(backbone.read(batch.sources), None), 3)
    assert answers == build_answers(name, attention, batch)


def build_answers(name, attention, batch):
    """Answers of the same model without checkpointing."""
    backbone = build_backbone(name)
    backbone.lm.set_attn_implementation(attention)
    return backbone.generate(backbone.begin(backbone.read(batch.sources), None), 3)


def test_checkpointing_draws_the_same_dropout_twice():
    """The second computation of a layer repeats the first, dropout and all."""
    found = []
    for wrapped in (False, True):
        lm = build_lm("t5").train()
        if wrapped:
            checkpoint_layers(lm)
        embeds = torch.ones(2, 6, 32).requires_grad_()
        torch.manual_seed(5)
        out = lm(inputs_embeds=embeds, decoder_input_ids=torch.tensor([[0, 5], [0, 7]]), use_cache=False)
        found.append(torch.autograd.grad(out.logits.sin().sum(), embeds)[0])
    torch.testing.assert_close(found[1], found[0])


def step_with_dropout(name, dropout, *, wrapped):
    """The gradient of one training step of two micro-batches, and the draw that comes after it."""
    backbone = build_backbone(name)
    if wrapped:
        checkpoint_layers(backbone.lm)
    start = torch.randn(1, 5, backbone.width, generator=torch.Generator().manual_seed(7))
    model = with_prompts(backbone, start, ("a",), dropout=dropout)
    batch = collate([Encoded((5, 6, 7, 8), (9, 1)), Encoded((10, 11), (12, 13, 1))], [0, 0])
    optim = OptimConfig(lr={"prompt": 0.1}, steps=1, batch_size=2, micro_batch=1, clip=1e9)
    fit(model, lambda step: batch, lm_loss, optim, seed=3)
    assert not backbone.lm.training
    return model.prompts.prompts.grad


@pytest.mark.parametrize("name", ["t5", "llama-prefix", "gpt2-prefix"])
def test_a_step_with_dropout_is_the_same_with_checkpointing(name):
    """Dropout stays on through the backward pass, and a layer that is computed again draws as before."""
    plain, wrapped = (step_with_dropout(name, True, wrapped=one) for one in (False, True))
    torch.testing.assert_close(wrapped, plain)
    assert not torch.allclose(plain, step_with_dropout(name, False, wrapped=False), rtol=0.01)


def test_courses_in_one_batch_are_the_same_with_checkpointing():
    """After PyTorch's own `train()` too: no dropout, in the first computation of a layer or the second."""
    found = []
    for wrapped in (False, True):
        backbone = build_backbone("t5")
        if wrapped:
            checkpoint_layers(backbone.lm)
        backbone.lm.train()
        draw = torch.Generator().manual_seed(7)
        starts = [torch.randn(1, 5, backbone.width, generator=draw) for _ in range(2)]
        models = [with_prompts(backbone, start, ("a",)) for start in starts]
        batch = collate([Encoded((5, 6, 7, 8), (9, 1))], [0])
        optim = OptimConfig(lr={"prompt": 0.1}, steps=1, batch_size=1, clip=1e9)
        list(
            fit_together([Course(model, lambda step, batch=batch: batch, lm_loss, optim) for model in models])
        )
        found.append([model.prompts.prompts.grad for model in models])
        assert backbone.lm.training
    torch.testing.assert_close(found[1], found[0])


def test_checkpointing_is_refused_after_cached_texts(job, tmp_path):
    """A cache of keys would be filled a second time."""
    workspace, config = Workspace(tmp_path), teacher_run(job, {"checkpointing": True})
    with pytest.raises(ConfigError, match="computed twice") as caught:
        workspace.backbone(config)
    assert "prompt.position: prefix" in caught.value.fix
    prefix = config.model_copy(update={"prompt": config.prompt.model_copy(update={"position": "prefix"})})
    assert workspace.backbone(prefix).lm.base_model.layers[0].forward.args


def test_models_of_finished_runs_are_let_go(job, tmp_path, monkeypatch):
    """A method that changes weights has a base of its own, which is gone when the next one is loaded."""
    alive: list[weakref.ref] = []

    def load(*args, **kw):
        assert [one for one in alive if one() is not None] == []
        backbone = load_backbone(*args, **kw)
        alive.append(weakref.ref(backbone))
        return backbone

    monkeypatch.setattr("weft.runs.workspace.load_backbone", load)
    shared = teacher_run(job).model_dump(include={"base", "prompt", "tasks"})
    optim, workspace = {"lr": {"lora": 1e-3}, "steps": 1, "batch_size": 6}, Workspace(tmp_path)
    for seed in range(4):
        stages.perform(AdaptRun(**shared, seed=seed, method={"name": "lora"}, optim=optim), workspace)
    assert len(alive) == 4
