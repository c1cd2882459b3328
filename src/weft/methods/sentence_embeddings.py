"""Sentence embeddings and logistic regression: what users do who have heard of sentence encoders."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from weft.methods.frozen_features import FeatureClassifier
from weft.methods.method import Setup

if TYPE_CHECKING:
    from weft.models import Backbone
    from weft.models.features import Reading


class SentenceEmbeddings(FeatureClassifier):
    """The mean of an encoder's last states; nothing is asked of the base model."""

    name: Literal["sentence_embeddings"] = "sentence_embeddings"
    encoder: str = Field("minilm", description="the frozen encoder: a known name, a folder or a hub id")
    reads_base: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "sentence embeddings + " + ("LR" if self.head == "logistic" else "class mean")

    @property
    def also_reads(self) -> tuple[str, ...]:
        """The encoder."""
        return (self.encoder,)

    def renamed(self, name: Callable[[str], str]) -> "SentenceEmbeddings":
        """See `Method`."""
        return self.model_copy(update={"encoder": name(self.encoder)})

    def model(self, setup: Setup) -> "Backbone":
        """The encoder."""
        return setup.load_encoder(self.encoder)

    def readings(self, backbone: "Backbone") -> "list[Reading]":
        """The mean of the last layer."""
        return [(backbone.depths[0], "mean")]
