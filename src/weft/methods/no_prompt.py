"""The frozen model as it is: it reads the text and nothing else."""

from typing import TYPE_CHECKING, Literal

from weft.methods.method import Method, Saved, Setup

if TYPE_CHECKING:
    from weft.evaluation.answering import TunedAnswerer


class NoPrompt(Method):
    """The frozen model as it is; nothing is trained."""

    name: Literal["no_prompt"] = "no_prompt"

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "frozen model"

    @property
    def learns(self) -> bool:
        """Nothing."""
        return False

    def restore(self, setup: Setup, saved: Saved) -> "TunedAnswerer":
        """The model without a prompt."""
        from weft.evaluation.answering import TunedAnswerer
        from weft.models.tuned import TunedModel

        model = TunedModel(setup.backbone, None, {}, setup.names)
        return TunedAnswerer(model, setup.tasks, setup.source_tokens)
