"""What each lever does to accuracy: the same seeds and rows with it and without, on real tasks.

    .venv/bin/python -m benchmarks.paired --data FOLDER

Prompt tuning on smollm2, 16 rows of every answer, scored on test rows. A lever that changes nothing but
rounding can still move single answers, because training amplifies it; so what counts is the mean difference
over tasks and seeds, with its interval, beside the differences that noise of the same size makes.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from unittest.mock import patch

import torch
from cyclopts import App
from scipy.stats import t as student
from torch import Tensor

from weft.config.model import BaseConfig
from weft.config.training import OptimConfig, PromptConfig
from weft.data.encoding import encode_task
from weft.data.sampling import EpochBatches
from weft.data.selection import few_shot, subset
from weft.evaluation import answering
from weft.losses.objective import lm_loss
from weft.models import Backbone, load_backbone
from weft.models.base_folder import resolve
from weft.models.fresh_prompt import fresh_prompt
from weft.models.text_cache import TextCache
from weft.models.tuned import with_prompts
from weft.tasks import BUILTIN, Task, find_specs, from_spec
from weft.training.course import Course
from weft.training.loop import fit_together

LENGTH, STEPS, SIZE, RATE = 16, 30, 16, 0.05
Rounding = Callable[[TextCache, Tensor], Tensor]
app = App(name="benchmarks.paired", result_action="return_value")


@app.default
def paired(
    *,
    data: Path,
    tasks: tuple[str, ...] = ("cr", "trec", "mpqa"),
    ways: tuple[str, ...] = (),
    seeds: int = 3,
    rows: int = 500,
) -> None:
    """Train every task and seed in each way, and print each way's accuracy and its difference from plain.

    Args:
        data: folder of task data.
        tasks: built-in tasks.
        ways: beside plain; none: all.
        seeds: of rows and starts.
        rows: test rows that are scored.
    """
    found: dict[str, list[float]] = {}
    chosen = ["plain", *(ways or list(WAYS)[1:])]
    for way in chosen:
        attention, rounding, together = WAYS[way]
        backbone = _backbone(attention)
        with rounded(rounding):
            for name in tasks:
                task = from_spec(find_specs([BUILTIN / f"{name}.yaml"])[name], data)
                scores = _scores(backbone, task, range(seeds), rows, together=together)
                found.setdefault(way, []).extend(scores)
                print(f"{way:22} {name:8} {'  '.join(f'{one:.1f}' for one in scores)}", flush=True)
    for way in chosen[1:]:
        print(f"{way:22} less plain: {_difference(found[way], found['plain'])}")


def _as_read(cache: TextCache, row: Tensor) -> Tensor:
    return row


def _noisy(cache: TextCache, row: Tensor) -> Tensor:
    """As far off as float16 is, but not where float16 is."""
    draw = torch.Generator().manual_seed(row.shape[3])
    return row * (1 + (torch.rand(row.shape, generator=draw) - 0.5) * 2**-10)


def _half(cache: TextCache, row: Tensor) -> Tensor:
    """As weft keeps them."""
    return row.half()


WAYS: dict[str, tuple[str, Rounding, bool]] = {
    "plain": ("eager", _as_read, False),
    "noise": ("eager", _noisy, False),
    "16-bit texts": ("eager", _half, False),
    "grouped attention": ("grouped", _as_read, False),
    "seeds in one batch": ("eager", _as_read, True),
    "all as by default": ("grouped", _half, True),
}


@contextmanager
def rounded(rounding: Rounding) -> Iterator[None]:
    """Keep texts in another number format than weft does."""
    with patch.object(TextCache, "_rounded", rounding):
        yield


def _backbone(attention: str) -> Backbone:
    return load_backbone(resolve(BaseConfig()), dtype="float32", position="suffix", attention=attention)


def _scores(backbone: Backbone, task: Task, seeds: range, rows: int, *, together: bool) -> list[float]:
    """Accuracy in percent for every seed."""
    courses = [_course(backbone, task, seed) for seed in seeds]
    for group in [courses] if together else [[one] for one in courses]:
        for course in fit_together(group):
            course.finish()
    test = subset(task.load("test"), rows)
    sources = [backbone.text_tokens(one.source, 128)[0] for one in test]
    scored = [answering.evaluate(one.model, task, test, sources, generate=False)[0] for one in courses]
    return [one.metrics["accuracy"] or 0.0 for one in scored]


def _course(backbone: Backbone, task: Task, seed: int) -> Course:
    few = few_shot(task.load("train"), 16, seed=seed, task=task.name)
    train = encode_task(task.name, few, backbone, 128)
    start = fresh_prompt(backbone, PromptConfig(length=LENGTH), seed=seed)
    model = with_prompts(backbone, start[None], (task.name,))
    optim = OptimConfig(lr={"prompt": RATE}, steps=STEPS, batch_size=SIZE)
    backbone.prepare([row.source for row in train.rows])
    return Course(model, EpochBatches((train,), SIZE, seed), lm_loss, optim)


def _difference(one: list[float], plain: list[float]) -> str:
    """Mean of the pairs' differences with its 95 % interval (Student's t)."""
    pairs = [a - b for a, b in zip(one, plain, strict=True)]
    half = float(student.ppf(0.975, len(pairs) - 1)) * stdev(pairs) / len(pairs) ** 0.5
    same = sum(pair == 0 for pair in pairs)
    return f"{mean(pairs):+.1f} +- {half:.1f}, {same} of {len(pairs)} equal"


if __name__ == "__main__":
    sys.exit(app())
