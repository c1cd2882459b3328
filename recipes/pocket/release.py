"""From a training state to a folder that stock transformers loads, and to the parts that are shipped."""

import copy
from pathlib import Path
from typing import Any

import torch

from recipes.pocket import parts, train
from recipes.pocket.ways import WAYS, Way
from weft import storage

SEEN = ("snli", "mnli", "qqp", "qnli", "squad", "nq_swap")  # by MiniLM; SNLI, MNLI, SQuAD here too


def export(run: Path) -> Path:
    """Write the model of a run's last state, with its tokenizer, to RUN/model.

    Raises:
        FileNotFoundError: if the run has saved nothing.
    """
    way = trained(run)
    way.model.config.seen_in_pretraining = list(SEEN)
    for config in (way.model.config.encoder, way.model.config.decoder):
        config.name_or_path = "all-MiniLM-L6-v2"  # not where it lies on this machine
    untie(way.model)
    way.model.save_pretrained(run / "model")
    way.tokenizer.save_pretrained(run / "model")
    return run / "model"


def release(run: Path, out: Path) -> dict[str, int]:
    """Write the parts of an exported run's model to OUT; gives the bytes of each."""
    return parts.split(trained(run).model, run / "model", out)


def trained(run: Path) -> Way:
    """The model of a run's last state."""
    settings = train.Settings(**storage.read_json(run / "settings.json"))
    state = train.read_state(run, torch.device("cpu"))
    way = WAYS[settings.way]()
    way.model.load_state_dict(state["model"])
    return way


def untie(model: Any) -> None:
    """Give the decoder a table of its own, equal to the encoder's: in a file nothing is shared."""
    if hasattr(model, "decoder") and hasattr(model.decoder, "bert"):
        own = copy.deepcopy(model.decoder.bert.embeddings.word_embeddings)
        model.decoder.bert.embeddings.word_embeddings = own
        model.decoder.cls.predictions.decoder.weight = own.weight
