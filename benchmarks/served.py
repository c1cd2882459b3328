"""Banks to be served: drawn factors on a shared prompt, as many tasks as are wanted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from weft import bank, storage
from weft.bank import BaseFacts, Definition, Snapshot
from weft.bank.draft import Row, Shared
from weft.bank.forms import Dtype, Form, encoded
from weft.bank.manifest import Group
from weft.bank.writer import change
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.config.training import PromptConfig
from weft.models import Backbone
from weft.models.base_folder import resolve
from weft.models.fresh_prompt import fresh_prompt

WORDS = {"0": "no", "1": "yes"}
NEAR = 1e-6  # how far apart tasks are that shall answer alike
BLOCK = 4096  # rows that are drawn at once


def name_of(number: int) -> str:
    """Of a task."""
    return f"task-{number:07d}"


class Served:
    """A bank that grows.

    Args:
        folder: where it is made.
        backbone: the model that serves it.
        length: of prompts.
        alike: all tasks have numbers so near to each other that whatever is asked for is the same work.
        closed: whether answers are one of two words; else so many tokens are written.
        tokens: of an answer.
        dtype: of the bank's numbers.
    """

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        length: int,
        *,
        alike: bool = False,
        closed: bool = True,
        tokens: int = 8,
        dtype: Dtype = "float32",
    ) -> None:
        self.folder, self.alike, self.size = folder, alike, 0
        self.form = Form("factors", (length, 1, backbone.width), dtype)
        start = fresh_prompt(backbone, PromptConfig(length=length), seed=0).numpy()
        self.group = storage.sha256_bytes(encoded(start, "float32"))
        self.shared = Shared(
            {self.group: start}, {self.group: Group(kind="factors", arrays={"P*": self.group})}
        )
        labels = WORDS if closed else None
        spec = TaskSpec(
            name="task", source="{text}", target="{label}", labels=labels, max_target_tokens=tokens
        )
        self.definition = Definition(task=spec, source_tokens=256).text
        bank.create(folder, facts(backbone), dtype=dtype)

    def grown(self, size: int) -> Snapshot:
        """The bank with so many tasks."""
        change(self.folder, self._rows(self.size, size), shared=self.shared)
        self.size = size
        return bank.open(self.folder).snapshot()

    def _rows(self, first: int, end: int) -> Iterator[Row]:
        for start in range(first, end, BLOCK):
            count = min(BLOCK, end - start)
            numbers = np.random.default_rng(start).normal(1, 0.1, size=(count, self.form.numbers))
            for i in range(count):
                own = np.full_like(numbers[0], 1 + NEAR * (start + i)) if self.alike else numbers[i]
                said = (self.group, self.definition, "{}", "source-drawn")
                yield Row(name_of(start + i), self.form, encoded(own, self.form.dtype), *said)


def facts(backbone: Backbone) -> BaseFacts:
    """What a bank says of its base model."""
    found = resolve(BaseConfig(model=backbone.name))
    suffix = getattr(backbone, "suffix", False)
    return BaseFacts(
        name=found.origin,
        model=backbone.name,
        base_hash=found.hash,
        embedding_hash=found.embedding_hash,
        tokenizer_hash=found.tokenizer_hash,
        position="suffix" if suffix else "prefix",
    )
