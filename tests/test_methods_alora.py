"""Activated LoRA: PEFT as the reference, what is read by whom, what is kept, whole runs."""

import peft
import pytest
import torch
from conftest import build_backbone, build_lm
from test_methods_weights import BATCH, SOURCES, TARGETS, equal, logits_of, optim, setup_on
from tiny_job import SHORT, command, write_job

from weft import runs
from weft.errors import ConfigError, UnsupportedError
from weft.losses.objective import lm_loss
from weft.methods.alora import ActivatedLoRA
from weft.methods.method import Saved
from weft.serving import predictor
from weft.training.loop import fit

METHOD = ActivatedLoRA(rank=2, alpha=8, invocation="question answer")


def trained(place="llama-suffix", steps=3, **kw):
    """A model after some steps."""
    model = METHOD.build(setup_on(build_backbone(place), **kw))[0]
    fit(model, lambda step: BATCH, lm_loss, optim(METHOD, steps))
    return model


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers
@pytest.mark.parametrize("place", ["llama-suffix", "qwen2-suffix"])
def test_logits_are_those_of_peft(place):
    """PEFT reads text, invocation and answer in one pass, and adds from the invocation's start on."""
    model = trained(place)
    invocation = list(model.backbone.tokenizer("question answer")["input_ids"])
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=2,
        lora_alpha=8,
        target_modules=["q_proj", "k_proj", "v_proj"],
        alora_invocation_tokens=invocation,
    )
    theirs = peft.get_peft_model(build_lm(place.partition("-")[0]), config).eval()
    own = dict(theirs.named_parameters())
    with torch.no_grad():
        for key, value in model.state().items():
            own[key.replace("lm.", "base_model.model.", 1)].copy_(value)
        fresh = METHOD.restore(setup_on(build_backbone(place)), Saved(model.tensors())).model
        ours = fresh(BATCH).logits  # reads its texts with trained additions in place
        for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
            ids = torch.tensor([[*source, *invocation, *target[:-1]]])
            logits = theirs(input_ids=ids).logits[0, len(source) + len(invocation) - 1 :]
            torch.testing.assert_close(ours[i, : len(target)], logits, rtol=1e-4, atol=1e-4)


def test_texts_are_read_by_the_frozen_model_and_kept():
    """Their keys and values are those of a model without additions, and are computed once for all steps."""
    model, plain = trained(), build_backbone("llama-suffix")
    assert model.keeps_texts
    assert model.backbone.texts.misses == len(set(SOURCES))
    model.backbone.texts._pages.__init__(None, 1 << 24, print)  # forgets all texts
    for ours, theirs in zip(model.backbone.texts.gather(SOURCES), plain.texts.gather(SOURCES), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    assert all(value.requires_grad for value in model.trained["lora"])


def test_what_is_declared_moves_and_is_kept():
    """The additions, not the invocation; the rest as it was; a fresh base answers alike."""
    plain = dict(build_backbone("gpt2-suffix").lm.named_parameters())
    model = trained("gpt2-suffix")
    kept = model.tensors()
    assert all(".lora_" in key for key in kept)
    assert sum(value.numel() for value in kept.values()) == 2 * 2 * (32 + 3 * 32) == model.trained_parameters
    for key, value in model.backbone.lm.named_parameters():
        assert (value.grad is not None) == (f"lm.{key}" in kept)
        if f"lm.{key}" not in kept:
            assert torch.equal(value, plain[key.replace("base_layer.", "")])
    fresh = setup_on(build_backbone("gpt2-suffix"), seed=4)
    assert torch.equal(logits_of(METHOD.restore(fresh, Saved(kept)).model), logits_of(model))


def test_training_is_the_same_each_time():
    """Two fresh models, one seed."""
    assert equal(trained().state(), trained().state())


@pytest.mark.parametrize("place", ["t5", "bert", "llama-prefix"])
def test_texts_that_are_not_read_first_are_refused(place):
    """Encoder-decoders, and prompts before the text."""
    with pytest.raises(UnsupportedError, match="read the text before"):
        METHOD.build(setup_on(build_backbone(place)))


def test_an_empty_invocation_is_refused():
    """There would be nothing to act on."""
    with pytest.raises(ConfigError, match="no token"):
        ActivatedLoRA(invocation=" ").build(setup_on(build_backbone("llama-suffix")))


JOB = (
    SHORT
    + """\
  - label: prompt tuning
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
  - label: activated LoRA
    method: {{name: alora, invocation: answer, rank: 2}}
    optim: {{lr: {{lora: 0.01}}, steps: 4, batch_size: 6, micro_batch: 4, eval_every: 2}}
"""
)


def test_whole_runs_answer_beside_prompts(tmp_path):
    """Each finished run proves itself, and answers with others as it does alone."""
    write_job(tmp_path, "llama", "suffix", JOB)
    assert command("run", tmp_path / "tiny.yaml", "--runs", tmp_path / "runs", "--quiet") == 0
    done = {run.id.rpartition("-")[0]: run for run in runs.finished(tmp_path / "runs")}
    ours, plain = done["adapt-alora-gamma-s0"], done["adapt-prompt-tuning-delta-s0"]
    assert command("doctor", ours.path) == 0
    texts = [{"text": text} for text in ("the good film", "the bad dog river")]
    both = predictor.load(ours.id, plain.id, root=tmp_path / "runs").predict(texts)
    for run in (ours, plain):
        alone = predictor.load(run.id, root=tmp_path / "runs").predict(texts)
        own = [one for one in both if one.task == alone[0].task]
        assert [one.answer for one in own] == [one.answer for one in alone]
