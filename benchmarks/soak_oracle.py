"""A bank of tasks whose answers give away which task answered, on the tiny model of the tests.

All tasks have the same answer words; their prompts are drawn. So what is right for a text under one task is
wrong under the others. The engine is asked alone, before, what each version of each task says; how often that
tells two tasks apart is measured and told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weft import bank, storage
from weft.bank import Definition, from_runs
from weft.bank.draft import Row, Shared
from weft.bank.forms import Form, encoded
from weft.bank.manifest import Group
from weft.bank.writer import change
from weft.config.task import TaskSpec

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "format-1"
BASE = FIXTURE / "base"
RUN = FIXTURE / "finished" / "source-alpha+beta-s0-4d4fda07"
WORDS = [
    *("the", "a", "good", "bad", "fine", "film", "book", "meal", "song", "story", "city", "river"),
    *("dog", "cat", "man", "is", "was", "very", "not", "likes", "hates"),
]
ANSWERS = {"1": "yes", "2": "no", "3": "maybe", "4": "true", "5": "false"}
LENGTH, WIDTH = 4, 8
NEW_TOKENS = 5
APART = 0.01  # of a probability, by which two tasks must differ for a text to tell them apart
SAME = 1e-3  # of a probability, by which an answer may differ in other company


@dataclass(frozen=True)
class Golden:
    """What one version of a task says of one text, asked alone."""

    task: str
    odds: tuple[float, ...]
    written: str


@dataclass
class Oracle:
    """The tasks, their versions, and what each says.

    Attributes:
        tasks: names.
        texts: that are asked.
        golden: (hash of a version's numbers, text) -> what it says.
        rows: task -> its versions as rows of a bank.
        shared: the one shared prompt.
        share: of pairs of tasks and texts that tell tasks apart.
    """

    tasks: list[str]
    texts: list[str]
    rows: dict[str, list[Row]]
    shared: Shared
    golden: dict[tuple[str, str], Golden]
    share: float = 0.0

    def fault(self, task: str, text: str, answer: Mapping[str, Any]) -> str | None:
        """What is wrong with an answer to a classification; none if it is this task's to this text."""
        known = self.golden.get((answer["sha256"], text))
        if known is None or known.task != task or answer["model"] != task:
            return "numbers of another task"
        odds = tuple(answer["probabilities"][word] for word in ANSWERS.values())
        return None if far(odds, known.odds) <= SAME else "another task's answer"

    def wrote(self, task: str, text: str, sha256: str, written: str) -> str | None:
        """The same of a written answer, whose hash is known by its first signs."""
        versions = [row for row in self.rows[task] if _hash(row).startswith(sha256)]
        if not versions:
            return "numbers of another task"
        same = self.golden[_hash(versions[0]), text].written == written
        return None if same else "another task's text"


def far(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The largest difference of two lists of probabilities."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _hash(row: Row) -> str:
    return storage.sha256_bytes(row.data)


def make(folder: Path, *, tasks: int, texts: int, versions: int, changing: int) -> Oracle:
    """A bank at `folder` with the first version of every task, and its oracle.

    Args:
        folder: of the bank, new.
        tasks: how many.
        texts: how many are asked.
        versions: of each task that changes.
        changing: tasks that change.
    """
    draw = np.random.default_rng(0)
    said = [" ".join(draw.choice(WORDS, draw.integers(3, 9))) for _ in range(texts)]
    found = from_runs.of_runs([str(RUN)], RUN.parent, "float32")
    numbers = draw.normal(0, 1, (LENGTH, WIDTH)).astype(np.float32)
    group = storage.sha256_bytes(encoded(numbers, "float32"))
    shared = Shared({group: numbers}, {group: Group(kind="factors", arrays={"P*": group})})
    names = [f"task-{i:04}" for i in range(tasks)]
    rows = {
        name: [_row(name, group, i * 100 + k) for k in range(versions if i < changing else 1)]
        for i, name in enumerate(names)
    }
    bank.create(folder, found.base)
    change(folder, [some[0] for some in rows.values()], shared=shared)
    oracle = Oracle(names, sorted(set(said)), rows, shared, {})
    _ask_alone(folder.with_name("alone"), oracle, found.base)
    return oracle


def _row(name: str, group: str, seed: int) -> Row:
    draw = np.random.default_rng(seed)
    spec = TaskSpec(name="task", source="{text}", target="{y}", labels=ANSWERS, max_target_tokens=NEW_TOKENS)
    said = Definition(task=spec, source_tokens=32).text
    form = Form("factors", (LENGTH, 1, WIDTH), "float32")
    data = encoded(draw.normal(0, 1.5, LENGTH + WIDTH).astype(np.float32), "float32")
    return Row(name, form, data, group, said, "{}", "made-up")


def _ask_alone(folder: Path, oracle: Oracle, base: bank.BaseFacts) -> None:
    """Fill the oracle: every version of every task in a bank of its own, each question by itself."""
    from weft.serving.engine import Engine
    from weft.serving.requests import Request

    bank.create(folder, base)
    named = {f"{name}.{k}": (name, row) for name, rows in oracle.rows.items() for k, row in enumerate(rows)}
    rows = [Row(**{**vars(row), "name": key}) for key, (_, row) in named.items()]
    change(folder, rows, shared=oracle.shared)
    engine = Engine.open(folder, base=BASE)
    for text in oracle.texts:
        for key, (name, row) in named.items():
            asked = Request(key, text=text, write=True, max_tokens=NEW_TOKENS, id="x")
            found = engine.generate([asked])[0]
            assert found.error is None, found.error
            odds = tuple((found.probabilities or {})[word] for word in ANSWERS.values())
            oracle.golden[_hash(row), text] = Golden(name, odds, found.written or "")
    oracle.share = _telling(oracle)


def _telling(oracle: Oracle) -> float:
    """The share of (task, other task, text) whose answers differ beyond doubt, in a sample."""
    draw = np.random.default_rng(1)
    keys = list(oracle.golden)
    apart, seen = 0, 0
    for _ in range(20_000):
        one, other = (keys[i] for i in draw.integers(0, len(keys), 2))
        first, second = oracle.golden[one], oracle.golden[other[0], one[1]]
        if first.task != second.task:
            seen += 1
            apart += far(first.odds, second.odds) > APART
    return apart / seen
