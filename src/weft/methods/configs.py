"""Settings of each method."""

from typing import Annotated, Literal

from pydantic import Field

from weft.config.base import Config


class PromptTuningConfig(Config):
    """Vanilla prompt tuning; SPoT when it starts from a teacher."""

    name: Literal["prompt_tuning"] = "prompt_tuning"
    start: str = Field("fresh", description="fresh, nearest (teacher on these rows), or a teacher's task")

    @property
    def groups(self) -> set[str]:
        """Parameter groups that are trained, each with a learning rate."""
        return {"prompt"}


class MPTConfig(Config):
    """Multitask prompt tuning of a target task."""

    name: Literal["mpt"] = "mpt"
    start: str = Field("mean", description="mean of the sources' factors, nearest, or a source task")
    train: Literal["all", "factors"] = Field("all", description="P* and factors, or the factors alone")

    @property
    def groups(self) -> set[str]:
        """Parameter groups that are trained, each with a learning rate."""
        return {"shared", "factors"} if self.train == "all" else {"factors"}


class FullConfig(Config):
    """Full fine-tuning: every weight of the model."""

    name: Literal["full"] = "full"

    @property
    def groups(self) -> set[str]:
        """Parameter groups that are trained, each with a learning rate."""
        return {"model"}


class NoPromptConfig(Config):
    """The frozen model as it is; nothing is trained."""

    name: Literal["no_prompt"] = "no_prompt"

    @property
    def groups(self) -> set[str]:
        """Nothing is trained."""
        return set()


class MajorityConfig(Config):
    """The commonest answer of the training rows; no model."""

    name: Literal["majority"] = "majority"

    @property
    def groups(self) -> set[str]:
        """Nothing is trained."""
        return set()


MethodConfig = Annotated[
    PromptTuningConfig | MPTConfig | FullConfig | NoPromptConfig | MajorityConfig, Field(discriminator="name")
]
