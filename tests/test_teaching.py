"""Targets of distillation that are kept: right, bounded in error, and the same whenever they are made."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import VOCABULARY
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import mpt as reference

from weft.config.training import DistillConfig, FactorConfig, OptimConfig, SamplingConfig
from weft.data.batch import IGNORE, Encoded, collate
from weft.data.encoding import EncodedTask
from weft.data.sampling import ReadAhead, TaskBatches
from weft.losses import targets as targets_module
from weft.losses.distillation import distillation_loss
from weft.losses.objective import Totals
from weft.losses.target_costs import Costs, costs_of, plan, targets_of, window
from weft.losses.targets import REST, Taught, TeacherTargets, Told
from weft.losses.terms import logit_distillation_sum
from weft.models.tuned import with_bank, with_prompts
from weft.prompts.bank import new_bank
from weft.storage.page_store import PageStore
from weft.training.course import Hooks
from weft.training.loop import fit

modest = settings(max_examples=60, deadline=None)
TASKS = ("a", "b")
P = 4
NAMES = ("t5", "llama-prefix", "gpt2-suffix")
three = pytest.mark.parametrize("name", NAMES)


def drawn_rows(count, seed=0):
    """Examples of unlike length, all different."""
    draw = np.random.default_rng(seed)

    def words(least, most):
        return tuple(int(token) for token in draw.integers(3, 66, draw.integers(least, most)))

    return [Encoded(words(1, 40), (*words(0, 6), 1)) for _ in range(count)]


def batch_of(rows):
    """Rows of both tasks in turn."""
    return collate(rows, [i % 2 for i in range(len(rows))])


def teacher_on(backbone, seed=7):
    """A teacher with one drawn prompt a task."""
    prompts = torch.randn(2, P, backbone.width, generator=torch.Generator().manual_seed(seed))
    return with_prompts(backbone, prompts, TASKS)


def student_on(backbone):
    """A bank that starts somewhere else."""
    shared = torch.randn(P, backbone.width, generator=torch.Generator().manual_seed(8))
    return with_bank(backbone, new_bank(shared, FactorConfig(init="uniform"), TASKS, seed=1))


def in_memory(max_bytes=1 << 30):
    """A store without a folder."""
    return PageStore(None, max_bytes, pytest.fail)


def targets_on(backbone, distill=None, store=None, **kw):
    """Targets of the teacher on a backbone."""
    return TeacherTargets(teacher_on(backbone), distill or DistillConfig(), store or in_memory(), **kw)


def sharpened(targets, factor):
    """Targets of a teacher whose logits are so many times as large."""
    run = targets.teacher.forward
    targets.teacher.forward = lambda *args: replace(out := run(*args), logits=factor * out.logits)
    return targets


@pytest.fixture
def a_few(monkeypatch):
    """The likeliest tokens stand for all, however little probability they have."""
    monkeypatch.setattr(targets_module, "REST", 1.0)


@pytest.fixture(params=[REST, 1.0], ids=["all tokens", "a few"])
def either_form(request, monkeypatch):
    """Targets of all tokens, which the flat teachers of these tests give; and of a few."""
    monkeypatch.setattr(targets_module, "REST", request.param)


def loss_and_gradients(backbone, distill, targets, batch):
    """The loss of a batch, and its gradients in the bank."""
    model = student_on(backbone)
    loss = distillation_loss(teacher_on(backbone), distill, targets)
    value, terms = loss(model, batch, Totals(len(batch.sources), batch.target_tokens))
    value.backward()
    parameters = [one for group in model.trained.values() for one in group]
    return value.item(), terms, torch.cat([one.grad.flatten() for one in parameters])


SETTINGS = [
    {},
    {"temperature": 2.0, "layers": "all", "prompt_positions": True},
    {"logits": False},
    {"hidden": False},
]


@pytest.mark.parametrize("config", SETTINGS, ids=lambda one: "-".join(one) or "default")
def test_kept_in_32_bits_they_give_the_live_loss(backbone, config):
    """All tokens in float32: loss, terms and gradients of the live teacher, in every family and place."""
    batch, distill = batch_of(drawn_rows(9)), DistillConfig(**config, top=0)
    live, terms, gradient = loss_and_gradients(backbone, distill, None, batch)
    targets = targets_on(backbone, distill, half=False)
    kept, again, same = loss_and_gradients(backbone, distill, targets, batch)
    assert kept == pytest.approx(live, rel=1e-5)
    assert again == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in terms.items()}
    assert torch.allclose(same, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


def test_kept_in_16_bits_they_are_near_the_live_loss(backbone):
    """All tokens in 16 bits: within a thousandth of the live loss, and of the size of its gradient."""
    batch, distill = batch_of(drawn_rows(9)), DistillConfig(top=0)
    live, _, gradient = loss_and_gradients(backbone, distill, None, batch)
    kept, _, near = loss_and_gradients(backbone, distill, targets_on(backbone, distill), batch)
    assert kept == pytest.approx(live, rel=1e-3)
    assert (near - gradient).norm() < 1e-3 * gradient.norm()


# the likeliest tokens, and all others as one mass


def both(draw_seed, rows=3, size=12, top=4, spread=2.0, temperature=1.0):
    """Logits of a student and a teacher, the kept form of the latter, labels of all positions."""
    draw = torch.Generator().manual_seed(draw_seed)
    student, teacher = (spread * torch.randn(1, rows, size, generator=draw) for _ in range(2))
    log_probs = torch.log_softmax(teacher[0] / temperature, -1)
    tokens = log_probs.topk(top).indices
    others = torch.ones_like(log_probs).scatter(-1, tokens, 0.0).bool()
    rest = torch.stack([line[mask].exp().sum().log() for line, mask in zip(log_probs, others, strict=True)])
    masses = torch.cat([log_probs.gather(-1, tokens), rest[:, None]], -1)
    told = Told(torch.arange(rows), masses, tokens)
    return student, teacher, told, others, torch.ones(1, rows, dtype=torch.long)


def coarse_kl(student, told, temperature=1.0):
    """The KL of the kept masses in NumPy float64, entry by entry."""
    total = 0.0
    for line, log_p, tokens in zip(
        np.asarray(student, np.float64)[0], told.log_probs.double().numpy(), told.tokens, strict=True
    ):
        log_q = reference.log_softmax(line / temperature)
        others = [token for token in range(len(line)) if token not in tokens.tolist()]
        masses = [*(log_q[token] for token in tokens.tolist()), np.log(np.exp(log_q[others]).sum())]
        total += sum(np.exp(p) * (p - q) for p, q in zip(log_p, masses, strict=True))
    return total * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kept_tokens_and_their_gradient_equal_plain_loops(temperature):
    """The KL over k + 1 masses, and its gradient by central differences in float64."""
    student, _, told, _, labels = both(3, temperature=temperature)
    leaf = student.clone().requires_grad_()
    value = Taught((told,)).logit_sum(leaf, labels, temperature)
    value.backward()
    assert value.item() == pytest.approx(coarse_kl(student, told, temperature), rel=1e-5)
    expected = reference.numeric_gradient(lambda x: coarse_kl(x, told, temperature), student.double().numpy())
    np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


anything = given(
    seed=st.integers(0, 10**6),
    top=st.integers(1, 11),
    spread=st.floats(0.1, 6),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
)


@modest
@anything
def test_what_is_left_out_is_bounded(seed, top, spread, temperature):
    """0 <= exact - kept <= T^2 times the sum of r times the spread of log p - log q over what is left out."""
    student, teacher, told, others, labels = both(seed, top=top, spread=spread, temperature=temperature)
    exact = logit_distillation_sum(student, teacher, labels, temperature).item()
    kept = Taught((told,)).logit_sum(student, labels, temperature).item()
    ratio = torch.log_softmax(teacher[0] / temperature, -1) - torch.log_softmax(student[0] / temperature, -1)
    bound = 0.0
    for line, mask, log_probs in zip(ratio, others, told.log_probs, strict=True):
        bound += (log_probs[-1].exp() * (line[mask].max() - line[mask].min())).item()
    assert -1e-3 <= exact - kept <= bound * temperature**2 + 1e-3


@modest
@anything
def test_the_gradient_is_off_by_at_most_twice_the_rest(seed, top, spread, temperature):
    """Per position, the absolute differences of the gradient in the student's logits sum to 2 r T or less."""
    student, teacher, told, _, labels = both(seed, top=top, spread=spread, temperature=temperature)
    exact, kept = student.clone().requires_grad_(), student.clone().requires_grad_()
    logit_distillation_sum(exact, teacher, labels, temperature).backward()
    Taught((told,)).logit_sum(kept, labels, temperature).backward()
    off = (exact.grad - kept.grad).abs().sum(-1)[0]
    assert (off <= 2 * told.log_probs[:, -1].exp() * temperature + 1e-5).all()


def full_kl(student, teacher, labels, temperature):
    """The KL of all tokens in NumPy float64, and its gradient in the student's logits, T (q - p)."""
    student, teacher = student.detach().double(), teacher.double()
    value = reference.kl_sum(student.numpy(), teacher.numpy(), labels.tolist(), temperature)
    q, p = (torch.softmax(one / temperature, -1) for one in (student, teacher))
    return value, torch.where((labels != IGNORE)[..., None], temperature * (q - p), 0.0)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("factor", [0.1, 1.0, 4.0], ids=["flat", "mixed", "peaked"])
def test_the_loss_is_that_of_all_tokens(backbones, temperature, factor):
    """Loss and gradient of the full KL in float64, but for 16 bits and a hundredth of the probability."""
    backbone, batch = backbones["t5"], batch_of(drawn_rows(12))
    taught = sharpened(targets_on(backbone, DistillConfig(temperature=temperature, top=12)), factor)(batch)
    with torch.no_grad():
        teacher = factor * teacher_on(backbone)(batch).logits
    draw = torch.Generator().manual_seed(4)
    student = (3 * torch.randn(teacher.shape, generator=draw)).requires_grad_()
    loss = taught.logit_sum(student, batch.labels, temperature)
    loss.backward()
    value, gradient = full_kl(student, teacher, batch.labels, temperature)
    off = (student.grad - gradient).abs().sum(-1)
    few = [one for one in taught.told if one.tokens is not None]
    rest = 0.01 if few else 0.0
    assert off.max() <= 2 * rest * temperature + 2e-3 * gradient.abs().sum(-1).max()
    assert loss.item() == pytest.approx(value, rel=1e-3 + rest)
    assert not (factor < 1 and few)
    assert few or not (factor > 1 and temperature == 1)


def test_rows_of_both_forms_make_one_batch(backbones):
    """A row has all tokens where the likeliest have too little, and the loss is the sum over rows."""
    batch, distill = batch_of(drawn_rows(12)), DistillConfig(top=12)
    targets = targets_on(backbones["t5"], distill)
    taught = targets(batch)
    assert [one.tokens is None for one in taught.told] == [False, True]
    places = torch.cat([one.places for one in taught.told])
    assert sorted(places.tolist()) == list(range(batch.target_tokens))
    student = torch.randn(*batch.labels.shape, VOCABULARY, generator=torch.Generator().manual_seed(4))
    alone = [
        targets(part).logit_sum(student[i : i + 1, : part.labels.shape[1]], part.labels).item()
        for i, part in enumerate(batch.split(1))
    ]
    assert taught.logit_sum(student, batch.labels).item() == pytest.approx(sum(alone), rel=1e-5)
    for one in taught.told:
        if one.tokens is not None:
            assert (one.log_probs[:, -1].exp() <= 0.01001).all()


def test_what_no_loss_asks_for_is_not_kept(backbones):
    """Without L_Logits no tokens are kept, and without L_Hidden no states; without both nothing is asked."""
    batch = batch_of(drawn_rows(4))
    assert targets_on(backbones["t5"], DistillConfig(logits=False))(batch).told == ()
    assert targets_on(backbones["t5"], DistillConfig(hidden=False))(batch).states == ()
    assert not DistillConfig(logits=False, hidden=False).teaches
    assert not DistillConfig(weight=0).teaches
    assert DistillConfig(logits=False).teaches


@pytest.mark.usefixtures("a_few")
def test_the_likeliest_tokens_are_kept(backbones):
    """`top` tokens of each target position, by the live teacher's logits, and the mass of all others."""
    backbone, batch = backbones["t5"], batch_of(drawn_rows(5))
    [told] = targets_on(backbone, DistillConfig(top=6), half=False)(batch).told
    with torch.no_grad():
        logits = teacher_on(backbone)(batch).logits[batch.labels != IGNORE]
    probs = torch.softmax(logits, -1)
    assert told.places.tolist() == list(range(batch.target_tokens))
    assert told.tokens.tolist() == probs.topk(6).indices.tolist()
    expected = probs.topk(6).values
    assert torch.allclose(told.log_probs[:, :-1].exp(), expected, rtol=1e-4)
    assert torch.allclose(told.log_probs[:, -1].exp(), 1 - expected.sum(-1), atol=1e-5)


def test_tokens_that_cannot_be_leave_the_loss_finite():
    """A teacher that rules everything else out gives a finite loss and gradient."""
    student = torch.randn(1, 1, 5).requires_grad_()
    told = Told(torch.arange(1), torch.tensor([[0.0, -1e4, -1e4]]).half(), torch.tensor([[1, 2]]))
    value = Taught((told,)).logit_sum(student, torch.ones(1, 1, dtype=torch.long))
    value.backward()
    assert value.item() == pytest.approx(-torch.log_softmax(student, -1)[0, 0, 1].item(), rel=1e-3)
    assert student.grad.isfinite().all()


# the same whenever they are made


def equal(one, other):
    """Whether two batches' targets are the same bits."""
    told = [all(map(same, part, twin)) for part, twin in zip(parts(one), parts(other), strict=True)]
    return all(told) and all(map(same, one.states, other.states)) and len(one.states) == len(other.states)


def parts(taught):
    """What is told, as tensors."""
    return [(part.places, part.log_probs, part.tokens) for part in taught.told]


def same(one, other):
    """Whether two tensors have the same bits, or are both missing."""
    return one is other is None or torch.equal(one, other)


@three
@pytest.mark.usefixtures("either_form")
def test_company_changes_no_bit(backbones, name):
    """Computed alone, together, in another order or ahead, a row's targets have the same bits."""
    rows = drawn_rows(60)
    distill = DistillConfig(top=5, layers="all")
    alone = [targets_on(backbones[name], distill, half=False)(collate([row], [0])) for row in rows[:6]]
    for order in (rows, rows[::-1]):
        together = targets_on(backbones[name], distill, half=False)
        together.prepare([collate(order, [0] * len(order))])
        assert all(equal(together(collate([row], [0])), one) for row, one in zip(rows, alone, strict=False))


@three
@pytest.mark.usefixtures("either_form")
def test_read_back_they_are_what_was_computed(backbones, tmp_path, name, monkeypatch):
    """Another process finds them in the folder, computes nothing, and has the same bits."""
    batch, folder = batch_of(drawn_rows(20)), tmp_path / "targets"
    first = targets_on(backbones[name], store=PageStore(folder, 1 << 30, pytest.fail))
    computed = first(batch)
    first.prepare([batch])
    again = targets_on(backbones[name], store=PageStore(folder, 1 << 30, pytest.fail))
    monkeypatch.setattr(again.teacher, "forward", lambda *_: pytest.fail("computed again"))
    again.prepare([batch])
    assert equal(again(batch), computed)


def test_nothing_is_computed_twice(backbones, monkeypatch):
    """Rows that come again, in one window or in a later one, cost one pass."""
    targets, passed = targets_on(backbones["t5"]), []
    real = targets._pass
    monkeypatch.setattr(targets, "_pass", lambda rows, *rest: passed.extend(rows) or real(rows, *rest))
    rows = drawn_rows(30)
    for part in (rows[:20], rows[10:], rows):
        targets.prepare([batch_of(part[:10]), batch_of(part[10:])])
        targets(batch_of(part))
    keys = {(row.task, row.source, row.target) for row in passed}
    assert len(passed) == len(keys) == 30


def test_without_room_they_are_the_same(backbones):
    """A store that holds nothing: targets are computed at need, with the same bits."""
    batch = batch_of(drawn_rows(8))
    assert equal(targets_on(backbones["t5"], store=in_memory(0))(batch), targets_on(backbones["t5"])(batch))


def test_what_the_numbers_follow_from_is_in_the_key(backbones, make_backbone):
    """Another teacher, task, text, target, form or model has other keys."""

    def keys(backbone=backbones["t5"], seed=7, half=True, rows=None, **distill):
        store = in_memory()
        targets = TeacherTargets(teacher_on(backbone, seed), DistillConfig(**distill), store, half=half)
        targets.prepare([batch_of(rows or drawn_rows(4))])
        return set(targets._coming)

    plain, one = keys(), drawn_rows(4)[0]
    assert keys() == plain
    other_base = make_backbone("t5")
    other_base.base_hash = "another"
    for changed in (
        keys(seed=9),
        keys(half=False),
        keys(top=3),
        keys(temperature=2.0),
        keys(layers="all"),
        keys(logits=False),
        keys(backbone=other_base),
    ):
        assert not changed & plain
    assert len(keys(rows=[one, one])) == 2  # two tasks
    assert len(keys(rows=[one, Encoded(one.source, (9, 1)), Encoded((*one.source, 5), one.target)])) == 3


def test_numbers_beyond_16_bits_stay_in_32(backbones):
    """A state that float16 cannot hold is kept as it is; others in 16 bits."""
    targets = targets_on(backbones["t5"])
    assert targets._kept(torch.tensor([1.0, 70000.0])).tolist() == [1.0, 70000.0]
    assert targets._kept(torch.tensor([1.0, 60000.0])).dtype == torch.float16


def test_filling_rows_fit_the_models_positions(make_backbone):
    """The longest text that a model with absolute positions reads is not padded beyond them."""
    backbone = make_backbone("gpt2-prefix")
    row = Encoded(tuple([5] * (128 - P - 2)), (6, 1))
    batch = collate([row], [0])
    [kept] = targets_on(backbone, DistillConfig(top=0), half=False)(batch).told
    with torch.no_grad():
        logits = teacher_on(backbone)(batch).logits[0]
    assert torch.allclose(kept.log_probs, torch.log_softmax(logits, -1), atol=1e-4)


@three
@pytest.mark.usefixtures("either_form")
def test_a_run_that_goes_on_has_the_same_bits(backbones, name):
    """Source training from a checkpoint, with nothing kept, ends as the run that never stopped."""
    train = tuple(EncodedTask(task, tuple(drawn_rows(12, seed))) for seed, task in enumerate(TASKS))
    batches = TaskBatches(train, 4, 0, SamplingConfig())
    optim = OptimConfig(lr={"shared": 0.01, "factors": 0.01}, steps=6, batch_size=4)

    def run(resume=None, warm=()):
        backbone = backbones[name]
        targets, saved = targets_on(backbone, DistillConfig(top=8)), []
        targets.prepare(warm)
        ahead = ReadAhead(batches, backbone.prepare, 6, window=4, teach=targets.prepare)
        loss = distillation_loss(teacher_on(backbone), DistillConfig(top=8), targets)
        model = student_on(backbone)
        hooks = Hooks(save=lambda checkpoint: saved.append(copy.deepcopy(checkpoint)))
        fit(model, ahead, loss, optim, hooks=hooks, resume=resume, pace=lambda save, must=False: save())
        return model.state(), saved

    whole, saved = run()
    for again in (run(saved[2])[0], run(warm=[batches(5), batches(3)])[0]):
        assert all(torch.equal(again[part], value) for part, value in whole.items())


# the choice


def test_the_plan_follows_costs_and_room():
    """Kept where the passes that are saved cost more than the bytes, and only where they fit."""
    decoder = Costs(uses=4.0, rows=1000.0, row_bytes=2500, row_flops=4e9)
    assert decoder.live == pytest.approx(0.0192)
    assert decoder.kept == pytest.approx((0.0192 + 25e-6) / 4 + 5e-6)
    assert plan("auto", decoder, 1 << 30) == "kept"
    assert plan("auto", decoder, 1000 * 2500 - 1) == "live"
    once = Costs(uses=1.0, rows=1000.0, row_bytes=2500, row_flops=4e9)
    assert plan("auto", once, 1 << 30) == "live"
    encoder = Costs(uses=2.0, rows=1000.0, row_bytes=215_000, row_flops=2e8)
    assert plan("auto", encoder, 1 << 30) == "live"


@pytest.mark.parametrize("asked", ["live", "kept"])
def test_what_is_asked_for_is_done(asked):
    """A setting beats the plan."""
    assert plan(asked, Costs(uses=1.0, rows=1.0, row_bytes=1, row_flops=1.0), 0) == asked


@modest
@given(uses=st.floats(1, 100), size=st.integers(1, 10**6), flops=st.floats(1e6, 1e12))
def test_more_uses_and_fewer_bytes_never_speak_against_keeping(uses, size, flops):
    """The cost of a use falls with the uses and grows with the bytes."""
    cost = Costs(uses, 10.0, size, flops).kept
    assert Costs(uses + 1, 10.0, size, flops).kept <= cost <= Costs(uses, 10.0, size + 1, flops).kept


def test_the_window_is_bounded_by_memory():
    """64 steps, fewer where their targets take more than 256 MB, at least one."""
    assert window(32, 1200) == 64
    assert window(32, 215_000) == (256 << 20) // (32 * 215_000) == 39
    assert window(512, 10**9) == 1


@pytest.mark.parametrize("asked", ["auto", "live", "kept"])
def test_a_runs_targets_are_kept_where_it_pays_and_are_the_same(backbones, tmp_path, asked):
    """Live leaves the store alone, kept fills it; the numbers are those of each other."""
    batch, opened = batch_of(drawn_rows(8)), []

    def store(max_bytes):
        opened.append(PageStore(tmp_path / "targets", max_bytes, pytest.fail))
        return opened[0]

    distill = DistillConfig(targets=asked, targets_mb=1, top=9)
    targets, steps = targets_of(teacher_on(backbones["t5"]), distill, batch, 50.0, 50, store)
    targets.prepare([batch])
    assert steps == 64
    assert [one.max_bytes for one in opened] == ([1 << 20] if asked == "kept" else [])
    assert len(list(tmp_path.glob("targets/*"))) == (asked == "kept")
    assert equal(targets(batch), targets_on(backbones["t5"], distill)(batch))


@three
@pytest.mark.usefixtures("either_form")
def test_costs_are_counted(backbones, name):
    """Bytes are those that are kept; FLOPs those of a pass, at least 2 for each weight and position."""
    backbone, batch = backbones[name], batch_of(drawn_rows(8))
    targets = targets_on(backbone, DistillConfig(top=8))
    costs = costs_of(targets, batch, rows=50.0, draws=200)
    taught = targets(batch)
    [told] = taught.told
    kept = [told.log_probs, *([] if told.tokens is None else [told.tokens]), *taught.states]
    assert (costs.uses, costs.rows) == (4, 50)
    assert costs.row_bytes == sum(one.nbytes for one in kept) // 8
    block = next(
        value for key, value in backbone.lm.named_parameters() if key.endswith("weight") and "0" in key
    )
    assert costs.row_flops > 2 * block.numel() * P
