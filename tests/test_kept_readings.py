"""Readings that are kept: the same numbers without reading again, in so much room and no more."""

import numpy as np
import pytest
import torch
from conftest import build_backbone
from hypothesis import given
from hypothesis import strategies as st

from weft.models.features import features, prompted_features
from weft.models.kept_readings import KeptReadings

TEXTS = ["good day", "a bad dog", "good", "red sun and blue sea"]


@pytest.fixture
def reader(monkeypatch):
    """A backbone with room, and the texts that it was made to read."""
    backbone, seen = build_backbone("llama-suffix"), []
    read = type(backbone).read
    monkeypatch.setattr(type(backbone), "read", lambda self, some: seen.extend(some) or read(self, some))
    backbone.kept = KeptReadings(1 << 20)
    return backbone, seen


def test_a_text_is_read_once(reader):
    """By layer and pooling; another layer reads again, and what was kept equals what a fresh model says."""
    backbone, seen = reader
    sources = [backbone.text_tokens(text)[0] for text in TEXTS]
    features(backbone, sources[:2], [(1, "mean"), (2, "mean")])
    assert len(seen) == 2
    found = features(backbone, sources, [(1, "mean")])
    assert sorted(seen[2:]) == sorted(sources[2:])
    features(backbone, sources, [(1, "mean")])
    assert len(seen) == 4
    features(backbone, sources[:1], [(1, "last")])
    assert len(seen) == 5
    plain = features(build_backbone("llama-suffix"), sources, [(1, "mean")])
    assert np.allclose(found[1, "mean"], plain[1, "mean"], atol=1e-5)


def test_a_prompt_is_known_by_its_numbers(reader):
    """Not by its name, which two runs may give to others; changing an array changes none that is kept."""
    backbone, seen = reader
    sources = [backbone.text_tokens(text)[0] for text in TEXTS]
    one, two = torch.randn(2, 3, backbone.width, generator=torch.Generator().manual_seed(1)) * backbone.scale
    first = prompted_features(backbone, sources, {"a": one}, [2])["a", 2]
    count, before = len(seen), first.copy()
    first[:] = 0
    again = prompted_features(backbone, sources, {"b": one}, [2])["b", 2]
    assert len(seen) == count
    assert np.array_equal(again, before)
    other = prompted_features(backbone, sources, {"a": two}, [2])["a", 2]
    assert len(seen) > count
    assert not np.allclose(other, before)


def test_a_model_keeps_nothing_unless_it_is_given_room():
    """As it is made; the workspace gives room."""
    backbone = build_backbone("llama-suffix")
    sources = [backbone.text_tokens(TEXTS[0])[0]]
    features(backbone, sources, [(1, "mean")])
    assert backbone.kept.fill({(1, "mean"): np.zeros((1, backbone.width), np.float32)}, sources) == [0]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40), st.integers(0, 6))
def test_what_was_used_longest_ago_goes_first(steps, room):
    """Beside a plain list: texts are asked for, and kept where they were missing, in room for so many."""
    kept, order = KeptReadings(room * 16), []
    for text, other in steps:
        text = str(text) + "x" * other
        found = {"reading": np.zeros((1, 4), np.float32)}
        missing = kept.fill(found, [text])
        assert missing == ([] if text in order else [0])
        if missing:
            found["reading"][0] = len(text)
            kept.keep(found, [text], missing)
        else:
            assert found["reading"][0].tolist() == [len(text)] * 4
        order = ([one for one in order if one != text] + [text])[-room:] if room else []


def test_a_prompt_that_met_a_text_does_not_meet_it_again(reader):
    """Another one, which did not, does: each prompt reads what it has not read."""
    backbone, seen = reader
    sources = [backbone.text_tokens(text)[0] for text in TEXTS]
    one, two = torch.randn(2, 3, backbone.width, generator=torch.Generator().manual_seed(1)) * backbone.scale
    prompted_features(backbone, sources[:3], {"a": one}, [2])
    del seen[:]
    both = prompted_features(backbone, sources, {"a": one, "b": two}, [2])
    assert sorted(seen) == sorted([*sources, sources[3]])
    fresh = prompted_features(build_backbone("llama-suffix"), sources, {"a": one, "b": two}, [2])
    assert all(np.allclose(both[key], fresh[key], atol=1e-5) for key in fresh)


def test_a_text_that_prompts_follow_is_read_once(reader, monkeypatch):
    """For its own states and for what prompts need; both as they are when it is read for each."""
    backbone, _ = reader
    sources = [backbone.text_tokens(text)[0] for text in TEXTS]
    prompt = torch.randn(3, backbone.width, generator=torch.Generator().manual_seed(1)) * backbone.scale
    read, whole = [], type(backbone.texts)._compute
    monkeypatch.setattr(
        type(backbone.texts), "_compute", lambda self, *a: read.extend(a[0]) or whole(self, *a)
    )
    monkeypatch.setattr(type(backbone), "text_states", None)
    means = features(backbone, sources, [(1, "mean"), (2, "last")], prompts_follow=True)
    under = prompted_features(backbone, sources, {"a": prompt}, [2])
    assert sorted(read) == sorted(sources)
    monkeypatch.undo()
    fresh = build_backbone("llama-suffix")
    for reading, vectors in features(fresh, sources, [(1, "mean"), (2, "last")]).items():
        assert np.allclose(means[reading], vectors, atol=1e-5)
    assert np.allclose(
        under["a", 2], prompted_features(fresh, sources, {"a": prompt}, [2])["a", 2], atol=1e-5
    )
