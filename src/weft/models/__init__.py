"""Frozen models of three families behind one protocol; encoders refuse the half that writes answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from weft.errors import UnsupportedError
from weft.models.attention import is_plain, probe_attention, set_attention
from weft.models.backbone import Backbone, HiddenSpec, Opening, Outputs, States, TextState
from weft.models.base_folder import BaseFolder
from weft.models.causal import CausalBackbone
from weft.models.codec import TokenizerCodec
from weft.models.context import Context
from weft.models.embedding_hash import find_embeddings
from weft.models.encoder import EncoderBackbone
from weft.models.language_model import load_language_model, outline
from weft.models.measuring import Choice
from weft.models.memory import checkpoint_layers, free_bytes, rows_that_fit
from weft.models.own_embeddings import check_embeddings
from weft.models.packed import can_pack, pack, probe_products
from weft.models.precision import Precision, probe
from weft.models.quantised import check_weights, keep_layout, loading
from weft.models.seq2seq import Seq2SeqBackbone
from weft.models.sharding import shard_layers
from weft.models.text_cache import TextCache
from weft.models.tokenizer import answer_tokens, check_vocabulary, control_tokens, load_tokenizer

__all__ = [
    "Backbone",
    "CausalBackbone",
    "Choice",
    "Context",
    "EncoderBackbone",
    "HiddenSpec",
    "Opening",
    "Outputs",
    "Precision",
    "Seq2SeqBackbone",
    "States",
    "TextState",
    "TokenizerCodec",
    "answer_tokens",
    "check_position",
    "check_weights",
    "control_tokens",
    "free_bytes",
    "load_backbone",
    "load_tokenizer",
    "outline_backbone",
    "probe",
    "probe_attention",
    "probe_products",
    "rows_that_fit",
    "set_attention",
]


def load_backbone(
    folder: BaseFolder,
    *,
    dtype: str,
    chat: bool = False,
    position: str = "prefix",
    cache_mb: int = 2048,
    texts: Path | None = None,
    warn: Callable[[str], None] = lambda text: None,
    device: str | None = None,
    attention: str = "library",
    products: str = "library",
    weights: str = "own",
    checkpointing: bool = False,
    sharded: bool = False,
) -> Backbone:
    """A frozen model from its folder.

    Args:
        folder: from `base_folder.resolve`.
        dtype: `float32` or `bfloat16`.
        chat: whether texts become turns of a chat.
        position: `prefix`, or `suffix` for causal models.
        cache_mb: room for keys and values of texts, with suffix prompts.
        texts: the folder they are kept in; none: in memory.
        warn: told when that folder fails.
        device: none: the accelerator, if there is one.
        attention: a name in transformers' registry; library: as transformers chooses.
        products: library; packed: weights laid out once, where that can be done; or bfloat16: products in
            that format, of weights in `dtype`.
        weights: own, or rounded to int8 or nf4.
        checkpointing: compute each layer again in the backward pass, to save memory.
        sharded: spread the layers over the processes of this training.

    Raises:
        ArtifactError: as `outline_backbone`.
        UnsupportedError: for a suffix prompt on an encoder-decoder, attention or weights that cannot be had,
            a chat without a template, or a model that does not read embeddings as it reads tokens.
    """
    from accelerate import PartialState

    check_position(folder, position)
    check_attention(folder, attention)
    check_weights(weights, folder)
    tokenizer = load_tokenizer(folder, chat=chat)
    outline_backbone(folder, tokenizer, position)  # what is wrong is said before a number is read
    place = device or PartialState().device
    lm = load_language_model(folder, dtype, **loading(weights, dtype, place))
    keep_layout(lm)
    if attention != "library":
        set_attention(lm, attention)
    if checkpointing:
        checkpoint_layers(lm)
    if sharded:
        shard_layers(lm, PartialState().device)
    lm.to(place)
    if products == "packed" and can_pack(lm.device):
        pack(lm)
    suffix = position == "suffix"
    kept = TextCache(lm, cache_mb << 20, texts if suffix else None, warn)
    backbone = _backbone(folder, lm, tokenizer, suffix, kept)
    backbone.rounds, backbone.sharded = products == "bfloat16", sharded
    if folder.family != "encoder":
        check_embeddings(backbone)
    return backbone


def outline_backbone(folder: BaseFolder, tokenizer: Any, position: str = "prefix") -> Backbone:
    """A frozen model without its numbers: tokens, layers and sizes, to see what could be done with it.

    Raises:
        ArtifactError: if the folder's files do not make a model, or its tokenizer is another model's.
    """
    lm = outline(folder)
    find_embeddings(folder.path)
    parts = (lm.get_input_embeddings(), lm.get_output_embeddings() if folder.family != "encoder" else None)
    check_vocabulary(tokenizer, min(len(part.weight) for part in parts if part is not None), folder)
    return _backbone(folder, lm, tokenizer, position == "suffix", TextCache(lm, 0))


def _backbone(folder: BaseFolder, lm: Any, tokenizer: Any, suffix: bool, texts: TextCache) -> Backbone:
    names = {"name": folder.name, "base_hash": folder.hash}
    if folder.family == "seq2seq":
        return Seq2SeqBackbone(lm, tokenizer, **names)
    if folder.family == "encoder":
        return EncoderBackbone(lm, tokenizer, **names)
    return CausalBackbone(lm, tokenizer, suffix=suffix, texts=texts, **names)


def check_attention(folder: BaseFolder, attention: str) -> None:
    """Refuse weft's own attention where a model's does more, and what the library does not have for a model.

    Raises:
        UnsupportedError: with the remedy.
    """
    if attention == "grouped" and not is_plain(folder.reader):
        raise UnsupportedError(
            f"attention of {folder.reader.get('model_type')!r} models may do more than weft's does",
            where="base.attention",
            fix="set base.attention: auto",
            code="C08",
        )
    if attention == "sdpa" and folder.config.get("model_type") == "t5gemma":
        raise UnsupportedError(
            "attention of T5Gemma models caps its scores, which sdpa cannot",
            where="base.attention",
            fix="set base.attention: auto",
            code="C08",
        )


def check_position(folder: BaseFolder, position: str) -> None:
    """Refuse a prompt position that a model cannot have.

    Raises:
        UnsupportedError: for a suffix prompt on a model with an encoder.
    """
    if position == "suffix" and folder.family != "causal":
        raise UnsupportedError(
            "a model with an encoder reads its prompt before the text",
            where="prompt.position",
            fix="set prompt.position: prefix",
            code="C08",
        )
