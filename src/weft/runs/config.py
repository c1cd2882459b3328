"""The four kinds of run: teachers, source, adapt, evaluate, each complete in itself."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from weft.config.base import Config, RelationError, Split, check_shots
from weft.config.decoding import GREEDY, Decoding
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.config.training import (
    DistillConfig,
    FactorConfig,
    LimitsConfig,
    OptimConfig,
    PromptConfig,
    SamplingConfig,
    check_rates,
)
from weft.methods import AnyMethod, Method
from weft.methods.mpt import MPT
from weft.methods.prompt_tuning import PromptTuning


class RunConfig(Config):
    """What every run has. `tasks` is empty only where a run scores no task."""

    base: BaseConfig = BaseConfig()
    prompt: PromptConfig = PromptConfig()
    limits: LimitsConfig = LimitsConfig()
    tasks: tuple[TaskSpec, ...]
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("tasks")
    @classmethod
    def _names_differ(cls, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        names = [task.name for task in tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RelationError(f"a task is named twice: {', '.join(twice)}", "C10")
        if not names:
            raise RelationError("a run needs a task", "C10")
        return tasks

    @model_validator(mode="after")
    def _limits_are_of_tasks(self) -> "RunConfig":
        self.limits.check([task.name for task in self.tasks])
        return self

    @property
    def source_tokens(self) -> tuple[int, ...]:
        """Longest text of each of the tasks, in tokens."""
        return tuple(self.limits.tokens(task.name) for task in self.tasks)

    @property
    def made_by(self) -> Method | None:
        """The method whose prompts, weights or numbers the run keeps; none where it keeps nothing."""
        return None


class TeacherRun(RunConfig):
    """One plain soft prompt for one source task."""

    stage: Literal["teachers"] = "teachers"
    optim: OptimConfig

    @model_validator(mode="after")
    def _rates_fit(self) -> "TeacherRun":
        check_rates(self.optim, self.made_by.groups)
        return self

    @property
    def made_by(self) -> Method:
        """A teacher is a tuned prompt."""
        return PromptTuning()


class SourceRun(RunConfig):
    """One shared prompt with task factors, distilled from the teachers."""

    stage: Literal["source"] = "source"
    teachers: dict[str, str] = Field(description="source task -> run of its teacher; empty: no distillation")
    factors: FactorConfig = FactorConfig()
    distill: DistillConfig = DistillConfig()
    sampling: SamplingConfig = SamplingConfig()
    optim: OptimConfig

    @model_validator(mode="after")
    def _there_are_enough_tasks(self) -> "SourceRun":
        if len(self.tasks) < 2:
            raise RelationError(
                "source training shares a prompt between tasks: name two or more sources", "C10"
            )
        check_rates(self.optim, self.factors.groups)
        if self.factors.rank > self.prompt.length:
            raise RelationError(
                f"factors.rank ({self.factors.rank}) exceeds prompt.length ({self.prompt.length})", "C06"
            )
        kappa = self.sampling.kappa
        if kappa is not None and kappa > len(self.tasks) and not self.sampling.replacement:
            raise RelationError(
                f"sampling.kappa ({kappa}) exceeds the number of source tasks ({len(self.tasks)})", "C09"
            )
        return self

    @property
    def made_by(self) -> Method:
        """The source stage is MPT's own."""
        return MPT()


class AdaptRun(RunConfig):
    """A method trained on one target task, or on a group of them that shares P*."""

    stage: Literal["adapt"] = "adapt"
    method: AnyMethod
    source: str | None = Field(
        None,
        description="run of the source stage; bundled: the one that comes with weft for a known base model, "
        "with its teachers",
    )
    teachers: dict[str, str] = Field(default_factory=dict, description="task -> teacher run (SPoT)")
    shots: int | None = Field(None, gt=0, description="training rows per answer (open answers: in all)")
    shots_total: int | None = Field(
        None, gt=0, description="training rows in all, as many of one answer as of another; instead of shots"
    )
    optim: OptimConfig | None = Field(None, description="needed by every method that is trained by gradient")

    @model_validator(mode="after")
    def _rates_fit(self) -> "AdaptRun":
        if not self.method.learns:
            raise ValueError(f"{self.method.name!r} learns nothing: evaluate it without adapting")
        check_shots(self.shots, self.shots_total)
        check_optim(self.method, self.optim)
        return self

    @property
    def made_by(self) -> Method:
        """The method that is adapted."""
        return self.method


class EvaluateRun(RunConfig):
    """Scores of one run, of a method that learns nothing, or of one that is cross-validated, on one split."""

    stage: Literal["evaluate"] = "evaluate"
    run: str | None = Field(None, description="the run that is scored; none: see `method`")
    method: AnyMethod | None = Field(
        None, description="where there is no run: one that learns nothing; or, with folds, one that is fitted"
    )
    folds: int | None = Field(
        None, ge=2, description="cross-validation: each row is answered by what the rows of other folds made"
    )
    source: str | None = Field(None, description="as of an adaptation; with folds only")
    teachers: dict[str, str] = Field(default_factory=dict, description="as of an adaptation; with folds only")
    split: Split = "test"
    batch_size: int = Field(64, gt=0)
    generate: bool = Field(True, description="also write answers freely where the answer set is closed")
    decoding: Decoding = GREEDY

    @model_validator(mode="after")
    def _something_is_scored(self) -> "EvaluateRun":
        if self.run is None and self.method is None:
            raise ValueError("name the run that is scored, or a method that learns nothing")
        if self.folds is not None:
            self._can_be_fitted_anew()
        elif self.run is None and self.method is not None and self.method.learns:
            raise ValueError(f"{self.method.name!r} learns from rows: adapt it, and score that run")
        elif self.source or self.teachers:
            raise ValueError("source and teachers go with folds, and only with them")
        return self

    def _can_be_fitted_anew(self) -> None:
        if self.run is not None:
            raise ValueError("a finished run is not cross-validated: name its method, and no run")
        if self.method is not None and self.method.groups:
            raise ValueError(
                f"{self.method.name!r} trains by gradient, and folds are for what is fitted at once"
            )


def check_optim(method: Method, optim: OptimConfig | None) -> None:
    """Refuse settings of training where nothing is trained by gradient, and a method without them that is.

    Raises:
        ValueError: naming the method.
    """
    if bool(method.groups) != (optim is not None):
        raise ValueError(f"{method.name!r} needs 'optim' if, and only if, it trains something")
    if optim is not None:
        check_rates(optim, method.groups)


AnyRun = TeacherRun | SourceRun | AdaptRun | EvaluateRun


def splits(config: AnyRun) -> list[Split]:
    """The splits a run reads."""
    if isinstance(config, EvaluateRun):
        asks = config.method is not None and config.method.asks_rows and config.folds is None
        return ["train", config.split] if asks else [config.split]
    return ["train", "dev"] if config.optim is not None and config.optim.eval_every else ["train"]


def touches_weights(config: AnyRun) -> bool:
    """Whether a run changes or adds weights, so that the base model is one of its own."""
    return config.made_by is not None and config.made_by.touches_weights
