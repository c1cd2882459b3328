"""Beams and draws against transformers, the whole set of answers, and the probabilities themselves."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import PAD
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reference import lm as plain
from scipy import stats

from weft.config.decoding import GREEDY, Decoding
from weft.models.context import Context
from weft.models.decoding import decode, row_seeds, shares

LIMIT = 6
SEARCHES = [
    Decoding(num_beams=2),
    Decoding(num_beams=3, length_penalty=0),
    Decoding(num_beams=4, length_penalty=2.0),
]
DRAWN = Decoding(temperature=0.8, top_p=0.9, seed=3)
modest = settings(max_examples=30, deadline=None)


@pytest.fixture
def prompts(backbone):
    """A prompt for each of the four rows, of the size of embeddings."""
    draw = torch.Generator().manual_seed(11)
    return torch.randn(4, 3, backbone.width, generator=draw) * backbone.scale


def written(backbone, rows, prompts, picks, decoding, limits=LIMIT, seed=3):
    """Answers of some rows in one batch."""
    sources = [rows.sources[i] for i in picks]
    context = backbone.begin(backbone.read(sources), prompts[list(picks)])
    return backbone.generate(context, limits, decoding, row_seeds(seed, sources))


# beams


@pytest.mark.parametrize("decoding", SEARCHES, ids=lambda one: f"{one.num_beams}-{one.length_penalty:g}")
def test_beams_are_those_of_transformers(backbone, rows, prompts, decoding):
    """Token for token what transformers finds for each row alone."""
    expected = [
        plain.generate(
            backbone.lm,
            rows.sources[i],
            prompts[i],
            LIMIT,
            suffix=backbone.name.endswith("suffix"),
            end=backbone.tokenizer.eos_token_id,
            pad=PAD,
            num_beams=decoding.num_beams,
            length_penalty=float(decoding.length_penalty),
        )
        for i in range(4)
    ]
    assert written(backbone, rows, prompts, range(4), decoding) == expected


def test_beams_find_another_answer_than_greedy(backbones, rows):
    """Else the tests above would say little."""
    changed = 0
    for backbone in backbones.values():
        draw = torch.Generator().manual_seed(11)
        prompts = torch.randn(4, 3, backbone.width, generator=draw) * backbone.scale
        greedy, found = (written(backbone, rows, prompts, range(4), one) for one in (GREEDY, SEARCHES[2]))
        changed += sum(one != other for one, other in zip(greedy, found, strict=True))
    assert changed >= len(backbones)


@pytest.mark.parametrize("decoding", [*SEARCHES, DRAWN, GREEDY], ids=range(5))
def test_a_row_is_answered_alike_alone_and_among_others(backbone, rows, prompts, decoding):
    """Each with its own limit, in any order."""
    limits = [6, 1, 3, 5]
    alone = [written(backbone, rows, prompts, [i], decoding, [limits[i]])[0] for i in range(4)]
    assert written(backbone, rows, prompts, range(4), decoding, limits) == alone
    back = [3, 2, 1, 0]
    assert written(backbone, rows, prompts, back, decoding, [limits[i] for i in back]) == alone[::-1]
    assert all(len(row) <= limit for row, limit in zip(alone, limits, strict=True))


class Table:
    """A model whose next token depends on the last two: logits `[rows, V, V, V]`; 0 ends, and begins."""

    def __init__(self, logits):
        self.logits = torch.tensor(logits, dtype=torch.float32)
        self.log_probs = self.logits.double().log_softmax(-1).tolist()

    def begin(self):
        count = len(self.logits)
        state = [(row, 0, 0) for row in range(count)]
        return Context(torch.ones(count, 1, dtype=torch.long), state, self._next(state))

    def select(self, context, rows):
        return Context(context.mask[list(rows)], [context.memory[i] for i in rows])

    def step(self, context, tokens):
        pairs = zip(context.memory, tokens, strict=True)
        state = [(row, last, token) for (row, _, last), token in pairs]
        return Context(context.mask, state, self._next(state))

    def _next(self, state):
        return torch.stack([self.logits[row, one, other] for row, one, other in state])

    def score(self, row, answer, penalty):
        """Mean log-probability of an answer, by plain steps."""
        total, one, other = 0.0, 0, 0
        for token in answer:
            total += self.log_probs[row][one][other][token]
            one, other = other, token
        return total / len(answer) ** penalty

    def best(self, row, limit, penalty):
        """The best of all answers that end, or reach the limit."""
        width = self.logits.shape[-1]
        every = [
            (*start, *last)
            for length in range(1, limit + 1)
            for start in itertools.product(range(1, width), repeat=length - 1)
            for last in [(token,) for token in range(width) if token == 0 or length == limit]
        ]
        return max(self.score(row, answer, penalty) for answer in every)


@modest
@given(
    st.integers(0, 2**20),
    st.lists(st.integers(1, 4), min_size=8, max_size=16),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_a_wide_search_finds_the_best_of_all_answers(seed, limits, penalty):
    """With more beams than there are beginnings nothing is lost."""
    model = Table(np.random.default_rng(seed).normal(0, 1, (len(limits), 4, 4, 4)))
    decoding = Decoding(num_beams=81, length_penalty=penalty)
    found = decode(model, model.begin(), limits, 0, decoding, [])
    for row, (answer, limit) in enumerate(zip(found, limits, strict=True)):
        whole = answer if len(answer) == limit else (*answer, 0)
        best = model.best(row, limit, penalty)
        assert model.score(row, whole, penalty) == pytest.approx(best, abs=1e-5)


def test_more_length_penalty_gives_longer_answers():
    """Log-probabilities are negative: dividing them by more lifts long answers."""
    model = Table(np.random.default_rng(5).normal(0, 1, (40, 4, 4, 4)))
    lengths = []
    for penalty in (-1.0, 0.0, 1.0, 3.0):
        decoding = Decoding(num_beams=8, length_penalty=penalty)
        found = decode(model, model.begin(), [6] * 40, 0, decoding, [])
        lengths.append(sum(map(len, found)))
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


# draws


def test_draws_follow_the_probabilities():
    """First and second tokens of many rows, by a chi-square test at 1 in 10,000."""
    logits = np.random.default_rng(1).normal(0, 1, (1, 4, 4, 4)).repeat(4000, 0)
    model, decoding = Table(logits), Decoding(temperature=0.7, seed=1)
    found = decode(model, model.begin(), [2] * 4000, 0, decoding, range(4000))
    first = model.logits[0, 0, 0].double() / 0.7
    chances = {(): float(first.softmax(-1)[0])}
    for one in range(1, 4):
        second = (model.logits[0, 0, one].double() / 0.7).softmax(-1)
        chances |= {
            (one, other) if other else (one,): float(first.softmax(-1)[one] * second[other])
            for other in range(4)
        }
    counts = [found.count(answer) for answer in chances]
    assert sum(counts) == 4000
    expected = [4000 * chance for chance in chances.values()]
    assert stats.chisquare(counts, expected).pvalue > 1e-4


def test_top_p_keeps_the_fewest_likeliest_tokens():
    probabilities = np.array([0.4, 0.1, 0.3, 0.2])
    logits = torch.tensor(np.log(probabilities))[None]
    for top_p, kept in ((0.3, [0]), (0.5, [0, 2]), (0.75, [0, 2, 3]), (1.0, [0, 1, 2, 3])):
        expected = np.where(np.isin(range(4), kept), probabilities, 0)
        found = shares(logits, Decoding(temperature=1, top_p=top_p))[0]
        assert found.numpy() == pytest.approx(expected / expected.sum(), abs=1e-9)


def test_temperature_divides_logits():
    found = shares(torch.tensor([[0.0, 1.0]]), Decoding(temperature=0.5))[0]
    assert found.tolist() == pytest.approx([1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)])


def test_a_seed_gives_the_same_answers_and_another_one_others(backbone, rows, prompts):
    once = written(backbone, rows, prompts, range(4), DRAWN)
    assert written(backbone, rows, prompts, range(4), DRAWN) == once
    others = [written(backbone, rows, prompts, range(4), DRAWN, seed=seed) for seed in range(4, 8)]
    assert any(other != once for other in others)


def test_cold_draws_are_greedy(backbone, rows, prompts):
    greedy = written(backbone, rows, prompts, range(4), GREEDY)
    for decoding in (Decoding(temperature=1e-4), Decoding(temperature=1, top_p=1e-6)):
        assert written(backbone, rows, prompts, range(4), decoding) == greedy


def test_seeds_follow_from_seed_and_text_alone():
    seeds = row_seeds(1, [(3, 4), (5,), (3, 4)])
    assert seeds[0] == seeds[2] != seeds[1]
    assert row_seeds(1, [(5,)]) == seeds[1:2]
    assert row_seeds(2, [(5,)]) != seeds[1:2]


# settings


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"num_beams": 2, "temperature": 1.0}, "not both"),
        ({"length_penalty": 2.0}, "length_penalty goes with"),
        ({"top_p": 0.5}, "nothing is drawn without"),
        ({"seed": 1}, "nothing is drawn without"),
        ({"num_beams": 0}, "greater than or equal to 1"),
        ({"temperature": -1.0}, "greater than or equal to 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, says):
    with pytest.raises(ValidationError, match=says):
        Decoding(**wrong)


# encoder-decoders


def test_the_decoder_reads_a_text_once(backbones, rows):
    """Keys and values of the encoder's states are made once, for all choices and for what is written."""
    t5 = backbones["t5"]
    made = []
    layers = [block.layer[1].EncDecAttention.k for block in t5.lm.get_decoder().block]
    hooks = [one.register_forward_hook(lambda *_: made.append(1)) for one in layers]
    try:
        context = t5.begin(t5.read(rows.sources), None)
        t5.score(context, [(5, 6, 1), (5, 7, 8, 1), (5, 7, 9, 1), (4, 1)])
        t5.generate(context, LIMIT)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(made) == len(layers)


def test_scoring_leaves_what_is_written_as_it_was(backbone, rows, prompts):
    """Choices are read behind a context that answers are written from afterwards."""
    expected = written(backbone, rows, prompts, range(4), GREEDY)
    context = backbone.begin(backbone.read(rows.sources), prompts)
    choices = [(5, 6, 1), (5, 7, 8, 1), (5, 7, 9, 1), (4, 1)]
    first, again = backbone.score(context, choices), backbone.score(context, choices)
    assert torch.equal(first, again)
    assert backbone.generate(context, LIMIT) == expected
