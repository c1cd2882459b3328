"""Which base model is meant: a name, a folder or a hub id becomes a folder with a hash. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from weft.config.model import BaseConfig
from weft.errors import ArtifactError, UnsupportedError, did_you_mean
from weft.models.bundled import KNOWN
from weft.models.embedding_hash import embedding_hash
from weft.models.model_files import HASHED, check_folder, check_there, read_settings
from weft.models.windows import window_of
from weft.storage import is_sealed, read_json, sha256_file, sha256_json

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
    "gemma3_text": "causal",
    "bart": "seq2seq",
    "t5gemma": "seq2seq",
    "bert": "encoder",
    "distilbert": "encoder",
    "mpnet": "encoder",
    "roberta": "encoder",
}
GROWING_ROPES = ("dynamic", "longrope")  # whose frequencies follow the longest text of a batch
TOKENIZER = ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges")
LAYERS = ("num_hidden_layers", "num_layers", "n_layer")  # names of the number of layers
WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")  # names of D
ROPES = ("rope_scaling", "rope_parameters")  # names of the settings of rotary positions
COUNTS = (*WIDTHS, *LAYERS, "n_positions", "max_position_embeddings", "pad_token_id")


@dataclass(frozen=True)
class BaseFolder:
    """A base model on disk.

    Attributes:
        name: what the user asked for; of a folder, its name.
        path: the folder.
        family: `seq2seq`, `causal` or `encoder`.
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
    def bytes(self) -> int:
        """Of the weights, as the files hold them."""
        return sum(file.stat().st_size for file in self.path.glob("*.safetensors"))

    @property
    def width(self) -> int:
        """D, the size of an embedding."""
        return next((int(self.reader[name]) for name in WIDTHS if self.reader.get(name)), 0)

    @property
    def seen(self) -> frozenset[str]:
        """Tasks whose data the model was trained on before, as its `config.json` says."""
        return frozenset(self.config.get("seen_in_pretraining", ()))

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
    def chat_hash(self) -> str:
        """SHA-256 of the chat template, which lies in a file of its own or in the tokenizer's settings."""
        own = self.path / "chat_template.jinja"
        return sha256_file(own) if own.is_file() else sha256_json(self.tokenizer_hash)

    @cached_property
    def chat_tokens(self) -> int:
        """Tokens that the chat template puts around a text.

        Raises:
            UnsupportedError: as `make_chat`.
        """
        from weft.models.codec import TokenizerCodec
        from weft.models.tokenizer import load_tokenizer

        return TokenizerCodec(load_tokenizer(self, chat=True)).whole(0)

    @cached_property
    def embedding_hash(self) -> str:
        """SHA-256 of the input embeddings; see `embedding_hash.py`."""
        return embedding_hash(self.path)

    @property
    def positions(self) -> int | None:
        """Longest input of models with absolute positions; none where positions are relative."""
        kind = self.reader.get("model_type", "")
        if kind == "gpt2":
            return int(self.reader["n_positions"])
        if kind != "bart" and FAMILIES.get(kind) != "encoder":
            return None
        return encoder_positions(self.reader)

    @property
    def answer_positions(self) -> int | None:
        """Longest answer of an encoder-decoder whose decoder has absolute positions of its own."""
        found = dict(self.config.get("decoder") or {})
        positions = found.get("max_position_embeddings")
        return int(positions) if found.get("model_type") == "bert" and positions else None

    @property
    def window(self) -> int | None:
        """Longest input of which every layer sees all; none: any length."""
        return window_of(self.config)

    @property
    def rope_limit(self) -> int | None:
        """Longest input whose rotary positions do not depend on the texts beside it; none: any length."""
        return rope_limit(self.reader)


def encoder_positions(reader: Mapping[str, Any]) -> int:
    """Longest input of a model with absolute positions, from the settings of the part that reads text."""
    before = {"mpnet": 2, "roberta": int(reader.get("pad_token_id") or 0) + 1}  # positions that no token has
    return int(reader["max_position_embeddings"]) - before.get(reader.get("model_type", ""), 0)


def rope_limit(reader: Mapping[str, Any]) -> int | None:
    """As `BaseFolder.rope_limit`, from the settings of the part that reads text."""
    rope: Mapping[str, Any] = next((reader[name] for name in ROPES if reader.get(name)), {})
    kind, trained = rope.get("rope_type", rope.get("type")), "original_max_position_embeddings"
    if kind not in GROWING_ROPES:
        return None
    own = (reader.get(trained) or rope.get(trained)) if kind == "longrope" else None
    return int(own or reader.get("max_position_embeddings", 0))


def located(base: BaseConfig, folder: Path) -> BaseConfig:
    """The same base model; see `whole_path`."""
    return base.model_copy(update={"model": whole_path(base.model, folder)})


def whole_path(model: str, folder: Path) -> str:
    """The name of a model; of a folder its whole path, so that it is found from everywhere.

    Args:
        model: as a file, or the command line, names it.
        folder: where that file lies; what is not there may lie in the current folder.
    """
    near = [one / model for one in (folder, Path()) if (one / model).is_dir()]
    if model in KNOWN or not near:
        return model
    return str(near[0].parent.resolve() / near[0].name)  # a link keeps its name


def resolve(base: BaseConfig) -> BaseFolder:
    """The folder of a base model, made or fetched if need be, without loading its weights.

    Raises:
        ArtifactError: if it is not there; the message says how to get it.
        UnsupportedError: if it is of a family that weft does not serve.
    """
    if base.model in KNOWN:
        path, origin = KNOWN[base.model]()
    elif Path(base.model).is_dir():
        path = Path(base.model)
        return describe(path.name or base.model, path, f"folder {path.name}")
    elif Path(base.model).is_absolute() or base.model.startswith("."):
        raise ArtifactError(
            f"there is no base model in the folder {base.model!r}: there is no such folder",
            where="base.model",
            fix="name the folder where the model lies now: --base FOLDER; its files must be the same",
            code="C24",
        )
    else:
        path, origin = _from_hub(base), f"hub {base.model}@{base.revision or 'main'}"
    return describe(base.model, path, origin)


def describe(name: str, path: Path, origin: str) -> BaseFolder:
    """What a model folder holds.

    Raises:
        ArtifactError: if it holds no whole model with safetensors weights.
        UnsupportedError: for a family that weft does not serve, quantised weights, or a model that brings its
            own code.
    """
    file = path / "config.json"
    check_there(file)
    config = read_settings(file)
    if "auto_map" in config:
        raise UnsupportedError(
            "the model brings its own code, which weft does not run",
            where=str(path),
            fix="name a model that transformers reads by itself",
            code="A10",
        )
    family = _family(config, file)
    folder = BaseFolder(name, path, family, "", origin, config)
    _check_settings(folder.reader, file)
    check_folder(path)
    return replace(folder, hash=_hash(path))


def _family(config: dict[str, Any], file: Path) -> str:
    """Which family of models the settings are of.

    Raises:
        ArtifactError: if they do not say.
        UnsupportedError: for one that weft does not serve, and for quantised weights.
    """
    kind, encoder = config.get("model_type"), config.get("encoder")
    if not isinstance(kind, str) or (kind == "encoder-decoder" and not isinstance(encoder, dict)):
        raise ArtifactError(
            "config.json does not say what kind of model it is of (model_type)",
            where=str(file),
            fix="take the config.json that the model was saved with",
            code="C24",
        )
    if encoder and kind == "encoder-decoder" and encoder.get("model_type") != "bert":
        kind = f"encoder-decoder of {encoder.get('model_type')}"
    if kind not in FAMILIES:
        raise UnsupportedError(
            f"weft does not know models of type {kind!r}",
            where=str(file),
            fix=f"use one of {', '.join(sorted(FAMILIES))}",
            code="C08",
        )
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
        raise UnsupportedError(
            f"the model's weights are quantised{method and f' ({method})'}, which weft does not serve",
            where=f"{file} (quantization_config)",
            fix="use the model's own weights, in float32, bfloat16 or float16",
            code="C08",
        )
    return FAMILIES[kind]


def _check_settings(reader: Mapping[str, Any], file: Path) -> None:
    """Refuse settings of the part that reads text which weft cannot read, or which lack what it asks of them.

    Raises:
        ArtifactError: naming the setting.
    """
    kind = str(reader.get("model_type"))
    needed = [next((name for name in WIDTHS if reader.get(name)), WIDTHS[0])]
    needed += ["n_positions"] if kind == "gpt2" else []
    needed += ["max_position_embeddings"] if kind == "bart" or FAMILIES.get(kind) == "encoder" else []
    wrong = [name for name in needed if not reader.get(name)]
    wrong += [name for name in COUNTS if type(reader.get(name) or 0) is not int]
    wrong += [name for name in ROPES if not isinstance(reader.get(name) or {}, dict)]
    if wrong:
        said = repr(reader[wrong[0]]) if wrong[0] in reader else "nothing"
        raise ArtifactError(
            f"config.json says {said} of {wrong[0]}",
            where=str(file),
            fix="take the config.json that the model was saved with",
            code="C24",
        )


def _hash(path: Path) -> str:
    """SHA-256 over every file that can change an answer, kept beside those that weft made itself."""
    if is_sealed(path):
        return str(sha256_json(read_json(path / "manifest.json")["files"]))
    files = {file.name: sha256_file(file) for file in sorted(path.iterdir()) if file.suffix in HASHED}
    return sha256_json(files)


def _from_hub(base: BaseConfig) -> Path:
    """A model from the hub, or from its local cache where there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(base.model, revision=base.revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ArtifactError(
            f"there is no base model {base.model!r}: no folder of that name, and the hub gave none "
            f"({type(error).__name__})",
            where="base.model",
            fix=f"give a folder or a hub id that can be reached; {did_you_mean(base.model, list(KNOWN))}",
            code="C24",
        ) from None
