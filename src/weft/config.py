"""Every setting of weft, with its default and its meaning.

Configuration ends at `stages`, `methods` and `training`; everything below takes plain arguments.
Defaults follow the paper (Wang et al. 2023, arXiv:2303.02861) where it gives them.
"""

import math
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME = r"[a-z0-9][a-z0-9_.-]{0,63}"
Name = Annotated[str, Field(pattern=rf"^{NAME}$")]
Split = Literal["train", "dev", "test"]
Holdout = Literal["none", "halve_dev", "from_train"]
Format = Literal["plain", "stsb", "multirc", "record", "wsc", "qa", "tweet_qa", "web_nlg"]
Answers = Literal["words", "digits"]
Allowance = Literal["leaks", "duplicates", "cuts", "special_tokens"]


class RelationError(ValueError):
    """Settings that do not fit together, with their number in the catalogue of faults."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Config(BaseModel):
    """Base of all configuration: unknown keys are errors, values never change, NaN is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: object) -> object:
        """Pydantic would read true as 1."""
        for name, field in cls.model_fields.items() if isinstance(values, dict) else ():
            kinds = {field.annotation, *get_args(field.annotation)}
            if isinstance(values, dict) and isinstance(values.get(name), bool) and kinds & {int, float}:
                raise ValueError(f"{name} is a number, not true or false")
        return values


class BaseConfig(Config):
    """Which frozen language model, and how it is run."""

    model: str = Field("smollm2", description="a known name, a folder with a model, or a hub id")
    revision: str | None = Field(None, description="commit of a hub id; needed for results that last")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the frozen weights; auto measures which is faster on this machine"
    )
    dropout: bool = Field(
        False, description="leave the frozen model's dropout on in training, as the paper's code does"
    )
    attention: Literal["auto", "library", "eager", "sdpa", "grouped"] = Field(
        "auto",
        description="implementation of attention; auto measures which is faster on this machine; "
        "library: as transformers chooses",
    )
    products: Literal["auto", "library", "packed"] = Field(
        "auto",
        description="products with the frozen weights on a processor; packed: weights laid out once, for "
        "twice their memory more; auto measures whether that pays, for models up to 2 GB",
    )
    checkpointing: bool = Field(
        False, description="compute layers twice, to save memory in training (not with suffix prompts)"
    )
    deterministic: bool = Field(
        False, description="float32, eager attention, whole batches: no number depends on a measurement"
    )
    text_cache_mb: int = Field(
        2048,
        ge=0,
        description="room in the folder of runs for keys and values of texts, shared by all (suffix prompts)",
    )

    @model_validator(mode="after")
    def _deterministic_is_one_thing(self) -> "BaseConfig":
        others = (self.dtype, self.attention, self.products)
        fixed = (("auto", "float32"), ("auto", "eager"), ("auto", "library"))
        if self.deterministic and any(one not in known for one, known in zip(others, fixed, strict=True)):
            raise ValueError(
                "deterministic means float32, eager attention and the library's products: leave dtype, "
                "attention and products out"
            )
        return self


class PromptConfig(Config):
    """Shape, place and start of prompts."""

    length: int = Field(100, gt=0, description="prompt tokens, l in the paper")
    position: Literal["auto", "prefix", "suffix"] = Field(
        "auto", description="before the text, or after it (causal models only); auto: after where it can be"
    )
    init: Literal["vocabulary", "text", "labels", "teachers"] = Field(
        "vocabulary",
        description="sampled vocabulary embeddings; the words of init_text; the label words; "
        "the mean of the teachers (source stage only)",
    )
    init_text: str = Field("", description="text whose embeddings start the prompt, with init: text")

    @model_validator(mode="after")
    def _text_is_given(self) -> "PromptConfig":
        if (self.init == "text") != bool(self.init_text):
            raise ValueError("init_text goes with init: text, and only with it")
        return self


class LimitsConfig(Config):
    """Caps on rows and tokens. Capped parts are drawn with a fixed seed and stated in tables."""

    train_rows: int | None = Field(None, gt=0, description="rows of a source task used for training")
    dev_rows: int | None = Field(None, gt=0, description="rows used for choosing checkpoints")
    test_rows: int | None = Field(None, gt=0, description="rows used for scores")
    source_tokens: int = Field(256, gt=0, description="longest text, in tokens; longer ones are cut")


class OptimConfig(Config):
    """How the trained parameters move. Lengths are in optimiser steps."""

    lr: dict[str, float] = Field(description="learning rate of each parameter group the method trains")
    steps: int = Field(gt=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps in which the rate rises from 0")
    batch_size: int = Field(32, gt=0, description="rows that make one step")
    micro_batch: int | None = Field(
        None, gt=0, description="rows in memory at once, the step stays the same; none: as many as fit"
    )
    length_pool: int | None = Field(
        None,
        ge=0,
        description="batches that share out their rows by length, which saves padding; 0: rows as drawn; "
        "none: 32 where padding costs compute. Source training draws its batches by task, and leaves them",
    )
    weight_decay: float = Field(1e-5, ge=0, description="on prompts and weights, never on task factors")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    eval_every: int | None = Field(None, gt=0, description="steps between scores on dev rows; none: never")
    patience: int | None = Field(None, gt=0, description="scores without a better one before training ends")
    keep: Literal["best", "last"] = Field("best", description="which state to keep, where dev is scored")

    @field_validator("lr")
    @classmethod
    def _rates_are_positive(cls, lr: dict[str, float]) -> dict[str, float]:
        for group, rate in lr.items():
            if not rate > 0 or math.isinf(rate):
                raise ValueError(f"the rate of {group!r} must be a positive number, not {rate}")
        return lr

    @model_validator(mode="after")
    def _relations_hold(self) -> "OptimConfig":
        if self.eval_every is not None and self.eval_every > self.steps:
            raise RelationError(f"eval_every ({self.eval_every}) must not exceed steps ({self.steps})", "C17")
        if self.patience is not None and self.eval_every is None:
            raise RelationError("patience counts scores on dev rows, so it needs eval_every", "C17")
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise RelationError(
                f"micro_batch ({self.micro_batch}) must not exceed batch_size ({self.batch_size})", "C17"
            )
        return self


class DistillConfig(Config):
    """L_Total = L_PLM + weight * (L_Logits + L_Hidden); the paper's lambda is 0.9."""

    weight: float = Field(0.9, ge=0)
    temperature: float = Field(1.0, gt=0, description="of the softmax in L_Logits, times T squared")
    logits: bool = Field(True, description="use L_Logits")
    hidden: bool = Field(True, description="use L_Hidden")
    layers: Literal["last", "all"] | tuple[int, ...] = Field(
        "last", description="hidden layers in L_Hidden, of encoder and decoder; numbers count from 0"
    )
    prompt_positions: bool = Field(False, description="count prompt positions in L_Hidden")
    targets: Literal["auto", "live", "kept"] = Field(
        "auto",
        description="what teachers say of an example: made for every use, or made once and kept; "
        "auto: kept where that is cheaper. The numbers are the same",
    )
    top: int = Field(
        64, ge=0, description="likeliest tokens in kept targets, all others as one mass; 0: all tokens"
    )
    targets_mb: int = Field(2048, ge=0, description="room in the folder of runs for kept targets")


class SamplingConfig(Config):
    """How batches of source training are drawn from the tasks."""

    stochastic: bool = Field(True, description="draw K ~ U{2..kappa} tasks for a batch, then its rows")
    kappa: int | None = Field(None, ge=2, description="largest number of tasks in a batch; none: all")
    mixing: Literal["proportional", "t5", "equal", "temperature"] = Field("t5")
    temperature: float = Field(2.0, gt=0, description="sizes to the power 1/temperature, if mixing says so")
    replacement: bool = Field(False, description="one task may be drawn twice, as in the released code")


class FactorConfig(Config):
    """Task factors u [P, R] and v [R, D]."""

    rank: int = Field(1, gt=0)
    init: Literal["ones", "uniform", "normal-0.02"] = Field(
        "ones", description="ones: P_k starts at P*; uniform: U(-0.5, 0.5); normal-0.02: as PEFT does"
    )


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
SOURCE_GROUPS = {"shared", "factors"}


def check_rates(optim: OptimConfig, groups: set[str]) -> None:
    """Refuse learning rates that do not fit the groups that are trained.

    Raises:
        ValueError: naming both.
    """
    if set(optim.lr) != groups:
        trained, given = ", ".join(sorted(groups)) or "nothing", ", ".join(sorted(optim.lr))
        raise ValueError(f"optim.lr must name what is trained ({trained}), and names {given}")


def check_holdout(holdout: Holdout, splits: set[Split]) -> None:
    """Refuse a holdout that does not fit the splits there are.

    Raises:
        ValueError: naming them.
    """
    if holdout != "none" and splits != {"train", "dev"}:
        given = ", ".join(sorted(splits)) or "none"
        raise ValueError(
            f"holdout: {holdout} makes the test split from train and dev, and there are: {given}"
        )


class HubConfig(Config):
    """A data set of the Hugging Face hub, or anything else that `datasets.load_dataset` reads."""

    path: str = Field(description="name of the data set, a folder, or a builder such as parquet")
    name: str | None = Field(None, description="configuration of the data set")
    revision: str | None = Field(None, description="commit of the data set; needed for results that last")
    splits: dict[Split, str] = Field(description="split -> its name there")
    holdout: Holdout = Field("none", description="as the task's own holdout, for these splits")

    @model_validator(mode="after")
    def _holdout_fits(self) -> "HubConfig":
        check_holdout(self.holdout, set(self.splits))
        return self


class TaskSpec(Config):
    """A task as its YAML file declares it."""

    name: Name
    files: dict[Split, str] = Field(default_factory=dict, description="split -> CSV, TSV, JSONL or Parquet")
    in_data_root: bool = Field(False, description="files lie under --data (WEFT_DATA), not beside this file")
    holdout: Holdout = Field(
        "none",
        description="how the splits without a file are made: dev and test are the halves of the dev file; "
        "or test is the dev file, and dev 1,000 rows of the train file",
    )
    hub: HubConfig | None = Field(None, description="where the rows come from when there is no data folder")
    format: Format = Field("plain", description="what makes template fields of a row; plain: its columns")
    drop: tuple[str, ...] = Field((), description="values of the target whose rows are left out")
    source: str = Field(description="text the model reads; {field} stands for a column")
    target: str = Field(description="answer it should write; {field} stands for a column")
    labels: dict[str, str] | None = Field(
        None, description="closed answers: value of the target -> word to write; none: open answers"
    )
    answers: Answers = Field(
        "words", description="closed answers are written as their words, or as class numbers from 0"
    )
    references: str | None = Field(None, description="column that lists all accepted answers")
    metrics: tuple[str, ...] = Field(("accuracy",), description="the first one decides")
    positive: str | None = Field(None, description="label word that counts as positive in f1_binary")
    max_target_tokens: int = Field(8, gt=0)
    folder: str = Field("", description="where relative files lie; set by the loader")

    @model_validator(mode="after")
    def _words_differ(self) -> "TaskSpec":
        words = list((self.labels or {}).values())
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            raise ValueError(f"two labels are written with the same word: {', '.join(twice)}")
        if any(not word.strip() for word in words):
            raise ValueError("a label word is empty")
        if self.positive is not None and self.labels is not None and self.positive not in words:
            raise ValueError(f"positive is {self.positive!r}, which is no label word ({', '.join(words)})")
        if not self.metrics:
            raise ValueError("a task needs at least one metric")
        return self

    @model_validator(mode="after")
    def _holdout_fits(self) -> "TaskSpec":
        check_holdout(self.holdout, set(self.files))
        return self

    def written(self) -> "TaskSpec":
        """The same task with the answers that are really written: its label words, or class numbers."""
        if self.labels is None or self.answers == "words":
            return self
        digits = {word: str(number) for number, word in enumerate(self.labels.values())}
        positive = None if self.positive is None else digits[self.positive]
        labels = {value: digits[word] for value, word in self.labels.items()}
        return self.model_copy(update={"labels": labels, "positive": positive})


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


class TeacherStage(Config):
    """Settings of all teachers of an experiment."""

    optim: OptimConfig


class SourceStage(Config):
    """Settings of the source stage of an experiment."""

    factors: FactorConfig = FactorConfig()
    distill: DistillConfig = DistillConfig()
    sampling: SamplingConfig = SamplingConfig()
    init: Literal["vocabulary", "text", "labels", "teachers"] | None = Field(
        None, description="start of P*; none: as the teachers start"
    )
    optim: OptimConfig


class Entry(Config):
    """One row of the result table: a method with its settings."""

    label: str = Field(min_length=1)
    method: MethodConfig
    optim: OptimConfig | None = Field(None, description="needed by every method that trains")
    shots: int | None = Field(None, gt=0, description="instead of the experiment's shots")
    group: bool = Field(False, description="train all targets in one run; with mpt they share P*")

    @model_validator(mode="after")
    def _training_has_settings(self) -> "Entry":
        if bool(self.method.groups) != (self.optim is not None):
            raise ValueError(f"{self.method.name!r} needs 'optim' if, and only if, it trains something")
        if self.optim is not None:
            check_rates(self.optim, self.method.groups)
        return self


class Experiment(Config):
    """The whole story in one file: teachers, source, adaptation, scores, table."""

    name: Name
    title: str = ""
    base: BaseConfig = BaseConfig()
    prompt: PromptConfig = PromptConfig()
    limits: LimitsConfig = LimitsConfig()
    tasks: tuple[str, ...] = Field(
        description="task files, or folders of them, beside this file; builtin: all tasks that weft knows"
    )
    answers: Answers | None = Field(
        None, description="closed answers of all tasks as words or class numbers; none: as each task says"
    )
    sources: tuple[Name, ...] = Field(min_length=2)
    targets: tuple[Name, ...] = Field(min_length=1)
    shots: int | None = Field(None, gt=0, description="training rows per class of a target; none: all")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0, 1, 2), min_length=1)
    teachers: TeacherStage
    source: SourceStage
    rows: tuple[Entry, ...] = Field(min_length=1, description="the methods compared, in table order")
    split: Split = Field("test", description="rows that are scored; dev for choosing settings")
    eval_batch: int = Field(64, gt=0)
    generate: bool = Field(True, description="also score freely written answers of closed tasks")
    allow: tuple[Allowance, ...] = Field(
        (), description="faults of the data that do not stop the experiment; its table names them"
    )
    folder: str = Field("", description="where `tasks` lie; set by the loader")

    @model_validator(mode="after")
    def _names_differ(self) -> "Experiment":
        for what, names in (
            ("source", self.sources),
            ("target", self.targets),
            ("row", tuple(entry.label for entry in self.rows)),
            ("seed", self.seeds),
        ):
            if len(set(names)) < len(names):
                twice = sorted({str(name) for name in names if names.count(name) > 1})
                raise RelationError(f"a {what} is named twice: {', '.join(twice)}", "C10")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "Experiment":
        check_rates(self.teachers.optim, {"prompt"})
        check_rates(self.source.optim, SOURCE_GROUPS)
        if self.source.factors.rank > self.prompt.length:
            raise RelationError(
                f"source.factors.rank ({self.source.factors.rank}) exceeds prompt.length "
                f"({self.prompt.length})",
                "C06",
            )
        kappa = self.source.sampling.kappa
        if kappa is not None and kappa > len(self.sources) and not self.source.sampling.replacement:
            raise RelationError(
                f"source.sampling.kappa ({kappa}) exceeds the number of sources ({len(self.sources)})", "C09"
            )
        if self.source.init == "text" and not self.prompt.init_text:
            raise ValueError("source.init: text needs prompt.init_text")
        for entry in self.rows:
            known = {*self.sources, "nearest", "mean" if entry.method.name == "mpt" else "fresh"}
            start = getattr(entry.method, "start", "nearest")
            if start not in known:
                raise RelationError(
                    f"row {entry.label!r} starts from {start!r}, which is none of {sorted(known)}", "C12"
                )
        return self
