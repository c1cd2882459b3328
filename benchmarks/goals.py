"""The goals of issues 6, 7 and 22, and what a benchmark found for one of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import Seconds, Spread


@dataclass(frozen=True)
class Goal:
    """One line of the table.

    Attributes:
        text: what is compared.
        unit: `x` (times faster), `share` (percent), `times` (of another step's time), `s`, `ms`, `KB`, `GB`.
        goals: for processors with bf16 units, and without.
        stretch: the same, where there is one.
        most: whether less is better.
    """

    text: str
    unit: str
    goals: tuple[float, float]
    stretch: tuple[float | None, float | None] = (None, None)
    most: bool = False

    def met(self, value: float, kind: int) -> bool:
        """Whether a value reaches the goal of a kind of processor (0: with bf16 units)."""
        return value <= self.goals[kind] if self.most else value >= self.goals[kind]


GOALS = {
    "t5-step": Goal("t5-small step / PEFT default", "x", (9, 3.5), (11, 5)),
    "t5-step-no-dropout": Goal("t5-small step / PEFT, no dropout", "x", (5, 2), (6.5, 3)),
    "t5-share": Goal("t5-small step, share of matrix rate", "share", (28, 60), (40, 75)),
    "smollm2-step": Goal("smollm2 step / PEFT", "x", (8, 5), (None, 5.8)),
    "pocket-step": Goal("pocket step / smollm2's, both prefix", "x", (5, 5)),
    "whole-job": Goal("smollm2, rows to scores / PEFT", "x", (7, 4), (None, 5)),
    "predict-16": Goal("ten tasks, prompt 16 / PEFT", "x", (8, 5)),
    "predict-8": Goal("ten tasks, prompt 8 / PEFT", "x", (12, 8)),
    "distill-live": Goal("distillation / plain step, live", "times", (1.35, 1.35), most=True),
    "distill-decoder": Goal("same, cached decoder states", "times", (1.05, 1.05), most=True),
    "distill-encoder": Goal("same, cached encoder states", "times", (1.2, 1.2), most=True),
    "together": Goal("6 teachers together", "x", (1.3, 1.1)),
    "closed-t5": Goal("t5-small closed answers / PEFT", "x", (6, 3), (8, 5)),
    "closed-smollm2": Goal("smollm2 closed answers / PEFT", "x", (6, 3), (8, 5)),
    "demo": Goal("whole demo on smollm2", "s", (240, 480), most=True),
    "bank-rows": Goal("rows of a task, l 100, d 768, bf16", "KB", (1.8, 1.8), most=True),
    "bank-size": Goal("bank of a million tasks, all files", "GB", (2.0, 2.0), most=True),
    "bank-open": Goal("it is opened, new process", "s", (3, 3), most=True),
    "bank-lookup": Goal("a task of it is looked up", "ms", (1, 1), most=True),
    "bank-add": Goal("a task is added, lasting", "ms", (20, 20), most=True),
    "serve-mixed": Goal("batch of 32 tasks / of one", "times", (1.03, 1.03), most=True),
    "serve-mixed-prefix": Goal("same, prompts before texts", "times", (1.03, 1.03), most=True),
    "serve-peft": Goal("16 tasks / PEFT task by task", "x", (1, 1)),
    "serve-one-text": Goal("100 tasks on one text / 100 requests", "x", (8, 8)),
    "serve-flat": Goal("rows of a bank of a million / of one", "times", (1.05, 1.05), most=True),
    "http-latency": Goal("through HTTP, one by one: a million / one", "times", (1.05, 1.05), most=True),
    "http-throughput": Goal("through HTTP, many at once: a million / one", "times", (1.05, 1.05), most=True),
    "http-refused": Goal("overload: a refusal takes", "ms", (100, 100), most=True),
    "linear": Goal("step time, farthest off a line", "share", (10, 10), most=True),
}


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run.

    Attributes:
        rounds: that count.
        quick: tiny shapes and few rows, to see that it runs; its numbers mean nothing.
        data: folder of task data, for the built-in tasks.
        folder: where files of the run may lie.
        dtype: number format of weft's frozen weights; one for the whole run.
    """

    rounds: int
    quick: bool
    data: Path | None
    folder: Path
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        name: of the goal; other names are told, and have no goal.
        values: one for each round, in the goal's unit.
        conditions: what was run, in a sentence.
        seconds: raw times of every arm, round by round.
        checks: what shows that both sides did the same work.
        unit: of a result without a goal; `count` beside the others.
    """

    name: str
    values: list[float]
    conditions: str
    seconds: Seconds = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    unit: str = "x"

    @property
    def spread(self) -> Spread:
        """Median, smallest and largest value."""
        return Spread.of(self.values)
