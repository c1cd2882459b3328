"""The language model of transformers that a folder holds: with its numbers, or in outline without them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from weft.errors import ArtifactError
from weft.models.base_folder import BaseFolder
from weft.models.model_files import DOWNLOAD

UNUSED = "pooler"  # part of an encoder that weft does not ask, and that a file may lack
LAYER = re.compile(r"[A-Za-z_]+\.\d+(?=\.)")  # the number of a layer in a tensor's name: layers.3


def load_language_model(folder: BaseFolder, dtype: str, **more: Any) -> Any:
    """The model with its numbers; `more` as transformers has it."""
    return _pretrained(folder, dtype=getattr(torch, dtype), **more)


def outline(folder: BaseFolder) -> Any:
    """The model without its numbers: layers, sizes and settings. Headers of files are all that is read.

    Raises:
        ArtifactError: if the files do not make a model, lack a part of it, or hold more layers than it has.
    """
    asked = {"device_map": "meta", "output_loading_info": True, "ignore_mismatched_sizes": True}
    with settings_named(folder), _silent():
        lm, report = _pretrained(folder, dtype=torch.float32, **asked)
    _check_report(report, lm, folder)
    _check_start(lm, folder)
    return lm


def _pretrained(folder: BaseFolder, **asked: Any) -> Any:
    """The model of transformers.

    What its files lack (the pooler of a BERT that only reads) is drawn alike at every loading: full
    fine-tuning keeps it, and two runs of one seed keep the same.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    kinds = {"seq2seq": AutoModelForSeq2SeqLM, "causal": AutoModelForCausalLM, "encoder": AutoModel}
    auto = kinds[folder.family]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return auto.from_pretrained(folder.path, local_files_only=True, use_safetensors=True, **asked)


@contextmanager
def settings_named(folder: BaseFolder) -> Iterator[None]:
    """What transformers raises of a model's settings, as weft says it.

    Raises:
        ArtifactError: with the library's words.
    """
    try:
        yield
    except Exception as error:  # the library raises what its parts raise
        raise ArtifactError(
            f"transformers cannot make the model of its config.json ({type(error).__name__}: {_line(error)})",
            where=str(folder.path / "config.json"),
            fix="mend the setting that is named, or take the config.json that the model was saved with; "
            "a newer version of transformers may read it as it is",
            code="C24",
        ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """Without the library's words, which the error says instead."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:200]


def _check_report(report: Any, lm: Any, folder: BaseFolder) -> None:
    """Refuse weights that are not the model's: the library would fill gaps with random numbers.

    Raises:
        ArtifactError: naming the first tensor.
    """
    lost = sorted(name for name in report["missing_keys"] if UNUSED not in name)
    layers = {found.group() for name in lm.state_dict() if (found := LAYER.search(name))}
    beyond = sorted(
        name
        for name in report["unexpected_keys"]
        if (found := LAYER.search(name)) and found.group() not in layers
    )
    other = sorted(map(_sizes, report["mismatched_keys"]))
    says = (
        (lost, "the model has {} tensors that the weights lack"),
        (beyond, "the weights have {} tensors of layers that config.json leaves out"),
        (other, "the weights have {} tensors of another shape than config.json says"),
    )
    for names, text in says:
        if names:
            raise ArtifactError(
                f"{text.format(len(names))}: {names[0]}{', …' if names[1:] else ''}",
                where=str(folder.path),
                fix=f"config.json and weights must be of one model: {DOWNLOAD}",
                code="C24",
            )


def _sizes(mismatch: Any) -> str:
    """A tensor of another shape: its name, its shape in the weights and in the model."""
    name, weights, model = mismatch
    return f"{name} is {list(weights)}, not {list(model)}"


def start_token(config: Any) -> Any:
    """The token with which an encoder-decoder's answers begin; T5Gemma's settings name it otherwise."""
    own = getattr(config, "decoder_start_token_id", None)
    return getattr(config.decoder, "bos_token_id", None) if config.model_type == "t5gemma" else own


def _check_start(lm: Any, folder: BaseFolder) -> None:
    """Refuse an encoder-decoder whose settings do not say with which token an answer begins.

    Raises:
        ArtifactError: naming the setting.
    """
    if folder.family != "seq2seq":
        return
    start = start_token(lm.config)
    rows = len(lm.get_output_embeddings().weight)
    if type(start) is not int or not 0 <= start < rows:
        raise ArtifactError(
            f"config.json names no token with which an answer begins (decoder_start_token_id: {start})",
            where=str(folder.path / "config.json"),
            fix="add decoder_start_token_id, the number of the token that the model was trained with",
            code="C24",
        )
