"""Frozen language models of two families behind one protocol."""

import torch

from weft.backbone.base import Backbone, Context, HiddenSpec, Outputs, States, TextState
from weft.backbone.causal import CausalBackbone
from weft.backbone.precision import Precision, probe
from weft.backbone.seq2seq import Seq2SeqBackbone
from weft.backbone.tokens import answer_tokens, load_tokenizer
from weft.bases import BaseFolder
from weft.errors import UnsupportedError

__all__ = [
    "Backbone",
    "CausalBackbone",
    "Context",
    "HiddenSpec",
    "Outputs",
    "Precision",
    "Seq2SeqBackbone",
    "States",
    "TextState",
    "answer_tokens",
    "check_position",
    "load_backbone",
    "load_tokenizer",
    "probe",
]


def load_backbone(
    folder: BaseFolder,
    *,
    dtype: str,
    position: str = "prefix",
    cache_mb: int = 2048,
    device: str | None = None,
) -> Backbone:
    """A frozen model from its folder.

    Args:
        folder: from `bases.resolve`.
        dtype: `float32` or `bfloat16`.
        position: `prefix`, or `suffix` for causal models.
        cache_mb: memory for keys and values of texts.
        device: none: the accelerator, if there is one.

    Raises:
        UnsupportedError: for a suffix prompt on an encoder-decoder, or a sliding window.
    """
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    check_position(folder, position)
    logging.disable_progress_bar()
    auto = AutoModelForSeq2SeqLM if folder.family == "seq2seq" else AutoModelForCausalLM
    lm = auto.from_pretrained(
        folder.path, dtype=getattr(torch, dtype), local_files_only=True, use_safetensors=True
    )
    tokenizer = load_tokenizer(folder)
    lm.to(device or PartialState().device)
    names = {"name": folder.name, "base_hash": folder.hash}
    if folder.family == "seq2seq":
        return Seq2SeqBackbone(lm, tokenizer, **names)
    return CausalBackbone(lm, tokenizer, suffix=position == "suffix", cache_bytes=cache_mb << 20, **names)


def check_position(folder: BaseFolder, position: str) -> None:
    """Refuse a prompt position that a model cannot have.

    Raises:
        UnsupportedError: for a suffix prompt on an encoder-decoder, or a sliding window.
    """
    if position == "suffix" and folder.family == "seq2seq":
        raise UnsupportedError(
            "an encoder-decoder reads its prompt before the text",
            where="prompt.position",
            fix="set prompt.position: prefix",
            code="C08",
        )
    window = folder.config.get("sliding_window") if folder.config.get("use_sliding_window", True) else None
    if window and folder.family == "causal":
        raise UnsupportedError(
            f"the model's attention sees a window of {window} tokens, which weft does not serve",
            where=f"{folder.name} (sliding_window)",
            code="C08",
        )
