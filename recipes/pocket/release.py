"""From a training state to a folder that stock transformers loads, and to the parts that weft ships."""

import copy
import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from recipes.pocket import train
from recipes.pocket.ways import WAYS, Way
from weft import storage
from weft.pocket import OUTPUT, PARTS, WORDS

LARGEST_PART = 25_000_000  # bytes
SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json")


def export(run: Path) -> Path:
    """Write the model of a run's last state, with its tokenizer, to RUN/model.

    Raises:
        FileNotFoundError: if the run has saved nothing.
    """
    way = _trained(run)
    _untie(way.model)
    way.model.save_pretrained(run / "model")
    way.tokenizer.save_pretrained(run / "model")
    return run / "model"


def _trained(run: Path) -> Way:
    settings = train.Settings(**storage.read_json(run / "settings.json"))
    state = torch.load(io.BytesIO(train.read_parts(run)), map_location="cpu", weights_only=True)
    way = WAYS[settings.way]()
    way.model.load_state_dict(state["model"])
    return way


def _untie(model: Any) -> None:
    """Give the decoder a table of its own, equal to the encoder's: in a file nothing is shared."""
    if hasattr(model, "decoder") and hasattr(model.decoder, "bert"):
        own = copy.deepcopy(model.decoder.bert.embeddings.word_embeddings)
        model.decoder.bert.embeddings.word_embeddings = own
        model.decoder.cls.predictions.decoder.weight = own.weight


def parts(run: Path, out: Path) -> dict[str, int]:
    """Write what was trained, in float16, and the settings of model and tokenizer.

    Args:
        run: of the way `borrowed`, exported.
        out: the package `weft.pocket`.

    Returns:
        Bytes of each part.

    Raises:
        ValueError: if a part is too large.
    """
    trained = _trained(run).model.state_dict()
    left_out = {OUTPUT, *(f"{words}.word_embeddings.weight" for words in WORDS)}
    halves: dict[str, dict[str, Tensor]] = {name: {} for name in PARTS}
    for name, value in trained.items():
        if name not in left_out and value.is_floating_point():
            halves[f"{name.partition('.')[0]}.safetensors"][name] = value.half().contiguous()
    sizes = {}
    for name, tensors in halves.items():
        data = save(tensors)
        if len(data) > LARGEST_PART:
            raise ValueError(f"{name} has {len(data):,} bytes, more than {LARGEST_PART:,}")
        storage.write_bytes(out / name, data)
        sizes[name] = len(data)
    for name in SETTINGS:
        storage.write_bytes(out / name, (run / "model" / name).read_bytes())
    return sizes
