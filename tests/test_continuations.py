"""Likelihoods of continuations and texts up to a stop, under a prompt, against plain calls of the library."""

import pytest
import torch
from conftest import END, build_backbone

from weft.config.decoding import GREEDY, Decoding
from weft.interop.continuations import Continuation, Prompted
from weft.models.tuned import TunedModel, with_prompts

TASKS = ("first", "second")
PLACES = ["llama-prefix", "llama-suffix", "gpt2-prefix", "gpt2-suffix", "t5"]


def prompted(name, *, batch_size=3, tokens=4):
    """A tiny model under the second of two prompts; without any where these have no token."""
    backbone = build_backbone(name)
    if not tokens:
        return Prompted(TunedModel(backbone, None, {}, TASKS), "second", batch_size)
    prompts = torch.randn(2, tokens, 32, generator=torch.Generator().manual_seed(6))
    return Prompted(with_prompts(backbone, prompts, TASKS), "second", batch_size)


@torch.no_grad()
def plain_logits(one, text, written):
    """Logits behind a text and each written token: one row, the library's own call, no cache."""
    backbone = one.model.backbone
    parts = [backbone.embed(torch.tensor([text]))]
    if one.model.prompts is not None:
        prompt = one.model.prompts(torch.tensor([1]))
        parts.insert(len(parts) if backbone.name.endswith("suffix") else 0, prompt)
    if backbone.lm.config.is_encoder_decoder:
        start = backbone.lm.config.decoder_start_token_id
        given = {"decoder_input_ids": torch.tensor([[start, *written]])}
        return backbone.lm(inputs_embeds=torch.cat(parts, 1), **given).logits[0]
    before = sum(part.shape[1] for part in parts)
    if written:
        parts.append(backbone.embed(torch.tensor([written])))
    return backbone.lm(inputs_embeds=torch.cat(parts, 1)).logits[0, before - 1 :]


def plain_judgement(one, text, end):
    logs = plain_logits(one, text, end[:-1]).double().log_softmax(-1)
    total = sum(float(logs[i, token]) for i, token in enumerate(end))
    return total, all(int(logs[i].argmax()) == token for i, token in enumerate(end))


def greedy(one, text, count):
    """The likeliest tokens, one after the other."""
    written = []
    while len(written) < count and written[-1:] != [END]:
        written.append(int(plain_logits(one, text, written)[-1].argmax()))
    return written


@pytest.mark.parametrize("tokens", [0, 4])
@pytest.mark.parametrize("name", PLACES)
def test_likelihoods_are_those_of_one_row_after_the_other(name, tokens, rows):
    """Texts with several continuations, of one token and of more, greedy ones among them; in any batch."""
    one = prompted(name, tokens=tokens)
    asked = [Continuation(text, end) for text in rows.sources for end in (rows.targets[2], (5,), (7, 9))]
    asked += [Continuation(text, tuple(greedy(one, text, 3))) for text in rows.sources]
    expected = [plain_judgement(one, *pair) for pair in asked]
    assert sum(is_greedy for _, is_greedy in expected) >= len(rows.sources)
    for batch_size in (1, 3, 64):
        found = Prompted(one.model, one.task, batch_size).log_likelihoods(asked)
        for (value, is_greedy), (wanted, was_greedy) in zip(found, expected, strict=True):
            assert value == pytest.approx(wanted, abs=1e-4)
            assert is_greedy is was_greedy


def test_each_task_has_its_own_prompt(rows):
    """The first task's numbers are not the second's."""
    one = prompted("llama-suffix")
    asked = [Continuation(rows.sources[0], (5, 6))]
    other = Prompted(one.model, "first").log_likelihoods(asked)[0][0]
    assert abs(other - one.log_likelihoods(asked)[0][0]) > 1e-3


@pytest.mark.parametrize("name", PLACES)
def test_texts_are_written_up_to_a_stop(name, rows):
    """The greedy tokens, cut before the first stop; the end token ends a text without one."""
    one = prompted(name)
    decode = one.model.backbone.tokenizer.decode
    whole = [decode(greedy(one, text, 8), skip_special_tokens=True) for text in rows.sources]
    assert one.written(rows.sources, 8, [], GREEDY) == whole
    stop = whole[1].split()[2]
    expected = [text.split(stop)[0] for text in whole]
    assert expected != whole
    assert one.written(rows.sources, 8, ["", stop], GREEDY) == expected
    assert one.written(rows.sources, 2, [], GREEDY) == [
        decode(greedy(one, text, 2), skip_special_tokens=True) for text in rows.sources
    ]


def test_nothing_is_written_behind_a_stop(rows, monkeypatch):
    """A row that has its stop leaves the batch."""
    one = prompted("llama-suffix")
    first = one.written(rows.sources[:1], 8, [], GREEDY)[0].split()[0]
    steps = []
    step = one.model.backbone.step
    monkeypatch.setattr(one.model.backbone, "step", lambda *given: steps.append(1) or step(*given))
    assert one.written(rows.sources[:1], 8, [first], GREEDY) == [""]
    assert not steps


def test_draws_follow_from_the_text_alone(rows):
    """Whatever the batch."""
    one, drawn = prompted("llama-suffix"), Decoding(temperature=1.0, top_p=0.9)
    together = one.written(rows.sources, 6, [], drawn)
    alone = [one.written([text], 6, [], drawn)[0] for text in rows.sources]
    assert together == alone
    assert together != one.written(rows.sources, 6, [], GREEDY)
