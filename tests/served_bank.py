"""Banks of drawn prompts for the tiny models: closed and open tasks, factors and plain prompts."""

from pathlib import Path

import numpy as np
from tiny_bank import BASE

from weft import bank, storage
from weft.bank import Definition, Snapshot
from weft.bank.draft import Row, Shared
from weft.bank.forms import Form, encoded
from weft.bank.manifest import Group
from weft.bank.writer import change
from weft.config.task import TaskSpec
from weft.models import Backbone

CLOSED = {"1": "yes", "2": "no", "3": "maybe not", "4": "maybe true"}


def definition(*, closed: bool = False, source_tokens: int = 40, most: int = 6) -> str:
    """Of tasks that read the field `text`."""
    labels = CLOSED if closed else None
    spec = TaskSpec(name="task", source="{text}", target="{y}", labels=labels, max_target_tokens=most)
    return Definition(task=spec, source_tokens=source_tokens).text


def drawn(shape: tuple[int, ...], seed: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Seeded numbers."""
    return np.random.default_rng(seed).normal(mean, scale, shape).astype(np.float32)


def prompt_row(name: str, numbers: np.ndarray, **said: object) -> Row:
    """A task with a plain prompt `[P, D]`."""
    form = Form("prompt", numbers.shape, "float32")
    return Row(name, form, encoded(numbers, "float32"), "", definition(**said), "{}", "teachers-x")


def factors_row(name: str, group: str, u: np.ndarray, v: np.ndarray, **said: object) -> Row:
    """A task with factors u `[P, R]` and v `[R, D]` of a group's shared prompt."""
    form = Form("factors", (len(u), len(v), v.shape[1]), "float32")
    data = encoded(np.concatenate([u.ravel(), v.ravel()]), "float32")
    return Row(name, form, data, group, definition(**said), "{}", "source-x")


def shared_of(numbers: np.ndarray) -> tuple[str, Shared]:
    """A shared prompt as a group, and its name."""
    name = storage.sha256_bytes(encoded(numbers, "float32"))
    return name, Shared({name: numbers}, {name: Group(kind="factors", arrays={"P*": name})})


def mixed_bank(path: Path, backbone: Backbone, lengths: tuple[int, ...] = (2, 3, 5)) -> Snapshot:
    """Of each length an open task with factors and a closed one with a plain prompt."""
    bank.create(path, BASE)
    for number, length in enumerate(lengths):
        group, shared = shared_of(drawn((length, backbone.width), length, scale=backbone.scale))
        u, v = drawn((length, 1), number, 1, 0.3), drawn((1, backbone.width), 50 + number, 1, 0.3)
        plain = drawn((length, backbone.width), 10 + number, scale=backbone.scale)
        rows = [
            factors_row(f"open{length}", group, u, v, most=5 + number),
            prompt_row(f"closed{length}", plain, closed=True),
        ]
        change(path, rows, shared=shared)
    return bank.open(path).snapshot()
