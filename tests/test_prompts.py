"""Prompts against loops, NumPy and PEFT; the gauge and the starts by their properties."""

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import MultitaskPromptTuningConfig, TaskType
from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding
from reference import mpt as reference
from transformers import T5Config, T5ForConditionalGeneration

from weft.config.training import FactorConfig, PromptConfig
from weft.errors import ConfigError, UnsupportedError
from weft.models import Seq2SeqBackbone
from weft.models.fresh_prompt import fresh_prompt
from weft.models.tuned import with_bank, with_prompts
from weft.prompts.bank import PromptBank, SoftPrompts, compose, new_bank, target_bank
from weft.prompts.factors import draw_factors, mean_factors, normalise_gauge
from weft.prompts.initial import repeated_tokens, sampled_vocabulary
from weft.prompts.similarity import similarity

modest = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
few = st.integers(1, 5)


def generator(seed):
    """A seeded torch generator."""
    return torch.Generator().manual_seed(seed)


def drawn(seed, tasks, length, width, rank=1):
    """A random shared prompt and factors of every sign, none near 0."""
    draw = np.random.default_rng(seed)

    def numbers(*shape):
        size = draw.uniform(0.2, 2.0, shape) * draw.choice([-1.0, 1.0], shape)
        return torch.tensor(size, dtype=torch.float32)

    return numbers(length, width), numbers(tasks, length, rank), numbers(tasks, rank, width)


def start_of(shared, u, v):
    """The prompt a new task starts from, in float64."""
    shared, u, v = (part.double() for part in mean_factors(shared, u, v))
    return compose(shared, u, v)[0].numpy()


def assert_same_start(one, other):
    """Both sets of factors give new tasks the same start, within float32."""
    ours, theirs = start_of(*one), start_of(*other)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(ours).max())


# composition


@pytest.mark.parametrize("rank", [1, 2])
def test_compose_equals_loops(rank):
    """Each entry of a task's prompt is the shared entry times the sum over the rank of u v."""
    shared, u, v = drawn(1, tasks=3, length=4, width=5, rank=rank)
    np.testing.assert_allclose(compose(shared, u, v).numpy(), reference.compose(shared, u, v), rtol=1e-5)


def test_compose_takes_one_task_without_an_axis():
    """One task's factors `[P, R]`, `[R, D]` give its prompt `[P, D]`."""
    shared, u, v = drawn(2, tasks=3, length=4, width=5, rank=2)
    torch.testing.assert_close(compose(shared, u[1], v[1]), compose(shared, u, v)[1])


def test_shapes_are_checked_in_tests():
    """The import hook is on: factors of unlike rank are refused by their annotations."""
    shared, u, v = drawn(1, tasks=1, length=4, width=5)
    with pytest.raises(jaxtyping.TypeCheckError):
        compose(shared, u, v.repeat(1, 2, 1))


@pytest.mark.parametrize("rank", [1, 2])
def test_bank_equals_peft(rank):
    """PEFT's multitask prompt embedding gives the same prompts, for tasks out of order and repeated."""
    shared, u, v = drawn(3, tasks=3, length=4, width=6, rank=rank)
    config = MultitaskPromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=4,
        num_transformer_submodules=1,
        token_dim=6,
        num_tasks=3,
        num_ranks=rank,
    )
    peft = MultitaskPromptEmbedding(config, torch.nn.Embedding(10, 6))
    names = {"embedding.weight": shared, "prefix_task_cols": u, "prefix_task_rows": v}
    peft.load_state_dict(names, strict=True)
    task_ids = torch.tensor([2, 0, 0, 1, 2])
    theirs = peft(torch.arange(4).expand(5, 4), task_ids)
    torch.testing.assert_close(PromptBank(shared, u, v, ("a", "b", "c"))(task_ids), theirs)


def test_bank_gives_each_row_its_task():
    """Row b has the prompt of task task_ids[b], whatever the order."""
    shared, u, v = drawn(4, tasks=3, length=2, width=3)
    expected = reference.compose(shared, u, v)
    found = PromptBank(shared, u, v, ("a", "b", "c"))(torch.tensor([2, 0, 2, 1])).detach().numpy()
    np.testing.assert_allclose(found, expected[[2, 0, 2, 1]], rtol=1e-5)


def test_soft_prompts_give_each_row_its_task():
    """Row b has the plain prompt of task task_ids[b]."""
    prompts = torch.randn(3, 2, 4, generator=generator(0))
    found = SoftPrompts(prompts, ("a", "b", "c"))(torch.tensor([1, 1, 2, 0]))
    assert torch.equal(found, prompts[[1, 1, 2, 0]])


def test_modules_keep_copies():
    """A bank's parameters share no memory with what it was made of."""
    shared, u, v = drawn(4, tasks=1, length=2, width=3)
    bank = PromptBank(shared, u, v, ("a",))
    before = shared.clone()
    with torch.no_grad():
        bank.shared.add_(1)
    assert torch.equal(shared, before)


def test_modules_refuse_wrong_numbers_of_tasks():
    """Names and factors must be of the same number."""
    shared, u, v = drawn(4, tasks=2, length=2, width=3)
    with pytest.raises(ValueError, match="tasks"):
        PromptBank(shared, u, v, ("a",))
    with pytest.raises(ValueError, match="tasks"):
        SoftPrompts(torch.zeros(2, 3, 4), ("a",))


# the first values of the factors


@pytest.mark.parametrize("rank", [1, 3])
def test_ones_start_every_task_near_the_shared_prompt(rank):
    """With `ones` the products u v lie near one, so that P_k starts near P*."""
    u, v = draw_factors(4, 20, 32, rank=rank, init="ones", generator=generator(0))
    products = u.double() @ v.double()
    assert products.mean().item() == pytest.approx(1, abs=0.01)
    assert (products - 1).abs().max() < 0.2
    shared = torch.randn(20, 32, generator=generator(1))
    assert (compose(shared, u, v) - shared).norm() < 0.05 * shared.norm() * 4**0.5


def test_ones_start_differs_between_tasks():
    """The noise breaks the symmetry: no two tasks start alike."""
    u, v = draw_factors(2, 5, 6, rank=1, init="ones", generator=generator(0))
    assert not torch.equal(u[0], u[1])
    assert not torch.equal(v[0], v[1])


def test_uniform_start_lies_within_its_bounds_and_fills_them():
    """With `uniform` the factors lie in [-0.5, 0.5) and reach near both ends."""
    for factor in draw_factors(3, 40, 50, rank=2, init="uniform", generator=generator(0)):
        assert -0.5 <= factor.min() < -0.45
        assert 0.45 < factor.max() < 0.5
        assert abs(factor.mean()) < 0.05


def test_normal_start_nearly_zeroes_the_prompt():
    """With `normal-0.02` the factors have PEFT's deviation, and the products are some 0.0004 in size."""
    u, v = draw_factors(3, 50, 60, rank=1, init="normal-0.02", generator=generator(0))
    assert u.std().item() == pytest.approx(0.02, rel=0.15)
    assert v.std().item() == pytest.approx(0.02, rel=0.15)
    assert (u @ v).abs().mean() < 1e-3


@pytest.mark.parametrize("init", ["ones", "uniform", "normal-0.02"])
def test_factors_depend_on_the_seed_alone(init):
    """The same seed draws the same factors, another seed others."""
    one, same, other = (
        draw_factors(2, 4, 5, rank=2, init=init, generator=generator(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("rank", [0, -1, 5])
def test_rank_outside_its_bounds_is_refused(rank):
    """A rank lies between 1 and the smaller of length and width."""
    with pytest.raises(ValueError, match="between 1 and 4"):
        draw_factors(2, 4, 5, rank=rank, init="ones", generator=generator(0))


@pytest.mark.parametrize("rank", [1, 4])
def test_rank_at_its_bounds_is_served(rank):
    """The smallest and the largest rank work."""
    u, v = draw_factors(2, 4, 5, rank=rank, init="ones", generator=generator(0))
    assert (u.shape, v.shape) == ((2, 4, rank), (2, rank, 5))


def test_unknown_start_is_refused():
    """A start of the factors that does not exist is an error."""
    with pytest.raises(ValueError, match="unknown start"):
        draw_factors(2, 4, 5, rank=1, init="zeros", generator=generator(0))


# golden counts of the paper's setting: P = 100, D = 768


@pytest.fixture(scope="module")
def wide(make_backbone):
    """A backbone with T5-Base's width and little else."""
    config = T5Config(
        vocab_size=8, d_model=768, d_kv=2, d_ff=2, num_layers=1, num_heads=1, decoder_start_token_id=0
    )
    return Seq2SeqBackbone(T5ForConditionalGeneration(config), make_backbone("t5").tokenizer)


def mpt_model(wide, tasks, train="all"):
    """MPT of a hundred prompt tokens on some tasks."""
    names = tuple(f"task{k}" for k in range(tasks))
    bank = new_bank(torch.ones(100, 768), FactorConfig(), names, seed=0)
    return with_bank(wide, bank, train=train)


def test_prompt_tuning_trains_76800_numbers(wide):
    """Vanilla prompt tuning: 100 * 768."""
    model = with_prompts(wide, torch.ones(1, 100, 768), ("task",))
    assert model.trained_parameters == 76_800


@pytest.mark.parametrize(
    ("tasks", "train", "numbers"), [(1, "all", 77_668), (1, "factors", 868), (6, "all", 82_008)]
)
def test_mpt_trains_the_papers_numbers(wide, tasks, train, numbers):
    """The shared prompt, and 100 + 768 for each task."""
    assert mpt_model(wide, tasks, train).trained_parameters == numbers


def test_a_group_of_eight_trains_10468_numbers_a_task(wide):
    """Eight targets that share a prompt: (76,800 + 8 * 868) / 8."""
    model = mpt_model(wide, 8)
    assert model.trained_parameters / len(model.tasks) == 10_468


# the gauge


@modest
@given(seeds, few, few, few)
def test_normalising_the_gauge_changes_no_prompt(seed, tasks, length, width):
    """Every P_k is the same before and after."""
    shared, u, v = drawn(seed, tasks, length, width)
    before = reference.compose(shared, u, v)
    after = reference.compose(*normalise_gauge(shared, u, v))
    np.testing.assert_allclose(after, before, rtol=1e-5)


@modest
@given(seeds, few, few, few)
def test_normalised_factors_have_unit_geometric_means_and_positive_majorities(seed, tasks, length, width):
    """Over the tasks each row of u and of v has geometric mean 1 and is not negative more often than not."""
    shared, u, v = drawn(seed, tasks, length, width)
    _, u, v = normalise_gauge(shared, u, v)
    for factor in (u[..., 0].numpy(), v[:, 0].numpy()):
        np.testing.assert_allclose(np.exp(np.log(np.abs(factor)).mean(0)), 1, rtol=1e-4)
        assert (np.sign(factor).sum(0) >= 0).all()


@modest
@given(seeds, few, few, few)
def test_normalising_twice_is_normalising_once(seed, tasks, length, width):
    """The normal form is its own normal form."""
    once = normalise_gauge(*drawn(seed, tasks, length, width))
    for first, second in zip(once, normalise_gauge(*once), strict=True):
        torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-6)


@modest
@given(seeds, few, few, few)
def test_the_start_does_not_depend_on_the_scale_of_rows_and_columns(seed, tasks, length, width):
    """P* -> diag(a) P* diag(b), u -> u / a, v -> v / b, of either sign: the mean start stays."""
    shared, u, v = drawn(seed, tasks, length, width)
    a, b = drawn(seed + 1, 1, length, width)[1:]  # [1, P, 1] and [1, 1, D]
    assert_same_start((shared, u, v), (a[0] * shared * b[0], u / a, v / b))


@modest
@given(seeds, few, few, few)
def test_the_start_does_not_depend_on_how_a_task_shares_its_size(seed, tasks, length, width):
    """(u_k, v_k) -> (c_k u_k, v_k / c_k), of either sign: the mean start stays."""
    shared, u, v = drawn(seed, tasks, length, width)
    c = drawn(seed + 1, tasks, 1, 1)[1]  # [K, 1, 1]
    assert_same_start((shared, u, v), (shared, c * u, v / c))


@modest
@given(seeds, st.integers(2, 5), few, few)
def test_the_start_does_not_depend_on_the_order_of_the_other_tasks(seed, tasks, length, width):
    """Any order of the tasks after the first gives the same start."""
    shared, u, v = drawn(seed, tasks, length, width)
    order = [0, *(1 + np.random.default_rng(seed).permutation(tasks - 1)).tolist()]
    assert_same_start((shared, u, v), (shared, u[order], v[order]))


@modest
@given(seeds, few, few)
def test_the_start_of_two_tasks_does_not_depend_on_their_order(seed, length, width):
    """With two tasks it does not matter which is the first."""
    shared, u, v = drawn(seed, 2, length, width)
    assert_same_start((shared, u, v), (shared, u.flip(0), v.flip(0)))


@modest
@given(seeds, st.integers(2, 5), st.integers(2, 5), st.integers(2, 5))
def test_the_start_of_tasks_that_agree_in_sign_does_not_depend_on_their_order(seed, tasks, length, width):
    """Factors of one sign pattern up to each task's own sign, as `ones` gives them: any order will do."""
    shared, u, v = drawn(seed, tasks, length, width)
    sign = drawn(seed + 1, tasks, 1, 1)[1].sign()
    u, v = u.abs() * u[:1].sign() * sign, v.abs() * v[:1].sign() * sign
    order = np.random.default_rng(seed).permutation(tasks).tolist()
    assert_same_start((shared, u, v), (shared, u[order], v[order]))


def test_the_mean_of_equal_tasks_is_that_task():
    """Tasks that are alike give a start equal to their prompt."""
    shared, u, v = drawn(5, 1, 4, 5)
    start = start_of(shared, u.repeat(3, 1, 1), v.repeat(3, 1, 1))
    np.testing.assert_allclose(start, reference.compose(shared, u, v)[0], rtol=1e-5)


@pytest.mark.parametrize(("first", "second"), [(16.0, 1.0), (0.25, 4.0), (3.0, 3.0)])
def test_the_mean_of_two_numbers_is_as_worked_by_hand(first, second):
    """P = D = 1, prompts p and q: the start is sqrt(pq) ((r + 1/r) / 2)^2 with r = (p / q)^(1/4)."""
    u, v = torch.tensor([[[first]], [[second]]]), torch.ones(2, 1, 1)
    r = (first / second) ** 0.25
    expected = (first * second) ** 0.5 * ((r + 1 / r) / 2) ** 2
    assert start_of(torch.ones(1, 1), u, v).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_factors_of_one_start_at_the_shared_prompt(rank):
    """Tasks whose products are all one give back P*."""
    shared = drawn(6, 1, 4, 5)[0]
    start = start_of(shared, torch.ones(3, 4, rank) / rank, torch.ones(3, rank, 5))
    np.testing.assert_allclose(start, shared.numpy(), rtol=1e-5)


@pytest.mark.parametrize("rank", [2, 3])
def test_the_mean_of_higher_ranks_is_the_truncated_mean_product(rank):
    """Above rank one the start is P* times NumPy's best approximation of the mean of u_k v_k."""
    shared, u, v = drawn(7, 4, 6, 5, rank)
    product = reference.truncated_svd((u.double() @ v.double()).mean(0), rank)
    np.testing.assert_allclose(
        start_of(shared, u, v), shared.double().numpy() * product, rtol=1e-4, atol=1e-5
    )


@modest
@given(seeds, few)
def test_the_mean_of_higher_ranks_does_not_depend_on_how_a_task_mixes_its_ranks(seed, tasks):
    """(u_k, v_k) -> (u_k M_k, M_k^-1 v_k) changes no prompt and no start."""
    shared, u, v = drawn(seed, tasks, 4, 5, rank=2)
    mix = torch.eye(2) + 0.3 * drawn(seed + 1, tasks, 2, 2, rank=2)[1].clamp(-1, 1)
    assert_same_start((shared, u, v), (shared, u @ mix, torch.linalg.inv(mix) @ v))


# targets of a bank


def test_target_tasks_all_start_at_the_mean():
    """A bank for targets gives each of them the start of `mean_factors`."""
    bank = PromptBank(*drawn(8, 3, 4, 5), ("a", "b", "c"))
    prompts = target_bank(bank, ["mean"], ("x", "y"))(torch.tensor([0, 1])).detach().numpy()
    expected = start_of(bank.shared.detach(), bank.u.detach(), bank.v.detach())
    np.testing.assert_allclose(prompts, [expected, expected], rtol=1e-5)


def test_target_tasks_start_at_a_named_source_task():
    """A bank for targets gives each of them the prompt of the source task that is named."""
    bank = PromptBank(*drawn(8, 3, 4, 5), ("a", "b", "c"))
    prompts = target_bank(bank, ["b", "b"], ("x", "y"))(torch.tensor([0, 1]))
    torch.testing.assert_close(prompts, bank(torch.tensor([1, 1])))


def test_target_bank_leaves_its_source_alone():
    """Training a target does not move the source's bank."""
    bank = PromptBank(*drawn(8, 2, 4, 5), ("a", "b"))
    before = bank(torch.tensor([0, 1])).detach().clone()
    target = target_bank(bank, ["a"], ("x",))
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(2)
    assert torch.equal(bank(torch.tensor([0, 1])), before)


def test_unknown_source_task_is_refused_with_a_hint():
    """A misspelt start names the nearest source task."""
    bank = PromptBank(*drawn(8, 2, 4, 5), ("alpha", "beta"))
    with pytest.raises(ConfigError, match="alpha"):
        target_bank(bank, ["alhpa"], ("x",))


# starts of prompts


def test_sampled_vocabulary_draws_different_common_tokens():
    """Rows are embeddings of different ids, none excluded, all among the 5,000 commonest."""
    embeddings = torch.arange(6000.0)[:, None].repeat(1, 2)  # every row tells its id
    exclude = {0, 1, 2, 4000, 5990}
    rows = sampled_vocabulary(embeddings, 4000, exclude=exclude, generator=generator(0))
    ids = [int(value) for value in rows[:, 0]]
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert len(set(ids)) == 4000
    assert not set(ids) & exclude
    assert max(ids) <= 5003  # the 5,000th id that is not special


def test_sampled_vocabulary_can_reach_every_common_token_and_no_other():
    """A prompt of 5,000 tokens has every one of the 5,000 commonest."""
    embeddings = torch.arange(6000.0)[:, None]
    rows = sampled_vocabulary(embeddings, 5000, exclude={0, 1, 2}, generator=generator(0))
    assert sorted(int(value) for value in rows[:, 0]) == list(range(3, 5003))


def test_sampled_vocabulary_depends_on_the_seed_alone():
    """The same seed draws the same prompt, another seed another."""
    embeddings = torch.arange(600.0)[:, None]
    one, same, other = (
        sampled_vocabulary(embeddings, 20, exclude=set(), generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_sampled_vocabulary_repeats_only_where_it_must():
    """A prompt longer than the vocabulary uses every token before any is used again."""
    embeddings = torch.arange(5.0)[:, None]
    rows = sampled_vocabulary(embeddings, 7, exclude={4}, generator=generator(0))
    ids = [int(value) for value in rows[:, 0]]
    assert sorted(ids[:4]) == [0, 1, 2, 3]
    assert ids[4:] == ids[:3]


def test_repeated_tokens_go_round():
    """A text's tokens are repeated in order, or cut, to the prompt's length."""
    embeddings = torch.arange(10.0)[:, None]
    assert repeated_tokens(embeddings, [7, 3, 5], 8)[:, 0].tolist() == [7, 3, 5, 7, 3, 5, 7, 3]
    assert repeated_tokens(embeddings, [7, 3, 5], 2)[:, 0].tolist() == [7, 3]


def test_repeated_tokens_of_nothing_are_refused():
    """A text without tokens cannot start a prompt."""
    with pytest.raises(UnsupportedError, match="no token"):
        repeated_tokens(torch.zeros(3, 2), [], 4)


def test_fresh_prompt_from_the_vocabulary_has_no_special_token(backbone):
    """Every vector of a sampled prompt is the embedding of a word that the tokenizer knows."""
    prompt = fresh_prompt(backbone, PromptConfig(length=30), seed=3)
    rows = [
        next(i for i, row in enumerate(backbone.embeddings) if torch.equal(row, vector)) for vector in prompt
    ]
    assert len(set(rows)) == 30
    assert not set(rows) & backbone.special_ids


def test_fresh_prompt_from_a_text_has_its_embeddings(backbone):
    """`init: text` starts at the embeddings of the text's words, in turn; no end token, no unknown word."""
    config = PromptConfig(length=9, init="text", init_text="the film was zyx good")
    tokens = backbone.tokenizer.convert_tokens_to_ids(["the", "film", "was", "good"])
    expected = backbone.embeddings[[tokens[i % len(tokens)] for i in range(9)]]
    assert torch.equal(fresh_prompt(backbone, config, seed=0), expected)


def test_a_text_of_special_tokens_alone_starts_no_prompt(backbone):
    """Nothing is left of it."""
    config = PromptConfig(length=9, init="text", init_text="</s> zyx")
    with pytest.raises(UnsupportedError, match="no token"):
        fresh_prompt(backbone, config, seed=0)


def test_fresh_prompt_from_labels_has_the_label_words(backbone):
    """`init: labels` starts at the embeddings of the label words, without end tokens."""
    config = PromptConfig(length=5, init="labels")
    prompt = fresh_prompt(backbone, config, seed=0, choices=("yes", "no"))
    yes, no = (backbone.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    assert torch.equal(prompt, backbone.embeddings[[yes, no, yes, no, yes]])


def test_fresh_prompt_from_labels_needs_labels(backbone):
    """`init: labels` on a task without label words is an error of the configuration."""
    with pytest.raises(ConfigError, match="labels"):
        fresh_prompt(backbone, PromptConfig(length=5, init="labels"), seed=0)


# similarity of prompts


@modest
@given(seeds, st.integers(3, 5))
def test_similarity_is_symmetric_with_ones_on_its_diagonal(seed, tasks):
    """Every pair has one cosine between -1 and 1, and a prompt with itself has 1."""
    found = similarity(torch.randn(tasks, 3, 4, generator=generator(seed))).numpy()
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(found), 1, rtol=1e-5)
    assert np.abs(found).max() <= 1 + 1e-5


def test_similarity_is_the_cosine_of_centred_prompts():
    """NumPy's cosine of prompts less their mean, pair by pair."""
    prompts = torch.randn(4, 3, 5, generator=generator(0))
    flat = prompts.double().numpy().reshape(4, -1)
    flat = flat - flat.mean(0)
    expected = [[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in flat] for x in flat]
    np.testing.assert_allclose(similarity(prompts).numpy(), expected, rtol=1e-4, atol=1e-6)


# ablations: no decomposition, plain averaging


def test_the_plain_mean_is_the_mean_of_what_training_left():
    """Against NumPy, and unlike the mean in a fixed gauge where a task's factors are written otherwise."""
    draw = torch.Generator().manual_seed(3)
    shared = torch.randn(4, 5, generator=draw)
    u, v = torch.randn(3, 4, 1, generator=draw), torch.randn(3, 1, 5, generator=draw)
    source = PromptBank(shared, u, v, ("a", "b", "c"))
    found = target_bank(source, ["plain_mean"], ("x", "y"))(torch.tensor([1]))[0].detach().numpy()
    assert found == pytest.approx(shared.numpy() * (u.numpy().mean(0) @ v.numpy().mean(0)))
    scaled = PromptBank(shared, u * torch.tensor([2.0, 1, 1])[:, None, None], v, ("a", "b", "c"))
    scaled.v.data[0] /= 2  # the same prompts, written otherwise
    again = target_bank(scaled, ["plain_mean"], ("x",))(torch.tensor([0]))[0]
    assert not torch.allclose(again, torch.tensor(found))


def test_factors_that_are_not_trained_are_ones_and_leave_one_prompt_for_all():
    """Source training without decomposition: P_k is P* for every task, and P* alone is trained."""
    shared = torch.randn(4, 32)
    bank = new_bank(shared, FactorConfig(train=False), ("a", "b"), seed=0)
    assert torch.equal(bank(torch.tensor([0, 1])), shared.repeat(2, 1, 1))
    assert FactorConfig(train=False).groups == {"shared"}
    with pytest.raises(ValueError, match="leave rank and init out"):
        FactorConfig(train=False, rank=2)


def test_p_star_alone_can_be_trained(backbones):
    """The factors get no gradient, so target training is that of a plain prompt that starts at P*."""
    bank = new_bank(torch.randn(4, 32), FactorConfig(), ("a", "b"), seed=0)
    model = with_bank(backbones["t5"], bank, train="shared")
    assert list(model.trained) == ["shared"]
    assert [one.requires_grad for one in (bank.shared, bank.u, bank.v)] == [True, False, False]
