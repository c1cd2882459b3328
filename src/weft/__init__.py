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
    "load",
    "pipeline",
]

process.prepare()  # before anything loads torch

_LAZY = {  # these need torch, which takes seconds to import
    **dict.fromkeys(("Prediction", "Predictor", "load"), "predictor"),
    **dict.fromkeys(("Pipeline", "pipeline"), "pipeline"),
}


def __getattr__(name: str) -> Any:
    if name == "Classifier":
        from weft.learning.classifier import Classifier

        return Classifier
    if name == "Decoding":
        from weft.config.decoding import Decoding

        return Decoding
    if name in _LAZY:
        return getattr(import_module(f"weft.serving.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'weft' has no attribute {name!r}")
