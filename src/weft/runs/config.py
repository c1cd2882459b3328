"""The four kinds of run: teachers, source, adapt, evaluate, each complete in itself."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from weft.config.base import Config, RelationError, Split
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.config.training import (
    SOURCE_GROUPS,
    DistillConfig,
    FactorConfig,
    LimitsConfig,
    OptimConfig,
    PromptConfig,
    SamplingConfig,
    check_rates,
)
from weft.methods.configs import MethodConfig


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


class TeacherRun(RunConfig):
    """One plain soft prompt for one source task."""

    stage: Literal["teachers"] = "teachers"
    optim: OptimConfig

    @model_validator(mode="after")
    def _rates_fit(self) -> "TeacherRun":
        check_rates(self.optim, {"prompt"})
        return self


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
        check_rates(self.optim, SOURCE_GROUPS)
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


class AdaptRun(RunConfig):
    """A method trained on one target task, or on a group of them that shares P*."""

    stage: Literal["adapt"] = "adapt"
    method: MethodConfig
    source: str | None = Field(None, description="run of the source stage (mpt)")
    teachers: dict[str, str] = Field(default_factory=dict, description="task -> teacher run (SPoT)")
    shots: int | None = Field(None, gt=0, description="training rows per answer (open answers: in all)")
    optim: OptimConfig

    @model_validator(mode="after")
    def _rates_fit(self) -> "AdaptRun":
        check_rates(self.optim, self.method.groups)
        return self


class EvaluateRun(RunConfig):
    """Scores of one run, or of the frozen model or the majority answer, on one split."""

    stage: Literal["evaluate"] = "evaluate"
    run: str | None = Field(None, description="the run that is scored; none: see `method`")
    method: MethodConfig | None = Field(None, description="no_prompt or majority, where there is no run")
    split: Split = "test"
    batch_size: int = Field(64, gt=0)
    generate: bool = Field(True, description="also write answers freely where the answer set is closed")


AnyRun = TeacherRun | SourceRun | AdaptRun | EvaluateRun
