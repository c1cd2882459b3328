"""From a training state to a folder that stock transformers loads."""

import io
from pathlib import Path

import torch

from recipes.pocket import train
from recipes.pocket.ways import WAYS
from weft import storage


def export(run: Path) -> Path:
    """Write the model of a run's last state, with its tokenizer, to RUN/model.

    Raises:
        FileNotFoundError: if the run has saved nothing.
    """
    settings = train.Settings(**storage.read_json(run / "settings.json"))
    state = torch.load(io.BytesIO(train.read_parts(run)), map_location="cpu", weights_only=True)
    way = WAYS[settings.way]()
    way.model.load_state_dict(state["model"])
    way.model.save_pretrained(run / "model")
    way.tokenizer.save_pretrained(run / "model")
    return run / "model"
