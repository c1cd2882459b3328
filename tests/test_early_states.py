"""States of the first layers are those of the whole model, bit by bit, and reading them changes nothing."""

import threading

import pytest
import torch
from conftest import build_backbone, build_reader

from weft.models import HiddenSpec, packed_prompts
from weft.models.early_states import early_states

BASES = ("llama-suffix", "llama-prefix", "gpt2-suffix", "qwen2-suffix", "t5", "bert-reader")


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("first", ["whole", "early"])
def test_states_up_to_a_layer_are_those_of_the_whole_model(name, first):
    """Of each family, texts of unlike length, every layer; whichever way is taken first, and then again."""
    build = build_reader if name == "bert-reader" else build_backbone
    backbone, fresh = build(name), build(name)
    state = backbone.read([backbone.text_tokens(text)[0] for text in ("good day", "a bad dog is a dog")])
    with torch.no_grad():
        whole = fresh.text_states(state)
        if first == "whole":
            backbone.text_states(state)
        for _ in range(2):
            for deepest in range(len(whole)):
                found = backbone.text_states(state, deepest)
                assert len(found) == deepest + 1
                assert all(torch.equal(one, two) for one, two in zip(whole, found, strict=False))
            again = backbone.text_states(state)
            assert all(torch.equal(one, two) for one, two in zip(whole, again, strict=True))


def test_blocks_behind_are_not_run():
    """Nor the one whose input is the last state; a fault on the way leaves no hook behind."""
    backbone, run = build_backbone("llama-suffix"), []
    blocks = backbone.lm.base_model.layers
    state = backbone.read([(3, 4, 5)])
    hooks = [block.register_forward_hook(lambda block, *_: run.append(block)) for block in blocks]
    backbone.text_states(state, 1)
    assert run == [blocks[0]]
    for hook in hooks:
        hook.remove()
    with pytest.raises(ZeroDivisionError):
        early_states(backbone.lm.base_model, 1, lambda: 1 / 0)
    assert not any(block._forward_pre_hooks for block in blocks)


def test_another_thread_reads_to_the_end():
    """While one asks for an early layer, one that runs the same blocks is not stopped."""
    backbone = build_backbone("llama-suffix")
    state, seen = backbone.read([(3, 4, 5)]), []

    def run():
        other = threading.Thread(target=lambda: seen.append(backbone.lm(input_ids=state.ids).logits))
        other.start()
        other.join()

    assert early_states(backbone.lm.base_model, 1, run) == []
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["llama-suffix", "llama-prefix", "gpt2-suffix", "qwen2-suffix", "t5"])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "grouped"])
def test_answer_states_are_those_of_a_whole_pass(name, attention, monkeypatch):
    """At the last position before the answer, under each prompt, at every layer alone and at all together.

    Where texts are kept, two prompts stand side by side behind each, and the third alone.
    """
    monkeypatch.setattr(packed_prompts, "ROW", 7)
    backbone = build_backbone(name)
    backbone.lm.set_attn_implementation(attention)
    state = backbone.read([backbone.text_tokens(text)[0] for text in ("good day", "a bad dog is a dog")])
    prompts = torch.randn(3, 3, backbone.width, generator=torch.Generator().manual_seed(0))
    depth = backbone.depths[-1]
    label = torch.zeros(2, 1, dtype=torch.long)
    with torch.no_grad():
        together = backbone.answer_states(state, prompts, range(1, depth + 1))
        alone = [backbone.answer_states(state, prompts, [layer])[0] for layer in range(1, depth + 1)]
        for k, prompt in enumerate(prompts):
            out = backbone.forward(state, prompt.expand(2, -1, -1), label, HiddenSpec("all"))
            whole = [one.hidden[:, -1] for one in out.states[-depth:]]
            beside = backbone.keeps_texts and k < 2
            for one, two, three in zip(whole, together, alone, strict=True):
                assert torch.allclose(one, two[:, k], atol=1e-5) if beside else torch.equal(one, two[:, k])
                assert torch.equal(two, three)


def test_answer_states_run_no_block_behind_the_deepest():
    backbone, run = build_backbone("llama-suffix"), []
    state, prompts = backbone.read([(3, 4, 5)]), torch.randn(2, 2, backbone.width)
    backbone.answer_states(state, prompts, [1])  # the text is read and kept, through all blocks
    for block in backbone.lm.base_model.layers:
        block.register_forward_hook(lambda block, *_: run.append(block))
    backbone.answer_states(state, prompts, [1])
    assert run == [backbone.lm.base_model.layers[0]]
