"""Tuned models and the training loop: against plain loops of PyTorch, and by their properties."""

import copy
import importlib
import math

import numpy as np
import pytest
import torch
from reference import lm as plain
from reference import mpt as reference
from transformers import get_linear_schedule_with_warmup

from weft.config.training import DistillConfig, OptimConfig, PromptConfig
from weft.data.batch import IGNORE, Encoded, collate
from weft.data.encoding import EncodedTask
from weft.data.sampling import EpochBatches
from weft.errors import ArtifactError, ConfigError, NumericError, UnsupportedError
from weft.evaluation.answering import answer
from weft.evaluation.nearest import nearest
from weft.losses.distillation import distillation_loss
from weft.losses.objective import Totals, lm_loss
from weft.methods.full import FullFineTuning
from weft.methods.method import Saved, Setup
from weft.methods.mpt import MPT
from weft.methods.prompt_tuning import PromptTuning
from weft.models import CausalBackbone
from weft.models.tuned import TunedModel, with_all_weights, with_bank, with_prompts
from weft.prompts.bank import PromptBank, SoftPrompts
from weft.tasks import Task
from weft.training.course import Checkpoint, Hooks, make_optimizer, rate_factor
from weft.training.loop import fit

P, YES, NO = 3, 3, 4
TASKS = ("a", "b", "c")
NEAR = {"rtol": 1e-4, "atol": 1e-4}
SOURCES = [(11, 15, 19), (6, 65, 46, 4, 41, 36), (31,), (51, 56, 47), (8, 9, 10, 11)]
TARGETS = [(63, 1), (1,), (36, 44, 43, 1), (6, 18, 1), (5, 1)]
TASK_IDS = [2, 0, 1, 0, 2]
BATCH = collate([Encoded(*pair) for pair in zip(SOURCES, TARGETS, strict=True)], TASK_IDS)
RATES = {
    "prompt_tuning": {"prompt": 0.1},
    "mpt all": {"shared": 0.1, "factors": 0.1},
    "mpt factors": {"factors": 0.1},
    "full": {"model": 0.01},
}
METHODS = {
    "prompt_tuning": PromptTuning(),
    "mpt all": MPT(),
    "mpt factors": MPT(train="factors"),
    "full": FullFineTuning(),
}
every_method = pytest.mark.parametrize("method", RATES)
three = pytest.mark.parametrize("name", ["t5", "llama-prefix", "gpt2-suffix"])


def drawn(*shape, seed=0, scale=1.0):
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def drawn_prompts(backbone, seed=1):
    """A plain prompt for each task, of the size of embeddings."""
    return drawn(len(TASKS), P, backbone.width, seed=seed, scale=prompt_scale_of(backbone))


def prompt_scale_of(backbone):
    """Root mean square of the embeddings."""
    return backbone.embeddings.detach().pow(2).mean().sqrt().item()


def drawn_bank(backbone, seed=2):
    """A bank whose tasks differ."""
    shared = drawn_prompts(backbone, seed)[0]
    return PromptBank(
        shared, drawn(3, P, 1, seed=seed + 1), drawn(3, 1, backbone.width, seed=seed + 2), TASKS
    )


def build(method, backbone, *, dropout=False):
    """A model of a method on a backbone, always with the same start."""
    if method == "prompt_tuning":
        return with_prompts(backbone, drawn_prompts(backbone), TASKS, dropout=dropout)
    if method == "full":
        return with_all_weights(backbone, TASKS, dropout=dropout)
    return with_bank(backbone, drawn_bank(backbone), train=method.split()[1], dropout=dropout)


def teacher_on(backbone, seed=7):
    """Teachers of all tasks."""
    return TunedModel(backbone, SoftPrompts(drawn_prompts(backbone, seed), TASKS), {}, TASKS)


def loss_of(method, backbone):
    """The loss that a method is trained with here: MPT distils."""
    if not method.startswith("mpt"):
        return lm_loss
    return distillation_loss(teacher_on(backbone), DistillConfig(layers="all", prompt_positions=True))


def optim(lr, steps=2, **kw):
    """Settings with one batch a step and no warm-up."""
    return OptimConfig(lr=lr, steps=steps, **{"warmup": 0, "batch_size": len(SOURCES), **kw})


def always(step):
    """The same batch at every step."""
    return BATCH


def logits_of(model, batch=BATCH):
    """Logits of a batch without gradient, where there are targets."""
    with torch.no_grad():
        return model(batch).logits[batch.labels != IGNORE]


def copies(tensors):
    """The same tensors, not to change any more."""
    return {name: tensor.detach().clone() for name, tensor in tensors}


def equal(one, other):
    """Whether two dictionaries of tensors are the same bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# several tasks in one batch


@pytest.mark.parametrize("method", ["prompt_tuning", "mpt all"])
def test_rows_of_a_mixed_batch_have_the_logits_they_have_alone(backbone, method):
    """Each row of a batch of several tasks reads its own task's prompt, whatever stands beside it."""
    model = build(method, backbone)
    with torch.no_grad():
        together = model(BATCH).logits
    for i, (source, target, k) in enumerate(zip(SOURCES, TARGETS, TASK_IDS, strict=True)):
        alone = logits_of(model, collate([Encoded(source, target)], [k]))
        torch.testing.assert_close(together[i, : len(target)], alone, **NEAR)


def test_rows_of_a_mixed_batch_have_the_answers_they_have_alone(backbone):
    """Greedy answers of a batch of several tasks are token for token those of its rows."""
    model = build("mpt all", backbone)
    together = backbone.generate(model.begin(SOURCES, TASK_IDS), 6)
    alone = [
        backbone.generate(model.begin([source], [k]), 6)[0]
        for source, k in zip(SOURCES, TASK_IDS, strict=True)
    ]
    assert together == alone


def test_tasks_matter(backbone):
    """The same text under another task's prompt has other logits."""
    model = build("mpt all", backbone)
    batches = [collate([Encoded(SOURCES[0], TARGETS[0])], [k]) for k in range(3)]
    first, second, third = (logits_of(model, batch) for batch in batches)
    assert (first - second).abs().max() > 1e-2
    assert (second - third).abs().max() > 1e-2


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_answers_of_mixed_tasks_do_not_depend_on_the_batch(backbone, batch_size):
    """Answers come in the order of the rows, each from its own task's choices and within its limit."""
    model = build("mpt all", backbone)
    choices = {"a": ("yes", "no", "maybe"), "b": (), "c": ("good film", "good book", "bad")}
    limits = {"a": 3, "b": 5, "c": 2}
    tasks = [
        Task(name, list, list, str, {}, choices=choices[name], max_target_tokens=limits[name])
        for name in TASKS
    ]
    answers = answer(model, tasks, SOURCES, TASK_IDS, batch_size=batch_size)
    for i, k in enumerate(TASK_IDS):
        task = tasks[k]
        tokens = backbone.generate(model.begin([SOURCES[i]], [k]), task.max_target_tokens)[0]
        assert answers[i].task == task.name
        assert answers[i].written == backbone.decode(tokens)
        assert tuple(answers[i].probabilities or ()) == task.choices
        if task.choices:
            words = [backbone.answer_tokens(word) for word in task.choices]
            expected = backbone.score(model.begin([SOURCES[i]], [k]), words)[0].exp()
            np.testing.assert_allclose(list(answers[i].probabilities.values()), expected.numpy(), **NEAR)
            assert answers[i].chosen == task.choices[int(expected.argmax())]


# what moves


DECLARED = {
    "prompt_tuning": {"prompts.prompts"},
    "mpt all": {"prompts.shared", "prompts.u", "prompts.v"},
    "mpt factors": {"prompts.u", "prompts.v"},
}


@every_method
def test_only_declared_parameters_move(make_backbone, backbone, method):
    """What the method trains moves; all else stays bit for bit as it was, and takes no gradient."""
    fresh = make_backbone(backbone.name)
    model = build(method, fresh)
    before, weights = copies(model.named_parameters()), fresh.weights_hash()
    fit(model, always, loss_of(method, fresh), optim(RATES[method], weight_decay=0.1))
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    everything = {f"backbone.lm.{name}" for name, _ in fresh.lm.named_parameters()}
    assert moved == DECLARED.get(method, everything)
    assert {name for name, value in model.named_parameters() if value.grad is not None} == moved
    assert (fresh.weights_hash() == weights) == (method != "full")


@pytest.mark.parametrize(
    ("method", "numbers"), [("prompt_tuning", 3 * P * 32), ("mpt factors", 3 * (P + 32))]
)
def test_trained_parameters_are_counted(backbone, method, numbers):
    """The count is that of the numbers of all tasks' prompts or factors."""
    assert build(method, backbone).trained_parameters == numbers


def test_full_fine_tuning_counts_every_weight_once(make_backbone, backbone):
    """Weights that the model uses twice count once."""
    fresh = make_backbone(backbone.name)
    weights = {id(weight): weight.numel() for weight in fresh.lm.parameters()}
    assert build("full", fresh).trained_parameters == sum(weights.values())


def test_full_fine_tuning_wants_a_fresh_backbone(make_backbone):
    """Weights that another method has changed are no start for the next."""
    fresh = make_backbone("llama-prefix")
    with_all_weights(fresh, TASKS)
    assert not fresh.frozen
    with pytest.raises(UnsupportedError, match="changed by another method"):
        with_all_weights(fresh, TASKS)


# the loop against a plain one


@three
@every_method
def test_fit_equals_a_plain_loop_of_adamw(make_backbone, name, method):
    """Some steps of PyTorch's AdamW, clipping and a linear rate, written by hand, move parameters alike."""
    steps, clip, decay = 4, 0.5, 0.1
    ours, theirs = build(method, make_backbone(name)), build(method, make_backbone(name))
    settings = optim(RATES[method], steps, warmup=0.5, weight_decay=decay, clip=clip)
    fit(ours, always, lm_loss, settings)

    groups = [
        {"params": theirs.trained[group], "weight_decay": 0.0 if group == "factors" else decay}
        for group in RATES[method]
    ]
    plain_adamw = torch.optim.AdamW(groups)
    parameters = [parameter for group in groups for parameter in group["params"]]
    for factor in (0.0, 0.5, 1.0, 0.5):
        for group, rate in zip(plain_adamw.param_groups, RATES[method].values(), strict=True):
            group["lr"] = rate * factor
        plain_adamw.zero_grad()
        keep = BATCH.labels != IGNORE
        torch.nn.functional.cross_entropy(theirs(BATCH).logits[keep], BATCH.labels[keep]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        plain_adamw.step()
    expected = theirs.state()
    for group, value in ours.state().items():
        torch.testing.assert_close(value, expected[group], rtol=1e-4, atol=1e-5)


def test_lm_loss_is_the_mean_over_target_tokens(backbone):
    """The step's loss is the mean cross-entropy of its targets, by the float64 loops."""
    model = build("prompt_tuning", backbone)
    with torch.no_grad():
        value, terms = lm_loss(model, BATCH, Totals(len(SOURCES), BATCH.target_tokens))
        logits = model(BATCH).logits.double().numpy()
    expected = reference.cross_entropy_sum(logits, BATCH.labels.tolist()) / 12
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert terms == {"lm": pytest.approx(expected, rel=1e-5)}


# distillation


def plain_distillation(backbone, student, teacher, distill):
    """L_Total and its terms by plain calls of the model, row by row, and the float64 loops."""
    suffix = isinstance(backbone, CausalBackbone) and backbone.suffix
    tokens, sums = sum(len(target) for target in TARGETS), {"lm": 0.0, "logits": 0.0, "hidden": 0.0}
    for source, target, k in zip(SOURCES, TARGETS, TASK_IDS, strict=True):
        ours, theirs = (
            plain.run(backbone.lm, source, prompt[k], target, suffix=suffix) for prompt in (student, teacher)
        )
        logits = [run.logits[:, -len(target) :].double().numpy() for run in (ours, theirs)]
        sums["lm"] += reference.cross_entropy_sum(logits[0], [target]) / tokens
        kl = reference.kl_sum(*logits, [target], distill.temperature)
        sums["logits"] += distill.weight * kl / tokens
        if backbone.lm.config.is_encoder_decoder:
            kinds = [("encoder_hidden_states", len(source)), ("decoder_hidden_states", len(target))]
        else:
            kinds = [("hidden_states", len(target) + (0 if suffix else len(source) - 1))]
        layers = [-1] if distill.layers == "last" else [1, 2]
        pairs = [
            [run[kind][layer][:, -count:].double().numpy() for run in (ours, theirs)]
            for kind, count in kinds
            for layer in layers
        ]
        distance = sum(reference.hidden_sum(*pair, np.ones(pair[0].shape[:2], bool)) for pair in pairs)
        sums["hidden"] += distill.weight * distance / len(pairs) / len(SOURCES)
    return sums


@pytest.mark.parametrize(
    "distill",
    [DistillConfig(), DistillConfig(weight=0.5, temperature=2.0, layers="all")],
    ids=["default", "all layers, T = 2"],
)
def test_distillation_loss_equals_a_plain_one(backbone, distill):
    """The terms and their sum are those of plain calls for each row alone and the float64 loops."""
    model, teacher = build("mpt all", backbone), teacher_on(backbone)
    with torch.no_grad():
        totals = Totals(len(SOURCES), BATCH.target_tokens)
        value, terms = distillation_loss(teacher, distill)(model, BATCH, totals)
        prompts = model.prompts(torch.arange(3)), teacher.prompts(torch.arange(3))
        expected = plain_distillation(backbone, *prompts, distill)
    assert terms == pytest.approx(expected, rel=1e-3)
    assert value.item() == pytest.approx(sum(expected.values()), rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"logits": False}, {"lm", "hidden"}),
        ({"hidden": False}, {"lm", "logits"}),
        ({"logits": False, "hidden": False}, {"lm"}),
        ({"weight": 0.0}, {"lm"}),
    ],
)
def test_terms_that_are_off_are_absent(backbone, settings, names):
    """A term that is switched off is not in the loss, and the others are as they were."""
    model, teacher = build("mpt all", backbone), teacher_on(backbone)
    totals = Totals(len(SOURCES), BATCH.target_tokens)
    with torch.no_grad():
        _, every = distillation_loss(teacher, DistillConfig())(model, BATCH, totals)
        value, terms = distillation_loss(teacher, DistillConfig(**settings))(model, BATCH, totals)
    assert terms == pytest.approx({name: every[name] for name in names}, rel=1e-5)
    assert value.item() == pytest.approx(sum(terms.values()), rel=1e-5)


def test_without_a_teacher_the_loss_is_that_of_the_language_model(backbone):
    """No teacher, no distillation."""
    model, totals = build("mpt all", backbone), Totals(len(SOURCES), BATCH.target_tokens)
    with torch.no_grad():
        value, terms = distillation_loss(None, DistillConfig())(model, BATCH, totals)
        expected, _ = lm_loss(model, BATCH, totals)
    assert value.item() == expected.item()
    assert set(terms) == {"lm"}


def test_a_model_distilled_with_itself_is_at_no_distance(backbone):
    """A teacher with the student's own prompts adds nothing."""
    model = build("mpt all", backbone)
    with torch.no_grad():
        twin = TunedModel(backbone, SoftPrompts(model.prompts(torch.arange(3)), TASKS), {}, TASKS)
    loss = distillation_loss(twin, DistillConfig(layers="all", prompt_positions=True))
    value, terms = loss(model, BATCH, Totals(len(SOURCES), BATCH.target_tokens))
    assert terms["logits"] == pytest.approx(0, abs=1e-6)
    assert terms["hidden"] == pytest.approx(0, abs=1e-6)
    assert value.item() == pytest.approx(terms["lm"], rel=1e-6)


def test_distillation_moves_the_student_towards_the_teacher(make_backbone):
    """With the terms of distillation alone the student's logits come nearer to the teacher's."""
    backbone = make_backbone("llama-suffix")
    model, teacher = build("mpt all", backbone), teacher_on(backbone)
    loss = distillation_loss(teacher, DistillConfig(weight=100.0))
    before = (logits_of(model) - logits_of(teacher)).pow(2).mean()
    fit(model, always, loss, optim(RATES["mpt all"], 15))
    assert (logits_of(model) - logits_of(teacher)).pow(2).mean() < 0.7 * before


@pytest.mark.parametrize("noisy_teacher", [False, True])
def test_the_teacher_runs_without_dropout_and_gradient(make_backbone, backbone, noisy_teacher, monkeypatch):
    """With the student's dropout on, the student varies and the teacher is bit-equal, without a gradient."""
    fresh = make_backbone(backbone.name)
    model, teacher = build("mpt all", fresh, dropout=True), teacher_on(fresh)
    teacher.dropout = noisy_teacher
    taught, run = [], teacher.forward

    def recorded(*args):
        taught.append(run(*args))
        return taught[-1]

    monkeypatch.setattr(teacher, "forward", recorded)
    loss = distillation_loss(teacher, DistillConfig())
    values = [loss(model, BATCH, Totals(len(SOURCES), BATCH.target_tokens))[0] for _ in range(2)]
    values[0].backward()
    assert values[0].item() != values[1].item()
    assert torch.equal(taught[0].logits, taught[1].logits)
    assert all(
        torch.equal(one.hidden, two.hidden) for one, two in zip(*(out.states for out in taught), strict=True)
    )
    assert not taught[0].logits.requires_grad
    assert teacher.prompts.prompts.grad is None
    assert not fresh.lm.training


def test_dropout_is_on_in_training_alone_and_on_demand(make_backbone, backbone):
    """Passes with gradient vary if dropout is asked for; passes without gradient never do."""
    fresh = make_backbone(backbone.name)
    noisy, calm = (build("prompt_tuning", fresh, dropout=dropout) for dropout in (True, False))
    assert not torch.equal(noisy(BATCH).logits, noisy(BATCH).logits)
    assert torch.equal(calm(BATCH).logits, calm(BATCH).logits)
    assert torch.equal(logits_of(noisy), logits_of(calm))
    contexts = [model.begin(SOURCES, TASK_IDS) for model in (noisy, calm)]
    scores = [fresh.score(context, [(YES, 1), (NO, 1)]) for context in contexts]
    assert torch.equal(*scores)


def test_training_mode_alone_brings_no_dropout_into_passes(make_backbone, backbone):
    """Dropout is asked for by `dropout`: after PyTorch's own `train()` two teacher passes are bit-equal."""
    model = build("mpt all", make_backbone(backbone.name))
    calm = logits_of(model)
    model.train()
    assert torch.equal(logits_of(model), calm)
    assert torch.equal(model(BATCH).logits[BATCH.labels != IGNORE], calm)


def test_training_mode_alone_brings_no_dropout_into_answers(make_backbone, backbone):
    """After PyTorch's own `train()` written and scored answers are those of evaluation mode."""
    model = build("mpt all", make_backbone(backbone.name))
    found = []
    for _ in range(2):
        context = model.begin(SOURCES, TASK_IDS)
        scores = model.backbone.score(context, [(YES, 1), (NO, 7, 1), (NO, 8, 1)])
        found.append((scores, model.backbone.generate(context, 6)))
        model.train()
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


# micro-batches


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5])
@every_method
@three
def test_micro_batches_add_up_to_the_big_batch(make_backbone, name, method, micro_batch):
    """Gradients and logged terms of a step do not depend on how its rows are cut, uneven targets and all."""
    found = []
    for size in (None, micro_batch):
        fresh, lines = make_backbone(name), []
        model = build(method, fresh)
        settings = optim(RATES[method], 1, micro_batch=size, clip=1e9)
        fit(model, always, loss_of(method, fresh), settings, hooks=Hooks(log=lines.append))
        gradients = [parameter.grad for group in model.trained.values() for parameter in group]
        found.append((gradients, lines[0]))
    (whole, line), (parts, parts_line) = found
    assert parts_line == pytest.approx(line, rel=1e-5)
    largest = max(gradient.abs().max().item() for gradient in whole)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5 * largest)


# what goes wrong


def failing(kind, at):
    """The language-model loss, but at one call its value or its gradient is no number."""
    calls = []

    def loss(model, batch, totals):
        value, terms = lm_loss(model, batch, totals)
        calls.append(None)
        if len(calls) == at:
            bad = float("nan") if kind == "loss" else (model.prompts.prompts.sum() * 0).sqrt()
            value = value + bad
        return value, terms

    return loss


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_stops_training(backbone, kind):
    """The error names the step and the remedy, and the bad step has moved nothing."""
    model, states = build("prompt_tuning", backbone), []
    hooks = Hooks(log=lambda line: states.append(model.state()))
    with pytest.raises(NumericError, match=f"the {kind} is") as caught:
        fit(model, always, failing(kind, 3), optim(RATES["prompt_tuning"], 5), hooks=hooks)
    assert caught.value.where == "step 3"
    assert caught.value.code == "N01"
    assert "optim.lr" in caught.value.fix
    assert len(states) == 2
    assert equal(model.state(), states[-1])


@pytest.mark.parametrize("method", ["prompt_tuning", "mpt all", "mpt factors"])
def test_a_prompt_that_explodes_stops_training(backbone, method):
    """Entries a thousand times the size of embeddings are an error that names the step."""
    model = build(method, backbone)
    rates = dict.fromkeys(RATES[method], 1e5 * model.backbone.scale)
    with pytest.raises(NumericError, match="exploded") as caught:
        fit(model, always, lm_loss, optim(rates, 3))
    assert (caught.value.code, caught.value.where) == ("N03", "step 1")


def test_a_large_prompt_is_warned_of(backbone):
    """Entries a hundred times the size of embeddings are no error yet; those of like size say nothing."""
    model, warnings = build("prompt_tuning", backbone), []
    rates = {"prompt": 100 * model.backbone.scale}
    fit(model, always, lm_loss, optim(rates, 1), hooks=Hooks(warn=warnings.append))
    assert len(warnings) == 1
    assert "step 1" in warnings[0]
    quiet = build("prompt_tuning", backbone)
    fit(quiet, always, lm_loss, optim({"prompt": quiet.backbone.scale}, 1), hooks=Hooks(warn=warnings.append))
    assert len(warnings) == 1


def test_prompt_scale_is_that_of_embeddings(backbone):
    """The natural size of a prompt's entries is the embeddings' root mean square."""
    expected = np.sqrt((backbone.embeddings.detach().double().numpy() ** 2).mean())
    assert backbone.scale == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "rates", [{}, {"shared": 0.1}, {"shared": 0.1, "factors": 0.1, "model": 0.1}, {"prompt": 0.1}]
)
def test_every_group_needs_its_rate_and_every_rate_its_group(backbones, rates):
    """Rates for other groups than the method trains are an error of the configuration, before any step."""
    model = build("mpt all", backbones["t5"])
    before = model.state()
    with pytest.raises(ConfigError, match=r"factors, shared.*optim\.lr") as caught:
        fit(model, always, lm_loss, optim(rates))
    assert caught.value.where == "optim.lr"
    assert equal(model.state(), before)


def test_factors_do_not_decay(backbones):
    """Weight decay is on the shared prompt, and never on the factors."""
    optimizer = make_optimizer(build("mpt all", backbones["t5"]), optim(RATES["mpt all"], weight_decay=0.3))
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"shared": 0.3, "factors": 0.0}


# rates


@pytest.mark.parametrize(
    ("steps", "warmup", "table"),
    [
        (10, 0.2, [0, 1 / 2, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (5, 0.6, [0, 1 / 3, 2 / 3, 1, 1 / 2]),
        (3, 0.9, [0, 1 / 3, 2 / 3]),
        (1, 0.1, [1]),
    ],
)
def test_rate_factor_equals_a_table(steps, warmup, table):
    """The rate rises from 0 in equal parts to one, and falls in equal parts towards 0, not reached again."""
    settings = optim({"prompt": 1.0}, steps, warmup=warmup)
    assert [rate_factor(step, settings) for step in range(steps)] == pytest.approx(table)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0.2), (7, 0.0), (50, 0.1), (9, 0.9), (30_000, 0.1)])
def test_rates_are_those_of_the_usual_linear_schedule(steps, warmup):
    """Step by step those of transformers, exactly."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    usual = get_linear_schedule_with_warmup(optimizer, round(warmup * steps), steps)
    settings = optim({"prompt": 1.0}, steps, warmup=warmup)
    for step in range(steps):
        assert rate_factor(step, settings) == usual.get_last_lr()[0]
        optimizer.step()
        usual.step()


def test_fit_uses_and_logs_the_rate_of_each_step(backbones, monkeypatch):
    """Every group's rate is its own rate times the factor of the step, which the log line has too."""
    model, lines, rates = build("mpt all", backbones["t5"]), [], []
    whole = torch.optim.AdamW.step

    def step(self):
        rates.append([group["lr"] for group in self.param_groups])
        whole(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    hooks = Hooks(log=lines.append)
    fit(model, always, lm_loss, optim({"shared": 0.1, "factors": 0.4}, 4, warmup=0.5), hooks=hooks)
    assert [line["rate"] for line in lines] == pytest.approx([0, 0.5, 1, 0.5])
    assert np.array(rates) == pytest.approx(np.array([[0, 0], [0.05, 0.2], [0.1, 0.4], [0.05, 0.2]]))
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


# which state is kept


def fit_with_scores(backbone, scores, **kw):
    """Train while a list gives the dev scores; the progress, every step's state, and the state kept."""
    model, states, given = build("prompt_tuning", backbone), [], iter(scores)
    hooks = Hooks(log=lambda line: states.append(model.state()))
    settings = optim(RATES["prompt_tuning"], **{"steps": 4, "eval_every": 1, **kw})
    progress = fit(model, always, lm_loss, settings, validate=lambda: next(given), hooks=hooks)
    return progress, states, model.state()


def test_the_earliest_best_state_is_kept(backbones):
    """Of equal scores the first counts, and the model ends in the state it had there."""
    progress, states, kept = fit_with_scores(backbones["t5"], [1.0, 3.0, 2.0, 3.0])
    assert (progress.best, progress.best_step) == (3.0, 2)
    assert progress.scores == [(1, 1.0), (2, 3.0), (3, 2.0), (4, 3.0)]
    assert equal(kept, states[1])


def test_the_last_state_is_kept_on_demand(backbones):
    """With keep: last the best score is known, and the last state stays."""
    progress, states, kept = fit_with_scores(backbones["t5"], [1.0, 3.0, 2.0, 2.0], keep="last")
    assert progress.best_step == 2
    assert equal(kept, states[3])


def test_without_dev_scores_the_last_state_is_kept(backbones):
    """Where nothing is scored there is no best state."""
    progress, states, kept = fit_with_scores(backbones["t5"], [], eval_every=None)
    assert (progress.best, progress.scores) == (None, [])
    assert equal(kept, states[-1])


def test_dev_is_scored_when_due_and_after_the_last_step(backbones):
    """Every third step, and the last."""
    progress, _, _ = fit_with_scores(backbones["t5"], [1.0, 2.0, 3.0], steps=7, eval_every=3)
    assert [step for step, _ in progress.scores] == [3, 6, 7]


def test_training_ends_when_patience_does(backbones):
    """After two scores in a row without a better one, training ends, and the best state is kept."""
    scores = [1.0, 0.5, 2.0, 2.0, 1.0, 9.0]
    progress, states, kept = fit_with_scores(backbones["t5"], scores, steps=6, patience=2)
    assert (progress.step, progress.best_step, progress.stale) == (5, 3, 2)
    assert len(states) == 5
    assert equal(kept, states[2])


def test_dev_scores_stand_in_the_log(backbones):
    """The log line of a scored step has the score, that of another step has none."""
    lines, scores = [], iter([1.0, 2.0])
    settings = optim(RATES["prompt_tuning"], 4, eval_every=2)
    model = build("prompt_tuning", backbones["t5"])
    fit(model, always, lm_loss, settings, validate=lambda: next(scores), hooks=Hooks(log=lines.append))
    assert [line.get("dev") for line in lines] == [None, 1.0, None, 2.0]


# going on


def always_save(save, *, must=False):
    """The pace that saves after every step."""
    save()


@three
@pytest.mark.parametrize("method", ["prompt_tuning", "mpt all", "full"])
def test_a_resumed_run_equals_one_that_never_stopped(make_backbone, name, method):
    """From a checkpoint in the middle, parameters, scores and log are bit for bit those of the whole run."""
    task = EncodedTask("a", tuple(Encoded(*pair) for pair in zip(SOURCES, TARGETS, strict=True)))
    batches = EpochBatches((task,), 2, seed=3)
    settings = optim(RATES[method], 6, batch_size=2, warmup=0.3, eval_every=2)

    def run(resume=None):
        model, lines, saved = build(method, make_backbone(name)), [], []
        logits_of(model)  # texts that are kept are read together here, and so round alike in both runs
        hooks = Hooks(log=lines.append, save=lambda one: saved.append(copy.deepcopy(one)))

        def dev():
            totals = Totals(len(SOURCES), BATCH.target_tokens)
            with torch.no_grad():
                return -lm_loss(model, BATCH, totals)[0].item()

        progress = fit(
            model, batches, lm_loss, settings, validate=dev, hooks=hooks, resume=resume, pace=always_save
        )
        return model.state(), progress, lines, saved

    state, progress, lines, saved = run()
    assert saved[2].progress.step == 3
    again, resumed, later, _ = run(saved[2])
    assert equal(again, state)
    assert resumed == progress
    assert later == lines[3:]


def test_a_finished_run_resumes_to_its_end(backbones):
    """Resuming after the last step trains nothing and leaves the best state."""
    saved, scores = [], iter([2.0, 1.0, 0.0])
    settings = optim(RATES["prompt_tuning"], 3, eval_every=1)
    model = build("prompt_tuning", backbones["t5"])
    hooks = Hooks(save=lambda one: saved.append(copy.deepcopy(one)))
    fit(model, always, lm_loss, settings, validate=lambda: next(scores), hooks=hooks, pace=always_save)
    again = build("prompt_tuning", backbones["t5"])
    fit(again, always, lm_loss, settings, validate=lambda: math.nan, resume=saved[-1])
    assert isinstance(saved[-1], Checkpoint)
    assert equal(again.state(), model.state())


# states and tensors


@every_method
def test_a_state_makes_the_same_model_of_another(make_backbone, backbone, method):
    """Trained parameters, carried over to a fresh model, give equal logits."""
    trained, fresh = (build(method, make_backbone(backbone.name)) for _ in range(2))
    fit(trained, always, lm_loss, optim(RATES[method]))
    state = trained.state()
    fresh.load_state(state)
    assert torch.equal(logits_of(fresh), logits_of(trained))
    assert equal(fresh.state(), state)


def test_a_state_is_a_copy(backbones):
    """Training on does not change a state that was taken."""
    model = build("prompt_tuning", backbones["t5"])
    state = model.state()
    before = copies(state.items())
    fit(model, always, lm_loss, optim(RATES["prompt_tuning"]))
    assert equal(state, before)


def test_states_that_do_not_fit_are_refused(backbones):
    """Other names or shapes than the model trains are an error, and nothing is loaded."""
    model = build("mpt all", backbones["t5"])
    good = model.state()
    for wrong in ({"shared": good["shared"]}, {**good, "u": good["u"][:2]}, {**good, "w": good["u"]}, {}):
        with pytest.raises(ValueError, match="expected"):
            model.load_state({name: value + 1 for name, value in wrong.items()})
    assert equal(model.state(), good)


def test_tensors_of_a_model_with_frozen_parts_are_whole(backbones):
    """What is kept of MPT with factors alone has the shared prompt too."""
    model = build("mpt factors", backbones["t5"])
    assert set(model.state()) == {"u", "v"}
    assert set(model.tensors()) == {"shared", "u", "v"}


def restored(method, backbone, tensors):
    """The model that a method's run answers with."""
    tasks = tuple(Task(name, lambda split: [], lambda row: [], lambda row: "", {}) for name in TASKS)
    setup = Setup(tasks, [], 0, PromptConfig(), (16,) * len(tasks), load_backbone=lambda: backbone)
    return METHODS[method].restore(setup, Saved(tensors)).model


@every_method
def test_restored_models_have_equal_logits(make_backbone, backbone, method):
    """Tensors of a trained model, put on the base model again, give its logits bit for bit."""
    model = build(method, make_backbone(backbone.name))
    fit(model, always, lm_loss, optim(RATES[method]))
    again = restored(method, make_backbone(backbone.name), model.tensors())
    assert torch.equal(logits_of(again), logits_of(model))
    assert again.tasks == TASKS


@pytest.mark.parametrize("method", ["prompt_tuning", "mpt all"])
def test_prompts_of_another_width_are_refused(backbone, method):
    """The error says both widths and where to look."""
    sizes = {"prompts": (3, P, 8), "shared": (P, 8), "u": (3, P, 1), "v": (3, 1, 8)}
    names = {"prompts"} if method == "prompt_tuning" else {"shared", "u", "v"}
    with pytest.raises(ArtifactError, match=r"8 numbers.* embeddings 32") as caught:
        restored(method, backbone, {name: torch.zeros(sizes[name]) for name in names})
    assert caught.value.code == "A07"


def test_weights_of_another_model_are_refused_and_leave_the_backbone_alone(make_backbone):
    """Weights that do not fit are an error of the artifact, and the backbone is as frozen as before."""
    tensors = build("full", make_backbone("gpt2-prefix")).tensors()
    fresh = make_backbone("llama-prefix")
    with pytest.raises(ArtifactError):
        restored("full", fresh, tensors)
    assert fresh.frozen


# learning


def answer_rows(word, count, seed):
    """Random texts that all have the same answer."""
    draw = np.random.default_rng(seed)
    texts = [tuple(int(token) for token in draw.integers(3, 66, draw.integers(1, 6))) for _ in range(count)]
    return tuple(Encoded(text, (word, 1)) for text in texts)


ROWS = {"says yes": answer_rows(YES, 12, 0), "says no": answer_rows(NO, 12, 1)}


@pytest.fixture(scope="module")
def trained(make_backbone):
    """Prompts of two tasks, one always answered yes and one always no; with the losses of training."""
    found = {}

    def make(name):
        if name not in found:
            backbone, lines = make_backbone(name), []
            start = drawn(P, backbone.width, scale=prompt_scale_of(backbone)).repeat(2, 1, 1)
            model = with_prompts(backbone, start, tuple(ROWS))
            batches = EpochBatches(tuple(EncodedTask(task, rows) for task, rows in ROWS.items()), 24, seed=0)
            settings = optim({"prompt": 0.5 * model.backbone.scale}, 60, batch_size=24)
            fit(model, batches, lm_loss, settings, hooks=Hooks(log=lines.append))
            found[name] = model, [line["loss"] for line in lines]
        return found[name]

    return make


def test_training_lowers_the_loss(backbone, trained):
    """Two tasks that a prompt alone can solve are learnt: the loss of the same rows falls by far."""
    _, losses = trained(backbone.name)
    assert losses[-1] < 0.6 * losses[0]


def test_trained_prompts_lean_to_what_they_were_taught(backbone, trained):
    """Among yes and no, new texts get far more of yes under the prompt that was taught yes."""
    model, _ = trained(backbone.name)
    sources = [row.source for row in answer_rows(YES, 20, seed=9)]
    words = [model.backbone.answer_tokens(word) for word in ("yes", "no")]
    taught_yes, taught_no = (model.backbone.score(model.begin(sources, [k] * 20), words) for k in (0, 1))
    assert (taught_yes - taught_no)[:, 0].mean() > 0.5
    assert (taught_no - taught_yes)[:, 1].mean() > 0.05


@pytest.mark.parametrize("choices", [(), ((YES, 1), (NO, 1))], ids=["open", "closed"])
def test_nearest_is_the_prompt_that_was_trained_for_the_task(backbone, trained, choices):
    """New rows of a task find the prompt that was trained on its like."""
    model, _ = trained(backbone.name)
    prompts = dict(zip(model.tasks, model.prompts.prompts.detach(), strict=True))
    for task, word in (("says yes", YES), ("says no", NO)):
        name, losses = nearest(model.backbone, prompts, answer_rows(word, 8, seed=5), choices)
        assert name == task
        assert losses[name] == min(losses.values())


@pytest.mark.parametrize("pass_rows", [2, 32])
def test_nearest_measures_the_loss_of_the_answers(backbone, pass_rows, monkeypatch):
    """Open answers: the mean over target tokens; closed ones: the mean over rows, among the choices."""
    monkeypatch.setattr(importlib.import_module("weft.evaluation.nearest"), "PASS_ROWS", pass_rows)
    suffix = isinstance(backbone, CausalBackbone) and backbone.suffix
    prompt, choices = drawn_prompts(backbone)[0], [(YES, 1), (NO, 1), (5, 6, 1)]
    rows = [Encoded(source, choices[i % 3]) for i, source in enumerate(SOURCES)]
    with torch.no_grad():
        open_loss = sum(
            reference.cross_entropy_sum(
                plain.target_logits(backbone.lm, row.source, prompt, row.target, suffix=suffix)[None].numpy(),
                [row.target],
            )
            for row in rows
        )
        closed_loss = -sum(
            reference.constrained_log_prob(
                lambda written, row=row: plain.next_logits(
                    backbone.lm, row.source, prompt, written, suffix=suffix
                ).numpy(),
                choices,
                row.target,
            )
            for row in rows
        )
    assert nearest(backbone, {"p": prompt}, rows) == ("p", {"p": pytest.approx(open_loss / 11, rel=1e-4)})
    found = nearest(backbone, {"p": prompt}, rows, choices)
    assert found == ("p", {"p": pytest.approx(closed_loss / 5, rel=1e-4)})


def test_nearest_uses_the_first_64_rows(backbones):
    """Rows after the 64th change nothing."""
    prompt, rows = drawn_prompts(backbones["t5"])[0], answer_rows(YES, 64, seed=2)
    more = (*rows, *answer_rows(NO, 10, seed=3))
    assert nearest(backbones["t5"], {"p": prompt}, more) == nearest(backbones["t5"], {"p": prompt}, rows)


def test_nearest_of_equal_prompts_is_the_first(backbones):
    """Where losses are equal, the order of the names decides."""
    prompt = drawn_prompts(backbones["t5"])[0]
    for names in (("one", "other"), ("other", "one")):
        prompts = dict.fromkeys(names, prompt)
        assert nearest(backbones["t5"], prompts, ROWS["says yes"])[0] == names[0]
