"""Where the encoders lie that read beside base models. Loads without torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weft.config.model import BaseConfig
from weft.errors import ArtifactError, UnsupportedError
from weft.models.base_folder import BaseFolder
from weft.runs.folder import Run

NAMED = "name the folder of an encoder, or one that weft or the hub knows by name"
MOVED = "name the folder where it lies now: --encoder FOLDER; its files must be the same"


@dataclass(frozen=True)
class Encoders:
    """Encoders by their names in configurations, or by what finished runs note of them.

    Attributes:
        find: gives the folder of a model.
        given: places of encoders that finished runs read with, if not where their configurations say.
    """

    find: Callable[[BaseConfig], BaseFolder]
    given: tuple[str, ...] = ()

    def folder(self, name: str, noted: str | None = None) -> BaseFolder:
        """The folder of an encoder.

        Args:
            name: as a configuration has it.
            noted: hash of its files, as a finished run notes it: a given folder that has it
                is meant, if there is one.

        Raises:
            ArtifactError: if there is no model of that name.
            UnsupportedError: if it is no encoder.
        """
        for folder in self._here() if noted else []:
            if folder.hash == noted:
                return folder
        return self._found(name, f"method (encoder {name!r})", MOVED if noted else NAMED)

    def check(self, several: Sequence[Run]) -> None:
        """Refuse a given encoder that none of these runs reads with: it would be passed over.

        Raises:
            ArtifactError: with its hash and theirs.
            UnsupportedError: if it is no encoder.
        """
        noted = {name: found for run in several for name, found in run.encoders().items()}
        for folder in self._here():
            if folder.hash not in noted.values():
                theirs = ", ".join(f"{name!r} ({found[:12]})" for name, found in noted.items())
                raise ArtifactError(
                    f"no run reads with this encoder ({folder.hash[:12]}); they read with {theirs or 'none'}",
                    where=f"--encoder {folder.path}",
                    fix="name the folder with the files of training, or leave it out",
                    code="A08",
                )

    def _here(self) -> list[BaseFolder]:
        return [self._found(one, f"--encoder {one}", NAMED) for one in self.given]

    def _found(self, name: str, where: str, fix: str) -> BaseFolder:
        """The folder of an encoder; `where` it is named, and the `fix` if it is not there."""
        try:
            folder = self.find(BaseConfig(model=name))
        except ArtifactError as fault:
            place = (where, fix) if fault.where == "base.model" else (fault.where, fault.fix)
            raise ArtifactError(fault.cause, where=place[0], fix=place[1], code=fault.code) from None
        if folder.family != "encoder":
            raise UnsupportedError(
                f"{name!r} is no encoder", where=where, fix="name it as base.model", code="C08"
            )
        return folder
