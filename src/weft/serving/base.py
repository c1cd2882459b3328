"""The frozen models of a bank: the base model, and encoders that read beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from weft.bank import BaseFacts, Snapshot
from weft.bank.manifest import differences
from weft.config.model import BaseConfig
from weft.errors import ArtifactError
from weft.models import Backbone, CausalBackbone, base_folder, load_backbone
from weft.models.base_folder import BaseFolder
from weft.models.kept_readings import KeptReadings
from weft.models.text_cache import TextCache
from weft.runs.encoders import Encoders
from weft.runs.workspace import READINGS, noted_choices
from weft.serving.settings import EngineSettings

READS, READS_ELSEWHERE = {"cpu": 64}, 1024  # tokens of a read of texts; elsewhere not measured


def served_texts(backbone: Backbone, max_bytes: int) -> TextCache:
    """Keys and values of texts that come one by one.

    Each is read in a shape that follows from its own length: its numbers are rounded to 16 bits, by which a
    difference in the last bit can become a thousandth.
    """
    reads = READS.get(backbone.device.type, READS_ELSEWHERE)
    return TextCache(backbone.lm, max_bytes, read_tokens=reads)


@dataclass(frozen=True)
class Models:
    """Where the models of a bank lie here, and how they are run.

    Attributes:
        facts: what the bank says of its base model.
        base: a known name, a folder or a hub id; none: as the bank says. It must be the same model.
        encoders: folders of encoders that read beside it, if not where runs say.
        choices: number format, attention and products, as `BaseConfig` has them.
    """

    facts: BaseFacts
    base: str | Path | None = None
    encoders: Sequence[str | Path] = ()
    choices: dict[str, str] = field(default_factory=lambda: noted_choices({}))

    @classmethod
    def of(
        cls, snapshot: Snapshot, base: str | Path | None = None, encoders: Sequence[str | Path] = ()
    ) -> "Models":
        """Those of a bank, run as the run of its first task was, by which last digits are the same."""
        names = snapshot.names(limit=1)
        noted = snapshot.find(names[0]).choices if names else {}
        return cls(snapshot.base, base, encoders, noted_choices(noted))

    @cached_property
    def folder(self) -> BaseFolder:
        """The folder of the base model.

        Raises:
            ArtifactError: if it is not there, or another one than the bank's.
        """
        model = self.facts.model if self.base is None else str(self.base)
        revision = self.facts.revision if self.base is None else None
        found = base_folder.resolve(BaseConfig(model=model, revision=revision))
        here = {
            "base_hash": found.hash,
            "embedding_hash": found.embedding_hash,
            "tokenizer_hash": found.tokenizer_hash,
            "chat_hash": found.chat_hash if self.facts.chat_hash else None,
        }
        for what, code, theirs, ours in differences(self.facts, self.facts.model_copy(update=here)):
            raise ArtifactError(
                f"the bank is of another {what}: {theirs}, and here it is {ours}",
                where=str(found.path),
                fix="name the folder with the base model of the bank's runs: base=FOLDER",
                code=code,
            )
        return found

    def load(self, settings: EngineSettings) -> Backbone:
        """The base model, with room for texts that are read."""
        how: dict[str, Any] = {"position": self.facts.position, **self.choices}
        how["chat"] = self.facts.chat_hash is not None
        backbone = load_backbone(self.folder, **how)
        backbone.kept = KeptReadings(READINGS)
        if isinstance(backbone, CausalBackbone):
            backbone.texts = served_texts(backbone, settings.text_bytes)
        return backbone

    def encoder(self, name: str, noted: str) -> Backbone:
        """An encoder by its name and the hash of its files, in float32.

        Raises:
            ArtifactError: if it is not here.
        """
        folders = Encoders(base_folder.resolve, tuple(map(str, self.encoders)))
        found = load_backbone(folders.folder(name, noted), dtype="float32")
        found.kept = KeptReadings(READINGS)
        return found
