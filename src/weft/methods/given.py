"""A prompt that another program trained: PEFT's adapters, arrays of NumPy, tensors of torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from weft.errors import ArtifactError, ConfigError, WeftError
from weft.methods.kept import with_kept_prompts
from weft.methods.method import FittedMethod, Saved, Setup
from weft.storage import prompt_files

if TYPE_CHECKING:
    from torch import Tensor

    from weft.evaluation.answering import TunedAnswerer


class GivenPrompt(FittedMethod):
    """A prompt from a file, as it is: nothing is trained. Its run teaches and answers as any other."""

    name: Literal["given"] = "given"
    file: str = Field(description=f"the prompt: {prompt_files.FORMS}")
    number: int = Field(0, ge=0, description="of a multitask adapter of PEFT, which of its tasks")
    sha256: str = Field("", description="of the file; noted when a configuration is read")
    keeps: ClassVar[Literal["soft"]] = "soft"
    places: ClassVar[frozenset[str]] = frozenset({"file"})

    @model_validator(mode="before")
    @classmethod
    def _noted(cls, values: Any) -> Any:
        """What the file holds names the run, wherever it lies; of a finished run nothing is read."""
        if not isinstance(values, dict) or values.get("sha256") or not isinstance(values.get("file"), str):
            return values
        try:
            return {**values, "sha256": prompt_files.hash_of(Path(values["file"]))}
        except WeftError as fault:
            raise ValueError(fault.line) from None

    @property
    def title(self) -> str:
        """What it is."""
        return "given prompt"

    def check(self, setup: Setup) -> None:
        """See `Method`; the prompt is read, and must fit the model, its place and the tasks."""
        self._read(setup)

    def fit(self, setup: Setup) -> Saved:
        """The prompt of the one task."""
        prompt = self._read(setup)
        return Saved({"prompts": prompt[None]}, parameters=prompt.numel())

    def _read(self, setup: Setup) -> "Tensor":
        from weft.prompts.files import read_prompt

        path, backbone = Path(self.file), setup.backbone
        if len(setup.tasks) != 1:
            raise ConfigError("a given prompt is one task's", where="method", fix="name one task", code="C12")
        if prompt_files.hash_of(path) != self.sha256:
            cause = "the prompt's file is another than the one that was named"
            raise ArtifactError(
                cause, where=self.file, fix="take method.sha256 out, or put it back", code="A14"
            )
        if path.is_dir() and getattr(backbone, "suffix", False):
            cause = "PEFT's prompts stand before the text"
            raise ConfigError(cause, where="prompt.position", fix="set prompt.position: prefix", code="C08")
        prompt = read_prompt(path, self.number)
        if prompt.shape[1] != backbone.width:
            cause = f"the prompt is {prompt.shape[1]} wide, and the embeddings of the model {backbone.width}"
            raise ArtifactError(cause, where=self.file, fix="name the base it was trained on", code="A07")
        if len(prompt) != setup.prompt.length:
            cause = f"the prompt has {len(prompt)} tokens, and prompt.length says {setup.prompt.length}"
            fix = f"set prompt.length: {len(prompt)}"
            raise ConfigError(cause, where=self.file, fix=fix, code="C15")
        return prompt

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model under the prompt."""
        return with_kept_prompts(setup, saved)
