"""weft: multitask prompt tuning on a frozen language model.

import weft
model = weft.load("runs/adapt-mpt-banking-s0-3f2a91c0")
model.predict([{"text": "My card was swallowed by the machine."}])
weft.Classifier().fit(texts, answers)  # scikit-learn's way
"""

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
    from weft.serving.predictor import Prediction, Predictor, load

__all__ = [
    "ArtifactError",
    "Classifier",
    "ConfigError",
    "DataError",
    "Decoding",
    "NumericError",
    "Prediction",
    "Predictor",
    "ResourceError",
    "UnsupportedError",
    "WeftError",
    "from_pretrained",
    "load",
    "pull",
    "push_to_hub",
    "save_pretrained",
]

process.prepare()  # before anything loads torch

_LAZY = ("Prediction", "Predictor", "load")  # these need torch, which takes seconds to import
_HUB = ("from_pretrained", "pull", "push_to_hub", "save_pretrained")


def __getattr__(name: str) -> Any:
    if name == "Classifier":
        from weft.learning.classifier import Classifier

        return Classifier
    if name == "Decoding":
        from weft.config.decoding import Decoding

        return Decoding
    if name in _LAZY:
        from weft.serving import predictor

        return getattr(predictor, name)
    if name in _HUB:
        from weft.interop import hub

        return getattr(hub, name)
    raise AttributeError(f"module 'weft' has no attribute {name!r}")
