"""What single families of models ask for: windows, scaled embeddings, logits that are changed afterwards."""

from pathlib import Path

import pytest
import torch
from conftest import FURTHER, build_backbone, build_lm, build_tokenizer

from weft.config.model import BaseConfig
from weft.config.training import PromptConfig
from weft.errors import UnsupportedError
from weft.models import load_backbone
from weft.models.base_folder import resolve
from weft.models.fresh_prompt import fresh_prompt
from weft.models.own_embeddings import check_embeddings
from weft.models.windows import window_of


def saved(lm: torch.nn.Module, folder: Path, *, ends_texts: bool = False) -> BaseConfig:
    """A model's folder with a tokenizer."""
    lm.save_pretrained(folder)
    build_tokenizer(ends_texts=ends_texts).save_pretrained(folder)
    return BaseConfig(model=str(folder))


@pytest.mark.parametrize("name", FURTHER)
def test_every_family_is_loaded_from_its_folder(name, tmp_path):
    """As it is saved; its window bounds what is read, and embeddings are hashed."""
    folder = resolve(saved(build_lm(name), tmp_path, ends_texts=name in ("bart", "t5gemma", "mt5")))
    backbone = load_backbone(folder, dtype="float32")
    windows = {"gemma3": 96, "mistral": 96, "t5gemma": 96}
    assert folder.window == windows.get(name)
    assert backbone.positions == {"mt5": None}.get(name, windows.get(name, 128))
    assert len(folder.embedding_hash) == 64


@pytest.mark.parametrize("name", ["gemma3-suffix", "bart"])
def test_fresh_prompts_are_embeddings_as_the_model_reads_them(name):
    """Gemma and BART multiply them by the root of the width, in their embedding layer."""
    backbone = build_backbone(name)
    prompt = fresh_prompt(backbone, PromptConfig(length=5), seed=0)
    every = backbone.embed(torch.arange(len(backbone.embeddings))[None])[0]
    nearest = (prompt[:, None] - every).abs().sum(-1).min(1).values
    torch.testing.assert_close(nearest, torch.zeros(5), atol=1e-3, rtol=0)
    assert backbone.scale == pytest.approx(float(every.pow(2).mean().sqrt()), rel=1e-5)
    assert backbone.embed_scale == pytest.approx(32**0.5)


def test_logits_that_are_changed_behind_the_output_layer_are_found(tmp_path):
    """Weft asks the output layer itself; where the library caps what it gives, the model is refused."""
    lm = build_lm("gemma3")
    lm.config.final_logit_softcapping = 1.0
    with pytest.raises(UnsupportedError, match="do not read embeddings as they read tokens") as caught:
        load_backbone(resolve(saved(lm, tmp_path)), dtype="float32")
    assert caught.value.code == "C08"


def test_attention_that_a_family_does_not_have_is_refused(tmp_path):
    """T5Gemma caps scores of attention; weft's own and torch's do not."""
    folder = resolve(saved(build_lm("t5gemma"), tmp_path, ends_texts=True))
    for attention in ("sdpa", "grouped"):
        with pytest.raises(UnsupportedError, match="attention of"):
            load_backbone(folder, dtype="float32", attention=attention)


def test_windows_as_settings_name_them():
    """Of any stack, but where no layer slides or sliding is off; opened, the model's own is still known."""
    assert window_of({"sliding_window": 8}) == 8
    assert window_of({"sliding_window": 8, "use_sliding_window": False}) is None
    assert window_of({"sliding_window": 8, "layer_types": ["full_attention"]}) is None
    assert window_of({"encoder": {"sliding_window": 8}, "decoder": {"sliding_window": 4}}) == 4
    assert window_of({"sliding_window": None}) is None
    backbone = build_backbone("mistral-prefix")
    assert (backbone.lm.config.sliding_window, backbone.positions) == (128, 96)
    assert type(backbone)(backbone.lm, backbone.tokenizer, suffix=False).positions == 96


def test_the_check_of_a_large_vocabulary_takes_no_time(monkeypatch):
    """Which tokens are special is asked once: of 50,000 tokens, each time takes as long as a pass."""
    backbone, asked = build_backbone("llama-prefix"), []

    def counted(*args):
        asked.append(args)
        return {0, 1, 2}

    monkeypatch.setattr("weft.models.backbone.textless_ids", counted)
    check_embeddings(backbone)
    assert len(asked) == 1
