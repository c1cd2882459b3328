"""A model that is cut short gives the states of the whole one, bit by bit, and leaves it as it was."""

import pytest
import torch
from conftest import build_backbone, build_reader

from weft.models.shortened import shortened

BASES = ("llama-suffix", "llama-prefix", "gpt2-suffix", "qwen2-suffix", "t5", "bert-reader")


@pytest.mark.parametrize("name", BASES)
def test_states_up_to_a_layer_are_those_of_the_whole_model(name):
    """Of each family, texts of unlike length, every layer; blocks behind the next one are not run."""
    backbone = build_reader(name) if name == "bert-reader" else build_backbone(name)
    state = backbone.read([backbone.text_tokens(text)[0] for text in ("good day", "a bad dog is a dog")])
    with torch.no_grad():
        whole = backbone.text_states(state)
        for deepest in range(len(whole)):
            found = backbone.text_states(state, deepest)
            assert len(found) == min(deepest + 2, len(whole))
            assert all(torch.equal(one, two) for one, two in zip(whole[: deepest + 1], found, strict=False))
        assert all(torch.equal(one, two) for one, two in zip(whole, backbone.text_states(state), strict=True))


def test_a_model_without_blocks_stays_whole():
    """There is nothing to cut."""
    model = torch.nn.Linear(2, 2)
    assert shortened(model, 1) is model
