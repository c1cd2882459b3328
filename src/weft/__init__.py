"""weft: multitask prompt tuning on a frozen language model.

import weft
model = weft.load("runs/adapt-mpt-banking-s0-3f2a91c0")
model.predict([{"text": "My card was swallowed by the machine."}])
weft.Classifier().fit(texts, answers)  # scikit-learn's way
weft.pipeline("runs/adapt-mpt-banking-s0-3f2a91c0")("My card was swallowed.")  # transformers' way
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weft import process
from weft.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    NumericError,
    ResourceError,
    UnsupportedError,
    WeftError,
)

if TYPE_CHECKING:
    from weft.config.decoding import Decoding
    from weft.interop.hub import from_pretrained, pull, push_to_hub, save_pretrained
    from weft.learning.classifier import Classifier
    from weft.serving.pipeline import Pipeline, pipeline
    from weft.serving.predictor import Prediction, Predictor, load

__all__ = [
    "ArtifactError",
    "Classifier",
    "ConfigError",
    "DataError",
    "Decoding",
    "NumericError",
    "Pipeline",
    "Prediction",
    "Predictor",
    "ResourceError",
    "UnsupportedError",
    "WeftError",
    "from_pretrained",
    "load",
    "pipeline",
    "pull",
    "push_to_hub",
    "save_pretrained",
]

process.prepare()  # before anything loads torch

_LAZY = {  # these take time to import: most need torch
    "Classifier": "learning.classifier",
    "Decoding": "config.decoding",
    **dict.fromkeys(("Pipeline", "pipeline"), "serving.pipeline"),
    **dict.fromkeys(("Prediction", "Predictor", "load"), "serving.predictor"),
    **dict.fromkeys(("from_pretrained", "pull", "push_to_hub", "save_pretrained"), "interop.hub"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    return getattr(import_module(f"weft.{_LAZY[name]}"), name)
