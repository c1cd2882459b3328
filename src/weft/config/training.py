"""Settings of training: prompts, caps on rows, the optimiser, distillation, sampling, factors.

Defaults follow the paper (Wang et al. 2023, arXiv:2303.02861) where it gives them.
"""

import math
from collections.abc import Collection, Iterable
from typing import Literal

from pydantic import Field, field_validator, model_validator

from weft.config.base import Config, Name, RelationError

RowCap = Literal["train_rows", "target_rows", "dev_rows", "test_rows"]


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


class TaskLimits(Config):
    """Caps of one task, each instead of that of all tasks; none: as for all."""

    train_rows: int | None = Field(None, gt=0, description="rows used for training, of a source or a target")
    dev_rows: int | None = Field(None, gt=0, description="rows used for choosing checkpoints")
    test_rows: int | None = Field(None, gt=0, description="rows used for scores")
    source_tokens: int | None = Field(None, gt=0, description="longest text, in tokens")


class LimitsConfig(Config):
    """Caps on rows and tokens. Capped parts are drawn with a fixed seed and stated in tables."""

    train_rows: int | None = Field(None, gt=0, description="rows of a source task used for training")
    target_rows: int | None = Field(
        None, gt=0, description="rows of a target task used for training; shots are drawn from them"
    )
    dev_rows: int | None = Field(None, gt=0, description="rows used for choosing checkpoints")
    test_rows: int | None = Field(None, gt=0, description="rows used for scores")
    source_tokens: int = Field(256, gt=0, description="longest text, in tokens; longer ones are cut")
    tasks: dict[Name, TaskLimits] = Field(
        default_factory=dict, description="task -> what is other for it than for all"
    )

    def tokens(self, task: str) -> int:
        """Longest text of a task, in tokens: its own limit, else that of all tasks."""
        return self._own(task).source_tokens or self.source_tokens

    def rows(self, task: str, cap: RowCap) -> int | None:
        """Most rows of a task: its own cap, else that of all tasks; none: all rows."""
        own: int | None = getattr(self._own(task), "train_rows" if cap == "target_rows" else cap)
        common: int | None = getattr(self, cap)
        return own or common

    def of(self, tasks: Iterable[str], *unread: RowCap) -> "LimitsConfig":
        """The same limits for some of the tasks; of texts, that of all where these have one.

        So a run has one name, whether its limit was that of all tasks of an experiment or its own.

        Args:
            tasks: names of the tasks.
            unread: caps on rows that are not read there.
        """
        names = list(tasks)
        tokens = {self.tokens(name) for name in names}
        common = tokens.pop() if len(tokens) == 1 else self.source_tokens
        own: dict[str, TaskLimits] = {}
        for name in names:
            longest = self.tokens(name) if self.tokens(name) != common else None
            kept = {key: value for key, value in vars(self._own(name)).items() if key not in unread}
            found = TaskLimits.model_validate({**kept, "source_tokens": longest})
            own |= {name: found} if found != TaskLimits() else {}
        return self.model_copy(update={**dict.fromkeys(unread), "source_tokens": common, "tasks": own})

    def check(self, tasks: Collection[str]) -> None:
        """Refuse limits of what is no task.

        Raises:
            RelationError: naming the first.
        """
        strange = [name for name in self.tasks if name not in tasks]
        if strange:
            raise RelationError(f"{strange[0]!r} in limits.tasks is none of {', '.join(tasks)}", "C12")

    def _own(self, task: str) -> TaskLimits:
        return self.tasks.get(task, TaskLimits())


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

    def lasting(self, steps: int) -> "OptimConfig":
        """The same for so many steps; dev rows are scored at the last one at the latest."""
        every = None if self.eval_every is None else min(self.eval_every, steps)
        return self.model_copy(update={"steps": steps, "eval_every": every})

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
        64,
        ge=0,
        description="likeliest tokens that stand for all, the others as one mass, wherever they have 99 % of "
        "the probability at that temperature; else, or if 0, all tokens are compared",
    )
    targets_mb: int = Field(2048, ge=0, description="room in the folder of runs for kept targets")

    @property
    def teaches(self) -> bool:
        """Whether anything is learnt from teachers."""
        return self.weight > 0 and (self.logits or self.hidden)


class SamplingConfig(Config):
    """How batches of source training are drawn from the tasks."""

    stochastic: bool = Field(True, description="draw K ~ U{2..kappa} tasks for a batch, then its rows")
    kappa: int | None = Field(None, ge=2, description="largest number of tasks in a batch; none: all")
    mixing: Literal["proportional", "t5", "equal", "temperature"] = Field("t5")
    temperature: float = Field(2.0, gt=0, description="sizes to the power 1/temperature, if mixing says so")
    replacement: bool = Field(
        True,
        description="one task may be drawn twice for a batch, as in the released code; false: tasks of a "
        "batch differ, and small ones come more often than mixing says",
    )


class FactorConfig(Config):
    """Task factors u [P, R] and v [R, D]."""

    rank: int = Field(1, gt=0)
    init: Literal["ones", "uniform", "normal-0.02"] = Field(
        "ones", description="ones: P_k starts at P*; uniform: U(-0.5, 0.5); normal-0.02: as PEFT does"
    )
    train: bool = Field(
        True, description="false: all factors stay at one, so that P* is one prompt for all tasks (ablation)"
    )

    @model_validator(mode="after")
    def _fixed_factors_are_plain(self) -> "FactorConfig":
        if not self.train and (self.rank, self.init) != (1, "ones"):
            raise ValueError("factors that are not trained are ones of rank 1: leave rank and init out")
        return self

    @property
    def groups(self) -> set[str]:
        """What the source stage trains."""
        return {"shared", "factors"} if self.train else {"shared"}


def check_rates(optim: OptimConfig, groups: set[str]) -> None:
    """Refuse learning rates that do not fit the groups that are trained.

    Raises:
        ValueError: naming both.
    """
    if set(optim.lr) != groups:
        trained, given = ", ".join(sorted(groups)) or "nothing", ", ".join(sorted(optim.lr))
        raise ValueError(f"optim.lr must name what is trained ({trained}), and names {given}")
