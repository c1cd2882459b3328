"""From examples to batches: which rows are drawn, how often, and that every draw follows from its seed."""

from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from weft.config.training import SamplingConfig
from weft.data.batch import Encoded
from weft.data.encoding import EncodedTask
from weft.data.sampling import EpochBatches, ReadAhead, TaskBatches, mixing_weights, pool_size
from weft.data.selection import few_shot, subset
from weft.tasks import Example

modest = settings(max_examples=100, deadline=None)
DRAWS = 3000
SURE = 1e-3  # the draws below are seeded: a test passes always or never


def examples(**counts):
    """So many examples of each answer, all different, answers taking turns."""
    rows = [Example(f"{answer} {i}", answer) for answer, count in counts.items() for i in range(count)]
    return sorted(rows, key=lambda row: int(row.source.split()[1]))


def tasks(*sizes):
    """Encoded tasks whose rows say which they are: source (task, row)."""
    return tuple(
        EncodedTask(f"t{k}", tuple(Encoded((k, i), (1,)) for i in range(size)))
        for k, size in enumerate(sizes)
    )


def counts_of(sizes, size, draws=DRAWS, seed=5, **sampling):
    """The tasks and row numbers of many batches."""
    batches = TaskBatches(tasks(*sizes), size, seed, SamplingConfig(**sampling))
    return [batches.counts(np.random.default_rng([seed, step])) for step in range(draws)]


# choice of rows


def test_subset_is_a_part_in_the_old_order():
    """A capped part: so many rows, each once, in the order of the file, the same every time."""
    rows = examples(yes=30, no=30)
    part = subset(rows, 20)
    assert len(part) == 20
    assert part == [row for row in rows if row in part]
    assert part == subset(rows, 20)
    assert part != rows[:20]


@pytest.mark.parametrize("rows", [None, 4, 5])
def test_subset_of_few_rows_is_all_of_them(rows):
    """No cap, or one that is not reached, leaves the rows as they are."""
    assert subset(examples(yes=2, no=2), rows) == examples(yes=2, no=2)


@modest
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(2, 9), min_size=1),
    st.integers(1, 2),
    st.integers(0, 2**31 - 1),
)
def test_few_shot_draws_as_many_of_every_answer(counts, shots, seed):
    """`shots` rows of every answer, all different, all from the task, the same for the same seed."""
    rows = examples(**counts)
    picked = few_shot(rows, shots, seed=seed)
    assert Counter(row.target for row in picked) == dict.fromkeys(counts, shots)
    assert len({row.source for row in picked}) == len(picked)
    assert set(picked) <= set(rows)
    assert picked == few_shot(rows, shots, seed=seed)


def test_few_shot_follows_the_seed():
    """Another seed draws other rows, and no answer stands in a block."""
    rows = examples(yes=50, no=50)
    draws = [few_shot(rows, 8, seed=seed) for seed in range(10)]
    assert len({tuple(row.source for row in draw) for draw in draws}) == 10
    assert any([row.target for row in draw] != sorted(row.target for row in draw) for draw in draws)


def test_few_shot_draws_every_row_alike():
    """Over many seeds each row of an answer is drawn equally often (chi-square)."""
    rows = examples(yes=10, no=20)
    drawn = Counter(row.source for seed in range(2000) for row in few_shot(rows, 4, seed=seed))
    for answer, size in (("yes", 10), ("no", 20)):
        counts = [drawn[f"{answer} {i}"] for i in range(size)]
        assert sum(counts) == 8000
        assert stats.chisquare(counts).pvalue > SURE


@pytest.mark.parametrize(("shots", "total"), [(16, None), (None, 48)])
def test_few_shot_takes_all_rows_of_an_answer_that_is_short(shots, total):
    """Too few rows of two answers: all of them are taken, and one warning names the one that lacks most."""
    said, rows = [], examples(yes=30, no=7, maybe=9)
    picked = few_shot(rows, shots, total, seed=0, task="colours", warn=said.append)
    assert Counter(row.target for row in picked) == {"yes": 16, "no": 7, "maybe": 9}
    assert len(set(picked)) == len(picked)
    (fault,) = said
    assert fault.cause == (
        "16 rows of 'no' are asked for, and there are 7: all are taken; "
        "that makes 9 of 'maybe', 7 of 'no', 16 of 'yes'"
    )
    assert (fault.where, fault.code) == ("task colours, train", "D13")


@pytest.mark.parametrize(("total", "low"), [(4, 1), (16, 5), (32, 10), (2, 0), (3, 1)])
def test_a_total_is_shared_out_among_the_answers(total, low):
    """k // C rows of each of C = 3 answers, and one more of k mod C of them, which the seed draws."""
    rows, more = examples(yes=40, no=30, maybe=20), set()
    for seed in range(40):
        said = []
        picked = few_shot(rows, None, total, seed=seed, warn=said.append)
        counts = Counter(row.target for row in picked)
        assert sorted(counts[answer] - low for answer in ("yes", "no", "maybe")) == sorted(
            [1] * (total % 3) + [0] * (3 - total % 3)
        )
        assert len(set(picked)) == len(picked) == total
        assert picked == few_shot(rows, None, total, seed=seed)
        assert not said
        more |= {answer for answer in counts if counts[answer] > low}
    assert more == ({"yes", "no", "maybe"} if total % 3 else set())


def test_few_shot_without_a_number_takes_all():
    """No shots: all rows, as they are."""
    rows = examples(yes=3, no=2)
    assert few_shot(rows, None, seed=1) == rows


# epochs


@modest
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    size=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_every_row_comes_once_in_every_epoch(sizes, size, seed):
    """Rows of all tasks in one stream: every stretch of one epoch holds each row exactly once."""
    batches = EpochBatches(tasks(*sizes), size, seed)
    rows = sum(sizes)
    stream = [source for step in range(-(-3 * rows // size)) for source in batches(step).sources]
    everything = sorted((k, i) for k, count in enumerate(sizes) for i in range(count))
    for epoch in range(3):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows]) == everything


@modest
@given(size=st.integers(1, 40), step=st.integers(0, 10**6), seed=st.integers(0, 2**31 - 1))
def test_epoch_batch_is_a_function_of_seed_and_step(size, step, seed):
    """A batch has the asked size, names each row's task, and comes again without those before it."""
    batch = EpochBatches(tasks(5, 7), size, seed)(step)
    again = EpochBatches(tasks(5, 7), size, seed)(step)
    assert len(batch.sources) == size
    assert batch.sources == again.sources
    assert batch.task_ids.tolist() == [source[0] for source in batch.sources]


def test_epochs_and_seeds_have_orders_of_their_own():
    """No two of five epochs, and no two of five seeds, have the same order."""
    orders = {EpochBatches(tasks(20), 20, 3)(epoch).sources for epoch in range(5)}
    seeds = {EpochBatches(tasks(20), 20, seed)(0).sources for seed in range(5)}
    assert len(orders) == len(seeds) == 5


def test_epoch_orders_are_uniform():
    """Over many epochs each row stands in each place equally often (chi-square on the first place)."""
    first = Counter(EpochBatches(tasks(6), 6, 1)(epoch).sources[0] for epoch in range(1200))
    assert stats.chisquare([first[(0, i)] for i in range(6)]).pvalue > SURE


# batches of like length


def long_and_short(count, seed=0):
    """A task whose texts have 1 to 30 tokens; a text begins with the row's number."""
    lengths = np.random.default_rng(seed).integers(1, 31, count)
    rows = tuple(Encoded((i, *[7] * (int(length) - 1)), (1,)) for i, length in enumerate(lengths))
    return (EncodedTask("t", rows),)


def numbers(batches, steps):
    """The rows of each step, by number."""
    return [[source[0] for source in batches(step).sources] for step in steps]


@modest
@given(
    rows=st.integers(1, 60),
    size=st.integers(1, 20),
    seed=st.integers(0, 99),
    pool=st.integers(1, 9),
)
def test_an_epoch_with_pools_holds_every_row_once(rows, size, seed, pool):
    """Also where batches run on into the next epoch."""
    batches = EpochBatches(long_and_short(rows), size, seed, pool)
    stream = list(chain.from_iterable(numbers(batches, range(-(-3 * rows // size)))))
    for epoch in range(3):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@modest
@given(size=st.integers(1, 20), seed=st.integers(0, 99), pool=st.integers(1, 5), step=st.integers(0, 500))
def test_a_pooled_batch_is_a_function_of_seed_and_step(size, seed, pool, step):
    """It comes again without those before it."""
    walked = EpochBatches(long_and_short(50), size, seed, pool)
    numbers(walked, range(max(0, step - 20), step))
    fresh = EpochBatches(long_and_short(50), size, seed, pool)
    assert walked(step).sources == fresh(step).sources


@modest
@given(rows=st.integers(1, 90), size=st.integers(1, 12), seed=st.integers(0, 99), pool=st.integers(1, 5))
def test_a_pool_shares_out_the_rows_that_were_drawn_for_it(rows, size, seed, pool):
    """Its batches hold the rows they would hold without, in stretches of like length."""
    task = long_and_short(rows)
    plain, pooled = EpochBatches(task, size, seed), EpochBatches(task, size, seed, pool)
    for epoch in range(2):
        begun = -(-epoch * rows // size)  # the first batch that lies in this epoch alone
        ended = (epoch + 1) * rows // size
        for first in range(begun, ended, pool):
            steps = range(first, min(first + pool, ended))
            ours, theirs = numbers(pooled, steps), numbers(plain, steps)
            assert sorted(chain.from_iterable(ours)) == sorted(chain.from_iterable(theirs))
            spans = sorted(
                (min(lengths), max(lengths))
                for one in ours
                for lengths in [[task[0].lengths[i] for i in one]]
            )
            assert all(low[1] <= high[0] for low, high in pairwise(spans))


def test_a_batch_of_two_epochs_keeps_what_it_drew():
    """Where an epoch ends within a batch, its rows are those without pools."""
    plain, pooled = (EpochBatches(long_and_short(50), 8, 3, pool) for pool in (0, 4))
    for step in (6, 12, 18):  # 50, 100 and 150 rows end in these
        assert pooled(step).sources == plain(step).sources


def test_pools_save_padding():
    """From about half of a batch down to little."""
    task = long_and_short(2000)
    shares = [
        np.mean([EpochBatches(task, 16, 0, pool)(step).padding for step in range(125)]) for pool in (0, 32)
    ]
    assert shares[0] > 0.4
    assert shares[1] < 0.06


def test_batches_of_a_pool_come_in_any_order():
    """The first batch of an epoch is each of a pool's lengths equally often (chi-square)."""
    task = (EncodedTask("t", tuple(Encoded((7,) * (i + 1), (1,)) for i in range(6))),)
    batches = EpochBatches(task, 1, 4, pool=6)
    first = Counter(len(batches(6 * epoch).sources[0]) for epoch in range(1200))
    assert stats.chisquare([first[length] for length in range(1, 7)]).pvalue > SURE


def test_pools_are_for_models_that_compute_the_padding(backbones):
    """As asked; by itself, where texts are not read once and kept."""
    assert pool_size(None, backbones["t5"]) == pool_size(None, backbones["llama-prefix"]) == 32
    assert pool_size(None, backbones["llama-suffix"]) == 0
    assert pool_size(0, backbones["t5"]) == 0
    assert pool_size(5, backbones["llama-suffix"]) == 5


# mixing


@pytest.mark.parametrize(
    ("mixing", "sizes", "expected"),
    [
        ("proportional", (100, 300, 600), (0.1, 0.3, 0.6)),
        ("equal", (100, 300, 600, 1), (0.25, 0.25, 0.25, 0.25)),
        ("t5", (100, 300, 600), (0.1, 0.3, 0.6)),
        ("t5", (65536, 262144, 10**7), (1 / 9, 4 / 9, 4 / 9)),  # the cap is 2^18 = 262144
        ("t5", (262144, 262145, 131072), (0.4, 0.4, 0.2)),
        ("temperature", (100, 400, 900), (1 / 6, 2 / 6, 3 / 6)),  # square roots 10, 20, 30
    ],
)
def test_mixing_weights_by_hand(mixing, sizes, expected):
    """Shares of tasks, worked out by hand; the temperature is 2 unless it is set."""
    assert mixing_weights(sizes, SamplingConfig(mixing=mixing)) == pytest.approx(expected, abs=1e-12)


@modest
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_temperature_runs_from_proportional_to_equal(sizes):
    """Temperature 1 is proportional, a very high one is equal; weights always sum to one."""

    def weights(temperature):
        return mixing_weights(sizes, SamplingConfig(mixing="temperature", temperature=temperature))

    assert weights(1.0) == pytest.approx(mixing_weights(sizes, SamplingConfig(mixing="proportional")))
    assert weights(1e9) == pytest.approx([1 / len(sizes)] * len(sizes), rel=1e-6)
    assert weights(2.0).sum() == pytest.approx(1)


# stochastic task sampling


@modest
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    size=st.integers(1, 40),
    step=st.integers(0, 300),
    seed=st.integers(0, 2**31 - 1),
    stochastic=st.booleans(),
    replacement=st.booleans(),
)
def test_task_batch_has_its_size_and_comes_again(sizes, size, step, seed, stochastic, replacement):
    """Every batch has exactly the asked rows, all from their tasks, and follows from seed and step alone."""
    sampling = SamplingConfig(stochastic=stochastic, replacement=replacement)
    walked = TaskBatches(tasks(*sizes), size, seed, sampling)
    batch = [walked(one) for one in range(max(0, step - 9), step + 1)][-1]
    again = TaskBatches(tasks(*sizes), size, seed, sampling)(step)
    assert len(batch.sources) == len(batch.labels) == size
    assert batch.sources == again.sources
    assert batch.task_ids.tolist() == [k for k, _ in batch.sources] == again.task_ids.tolist()
    assert all(0 <= i < sizes[k] for k, i in batch.sources)


@modest
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    size=st.integers(1, 20),
    seed=st.integers(0, 99),
    stochastic=st.booleans(),
    replacement=st.booleans(),
)
def test_every_row_of_a_task_comes_once_before_any_comes_twice(sizes, size, seed, stochastic, replacement):
    """After every batch the rows of a task have come equally often, or once more."""
    sampling = SamplingConfig(stochastic=stochastic, replacement=replacement)
    batches = TaskBatches(tasks(*sizes), size, seed, sampling)
    drawn = Counter()
    for step in range(40):
        drawn.update(batches(step).sources)
        for k, count in enumerate(sizes):
            times = [drawn[k, i] for i in range(count)]
            assert max(times) - min(times) <= 1


def test_no_row_is_left_out():
    """Forty rows in forty draws: drawn one by one, a third of them would never come."""
    batches = TaskBatches(tasks(40, 40), 8, 0, SamplingConfig(kappa=2, replacement=False))
    assert len({source for step in range(10) for source in batches(step).sources}) == 80


def test_passes_tasks_and_seeds_have_orders_of_their_own():
    """No two passes of a task, tasks, or seeds have one order, and none is that of a step's draw."""
    batches = TaskBatches(tasks(20, 20), 40, 3, SamplingConfig(kappa=2, replacement=False))
    other = TaskBatches(tasks(20, 20), 40, 4, SamplingConfig(kappa=2, replacement=False))
    orders = [one._order(k, number) for one in (batches, other) for k in range(2) for number in range(3)]
    orders += [np.random.default_rng([3, step]).permutation(20) for step in range(9)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_small_task_gives_rows_twice():
    """A task with fewer rows than its share gives some twice, and the batch keeps its size."""
    batch = TaskBatches(tasks(1, 1), 8, 0, SamplingConfig(replacement=False))(0)
    assert Counter(batch.sources) == {(0, 0): 4, (1, 0): 4}


def test_steps_and_seeds_draw_anew():
    """Other steps and other seeds give other batches."""
    by_step = {TaskBatches(tasks(50, 50), 8, 0, SamplingConfig())(step).sources for step in range(20)}
    by_seed = {TaskBatches(tasks(50, 50), 8, seed, SamplingConfig())(0).sources for seed in range(20)}
    assert len(by_step) == len(by_seed) == 20


def test_number_of_tasks_is_uniform_from_two_to_kappa():
    """K ~ U{2..kappa}: chi-square over 3000 draws, and nothing outside."""
    for kappa in (3, 5, 6):
        numbers = Counter(len(drawn) for drawn in counts_of([10] * 6, 32, kappa=kappa))
        assert set(numbers) == set(range(2, kappa + 1))
        assert stats.chisquare(list(numbers.values())).pvalue > SURE


def test_kappa_is_the_number_of_tasks_unless_it_is_set():
    """Without kappa a batch may hold all tasks."""
    assert max(len(drawn) for drawn in counts_of([10] * 4, 32, draws=200)) == 4


def test_batch_smaller_than_the_number_of_tasks_holds_one_row_of_each():
    """Three rows cannot come from six tasks: then every drawn task gives one."""
    for drawn in counts_of([10] * 6, 3, draws=200):
        assert sum(count for _, count in drawn) == 3
        assert all(count >= 1 for _, count in drawn)


def test_rows_are_shared_evenly_and_the_remainder_goes_to_one_task():
    """Each of K tasks gives size // K rows, and one of them the remainder as well."""
    seen = Counter()
    for drawn in counts_of([10] * 6, 32):
        each, rest = divmod(32, len(drawn))
        expected = [each] * (len(drawn) - 1) + [each + rest]
        assert sorted(count for _, count in drawn) == expected
        if rest and len(drawn) == 5:
            seen[[count for _, count in drawn].index(each + rest)] += 1
    assert set(seen) == set(range(5))
    assert stats.chisquare(list(seen.values())).pvalue > SURE


def test_tasks_of_a_batch_differ_without_replacement():
    """As the paper's text may be read."""
    for drawn in counts_of([5, 50, 500], 32, draws=500, replacement=False):
        assert len({k for k, _ in drawn}) == len(drawn)


def test_a_task_may_be_drawn_twice():
    """As the released code has it: then one task may fill the batch, with its usual number of draws."""
    drawn = counts_of([5, 50, 500], 32, draws=500)
    assert any(len({k for k, _ in one}) < len(one) for one in drawn)
    assert {len(one) for one in drawn} == {2, 3}


def successive(weights, number, draw):
    """Different tasks drawn one after the other, each by the weights of those that are left."""
    left, found = list(range(len(weights))), []
    for _ in range(number):
        shares = np.array([weights[k] for k in left])
        place = int(np.searchsorted(np.cumsum(shares / shares.sum()), draw.random(), side="right"))
        found.append(left.pop(min(place, len(left) - 1)))
    return found


def test_pairs_of_different_tasks_follow_the_weights():
    """Without replacement, two at a time: (i, j) has probability w_i w_j / (1 - w_i) (chi-square)."""
    weights = np.array([0.1, 0.3, 0.6])
    without = counts_of([100, 300, 600], 32, kappa=2, replacement=False)
    pairs = Counter(tuple(k for k, _ in drawn) for drawn in without)
    possible = [(i, j) for i in range(3) for j in range(3) if i != j]
    expected = [DRAWS * weights[i] * weights[j] / (1 - weights[i]) for i, j in possible]
    assert set(pairs) == set(possible)
    assert stats.chisquare([pairs[pair] for pair in possible], expected).pvalue > SURE


def test_different_tasks_are_drawn_as_often_as_in_a_plain_simulation():
    """Without replacement, 2 to 4 at a time: share of batches with each task, against another generator."""
    sizes = [40, 80, 160, 320, 400]
    weights = np.array(sizes) / sum(sizes)
    without = counts_of(sizes, 32, kappa=4, replacement=False)
    ours = Counter(k for drawn in without for k, _ in drawn)
    draw = np.random.Generator(np.random.MT19937(11))
    theirs = Counter(k for _ in range(5 * DRAWS) for k in successive(weights, int(draw.integers(2, 5)), draw))
    for k in range(5):
        share, other = ours[k] / DRAWS, theirs[k] / (5 * DRAWS)
        spread = np.sqrt(other * (1 - other) * (1 / DRAWS + 1 / (5 * DRAWS)))
        assert abs(share - other) < 4 * spread


@pytest.mark.parametrize("mixing", ["proportional", "t5", "equal", "temperature"])
@pytest.mark.parametrize("kappa", [2, None])
def test_share_of_the_rows_is_the_mixing_weight(mixing, kappa):
    """By default each task's mean share of a batch is its exact weight, within four standard errors."""
    sizes = [1000, 300, 50, 5]
    raw = {"equal": [1, 1, 1, 1], "temperature": np.sqrt(sizes)}.get(mixing, sizes)
    batches = TaskBatches(tasks(*sizes), 32, 7, SamplingConfig(mixing=mixing, kappa=kappa))
    shares = np.array([np.bincount(batches(step).task_ids, minlength=4) for step in range(DRAWS)]) / 32
    error = shares.std(0) / np.sqrt(DRAWS)
    assert (np.abs(shares.mean(0) - np.array(raw) / np.sum(raw)) < 4 * error).all()


def test_pairs_of_tasks_follow_the_weights():
    """Every draw is on its own, so tasks come in proportion to their weights (chi-square)."""
    drawn = counts_of([100, 300, 600], 32, kappa=2)
    pairs = Counter(tuple(k for k, _ in one) for one in drawn)
    weights = np.array([0.1, 0.3, 0.6])
    possible = [(i, j) for i in range(3) for j in range(3)]
    expected = [DRAWS * weights[i] * weights[j] for i, j in possible]
    assert stats.chisquare([pairs[pair] for pair in possible], expected).pvalue > SURE


def test_without_stochastic_sampling_rows_are_multinomial():
    """All tasks in every batch, by the mixing weights: sums, means and spread of a multinomial draw."""
    size, weights = 32, np.array([0.1, 0.3, 0.6])
    drawn = counts_of([100, 300, 600], size, stochastic=False)
    table = np.zeros((DRAWS, 3))
    for row, one in enumerate(drawn):
        for k, count in one:
            table[row, k] = count
    assert (table.sum(1) == size).all()
    assert stats.chisquare(table.sum(0), DRAWS * size * weights).pvalue > SURE
    for k in range(3):
        expected = stats.binom(size, weights[k]).pmf(np.arange(size + 1)) * DRAWS
        seen = np.bincount(table[:, k].astype(int), minlength=size + 1)
        common = expected >= 5
        observed = [*seen[common], seen[~common].sum()]
        assert stats.chisquare(observed, [*expected[common], expected[~common].sum()]).pvalue > SURE


def test_rows_of_a_task_are_drawn_alike():
    """Every row is equally often the first of its task's pass, and no place in a batch is a task's own."""
    batches = TaskBatches(tasks(10, 10), 20, 2, SamplingConfig(kappa=2, replacement=False))
    first = [Counter(batches._order(k, number)[0] for number in range(1500)) for k in range(2)]
    assert all(stats.chisquare([one[i] for i in range(10)]).pvalue > SURE for one in first)
    place = Counter(batches(step).sources[0][0] for step in range(1500))
    assert stats.chisquare([place[0], place[1]]).pvalue > SURE


@pytest.mark.parametrize(("sizes", "steps"), [((40, 60), 3), ((40, 60, 500), 60), ((20, 30), 400)])
def test_expected_rows_are_about_those_that_are_drawn(sizes, steps):
    """How many different rows a run uses, against a count."""
    batches = TaskBatches(tasks(*sizes), 8, 3, SamplingConfig())
    drawn = {source for step in range(steps) for source in batches(step).sources}
    assert batches.expected_rows(steps) == pytest.approx(len(drawn), rel=0.05)


# reading ahead


@modest
@given(start=st.integers(0, 9), window=st.integers(1, 12))
def test_read_ahead_changes_no_batch_and_announces_each_step_once(start, window):
    """From any step on, the batches are those of the plain draw, and their texts are announced before."""
    plain, announced = EpochBatches(tasks(5, 7), 4, 3), []
    ahead = ReadAhead(plain, announced.extend, steps=10, window=window)
    needed = []
    for step in range(start, 10):
        needed += plain(step).sources
        assert ahead(step).sources == plain(step).sources
        assert announced[: len(needed)] == needed
    assert announced == needed


def test_read_ahead_tells_the_coming_batches_after_their_texts():
    """Each batch once, before it is needed, when the backbone knows its texts."""
    plain, told = EpochBatches(tasks(5, 7), 4, 3), []
    ahead = ReadAhead(
        plain,
        lambda texts: told.append(list(texts)),
        steps=5,
        window=3,
        teach=lambda coming: told.append([source for batch in coming for source in batch.sources]),
    )
    assert ahead(0).sources == plain(0).sources
    window = [source for step in range(3) for source in plain(step).sources]
    assert told == [window, window]
    ahead(1), ahead(3)
    rest = [source for step in (3, 4) for source in plain(step).sources]
    assert told == [window, window, rest, rest]
