"""Which models read the rows of runs, and what each of them receives of a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from weft.checks.findings import Findings
from weft.checks.token_checks import check_reading, check_tokens, check_words
from weft.checks.used_rows import Used
from weft.models import TokenizerCodec, load_tokenizer
from weft.models.base_folder import BaseFolder
from weft.runs.config import AnyRun
from weft.runs.workspace import Workspace


@dataclass(frozen=True)
class Readers:
    """The models that read texts for some runs on one base model: that, and encoders of the runs' methods.

    Attributes:
        runs: that read.
        base: the base model; none where it cannot be found.
        limits: longest text of each task, in tokens.
        workspace: finds encoders.
        noted: hashes of encoders that a finished run notes, by name.
    """

    runs: Sequence[AnyRun]
    base: BaseFolder | None
    limits: Mapping[str, int]
    workspace: Workspace
    noted: Mapping[str, str] = field(default_factory=dict)
    _codecs: dict[str, TokenizerCodec | None] = field(default_factory=dict)

    def check(self, used: Used, found: Findings) -> int | None:
        """What is wrong with a split's texts for those who read them.

        Returns:
            how many texts are cut for the base model; none where it reads none.
        """
        own = [one for one in self.runs if used.spec.name in [spec.name for spec in one.tasks]]
        known = [one.made_by or getattr(one, "method", None) for one in own]
        methods = [method for method in known if method is not None]
        cut = None
        if self.base and (not methods or any(method.reads_base for method in methods)):
            chooses = not all(method.only_reads for method in methods) or not methods
            cut = self._check_base(used, self.base, found, words=chooses)
        for name in dict.fromkeys(name for method in methods for name in method.also_reads):
            self._check_encoder(used, name, found)
        return cut

    def _check_base(self, used: Used, base: BaseFolder, found: Findings, *, words: bool) -> int | None:
        """The texts, and, where answers are chosen by their tokens, the answers' words."""
        codec = self._codec(base, found)
        if codec is None:
            return None
        if used.task.choices and words:
            check_words(used.task, codec, found)
        return check_tokens(used, codec, self._most(used, base), found)

    def _check_encoder(self, used: Used, name: str, found: Findings) -> None:
        """As the base model; what an experiment may allow is a warning, for the base model reads on."""
        folder = found.attempt(lambda: self.workspace.encoders.folder(name, self.noted.get(name)))
        codec = self._codec(folder, found) if folder else None
        if folder is None or codec is None:
            return
        own = Findings(allow=("cuts", "special_tokens"))
        check_reading(used, codec, self._most(used, folder), own)
        for one in own.found:
            one.fault.where += f", as the encoder {name!r} reads it"
            (found.error if one.level == "error" else found.warn)(one.fault)

    def _codec(self, folder: BaseFolder, found: Findings) -> TokenizerCodec | None:
        """A model's tokens; its tokenizer is loaded once."""
        if folder.hash not in self._codecs:
            spaced = folder.family == "causal"
            chat = folder is self.base and self.runs[0].base.chat
            made = found.attempt(lambda: TokenizerCodec(load_tokenizer(folder, chat=chat), spaced))
            self._codecs[folder.hash] = made
        return self._codecs[folder.hash]

    def _most(self, used: Used, folder: BaseFolder) -> int:
        """Tokens of the longest text of a task that a model reads."""
        limit = self.limits[used.spec.name]
        positions = folder.positions if folder.family == "encoder" else None
        return min(limit, positions or limit)
