"""Weights in few bits, held against plain loops: what is kept, how near it is, and what it answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.evaluation.few_bits import CLIPS, FewBits, Part, packed, unpacked
from weft.evaluation.linear import LinearHead

BITS = (1, 2, 4, 8)


def drawn(shape, seed=0):
    return np.random.default_rng(seed).standard_t(4, size=shape)


def by_loop(row, bits):
    """The best of all clips for one row, by the sum of squares; signs of one bit."""
    if bits == 1:
        return [float(np.float32(np.mean(np.abs(row)))) * (1 if one >= 0 else -1) for one in row]
    most = 2 ** (bits - 1) - 1
    found = []
    for clip in CLIPS:
        step = float(np.float32(clip * max(abs(one) for one in row) / most))
        near = [step * min(max(round(one / step), -most), most) for one in row]
        found.append((sum((a - b) ** 2 for a, b in zip(near, row, strict=True)), near))
    return min(found, key=lambda pair: pair[0])[1]


@pytest.mark.parametrize("bits", BITS)
def test_weights_are_the_nearest_of_so_many_bits(bits):
    """Of each answer and view by itself, on columns that are divided by their scale."""
    scale = np.array([0.5, 2, 1, np.inf, 3], np.float32)
    parts = [Part.of(5, scale, bits), Part.of(3, np.ones(3, np.float32), bits)]
    weights = drawn((4, 8))
    weights[0, 3] = 0  # as readers have it
    stored, steps = packed(weights, parts)
    assert stored.shape == (4, -(-5 * bits // 8) + -(-3 * bits // 8))
    assert steps.shape == (4, 2)
    found = unpacked(stored, steps, parts)
    assert not found[:, 3].any()
    for row, own in zip(weights, found, strict=True):
        first = by_loop([w * s if np.isfinite(s) else 0.0 for w, s in zip(row, scale, strict=False)], bits)
        assert own[:3] * scale[:3] == pytest.approx(first[:3], rel=1e-5)
        assert own[5:] == pytest.approx(by_loop(row[5:], bits), rel=1e-5)


def test_codes_lie_side_by_side_with_the_highest_bit_first():
    """Two bits a weight: -1, 0 and 1 are 0, 1 and 2; the last byte is filled with zeros."""
    stored, steps = packed(np.array([[3.0, -3, 0, 3, -3]]), [Part(5, None, 2)])
    assert [f"{byte:08b}" for byte in stored[0]] == ["10000110", "00000000"]
    assert steps.item() == pytest.approx(3.0)


@given(
    width=st.integers(1, 40), answers=st.integers(1, 5), bits=st.sampled_from(BITS), seed=st.integers(0, 99)
)
def test_what_was_packed_packs_to_the_same_again(width, answers, bits, seed):
    """Also rows of zeros."""
    parts, weights = [Part(width, None, bits)], drawn((answers, width), seed)
    weights[0] = 0
    first = unpacked(*packed(weights, parts), parts)
    again = unpacked(*packed(first.astype(np.float64), parts), parts)
    assert np.allclose(first, again, rtol=1e-3, atol=1e-6)
    assert np.isfinite(first).all()


@pytest.mark.parametrize("bits", BITS)
def test_the_scores_of_a_middle_text_stay(bits):
    """Even where columns lie far from zero: what rounding takes from them goes to the bias."""
    means, weights = 1000 * drawn(6, 1), drawn((3, 6), 2)
    head = LinearHead(weights.astype(np.float32), np.array([1.0, 2, 3], np.float32), ("a", "b", "c"))
    parts = [Part(4, np.array([1, 2, 0.5, 1], np.float32), bits), Part(2, None, 8)]
    kept = FewBits.of(head, parts, means)
    near = kept.head(parts, ["a", "b", "c"])
    assert near.answers == head.answers
    assert means @ near.weights.T + near.bias == pytest.approx(means @ head.weights.T + head.bias, abs=2e-2)


def test_a_view_without_a_scale_has_eight_bits():
    """Its columns may be of unlike size."""
    assert Part.of(3, None, 1).bits == 8
    assert Part.of(3, np.ones(3, np.float32), 1).bits == 1
    assert [Part.of(576, np.ones(576, np.float32), bits).size for bits in BITS] == [72, 144, 288, 576]
