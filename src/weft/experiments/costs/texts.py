"""Rows and lengths of tasks, as a base model's tokenizer sees them: from a sample of their rows."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from weft.config.base import Split
from weft.config.task import TaskSpec
from weft.config.training import RowCap
from weft.data.encoding import encode_task
from weft.data.selection import subset
from weft.models import Backbone
from weft.models.choice_tree import ChoiceTree
from weft.runs.config import AdaptRun, AnyRun
from weft.runs.workspace import Workspace
from weft.tasks import Example

SAMPLE = 64  # rows of a split whose tokens are counted


@dataclass(frozen=True)
class Texts:
    """Rows of a split that a run may read.

    Attributes:
        examples: all of them.
        lengths: tokens of sampled texts, shorter ones first.
        answers: tokens of their answers, the end token among them.
        paths: of closed answers, tokens that are read before each later parting.
        limit: tokens of an answer that is written, at most.
        closed: whether the answers are a closed set.
        letters: of a text, in the mean.
    """

    examples: list[Example]
    lengths: tuple[int, ...]
    answers: tuple[int, ...]
    paths: tuple[int, ...]
    limit: float
    closed: bool = False
    letters: float = 0.0

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.examples)

    @cached_property
    def mean(self) -> float:
        """Tokens of a text."""
        return sum(self.lengths) / max(1, len(self.lengths))

    @cached_property
    def answer(self) -> float:
        """Tokens of an answer."""
        return sum(self.answers) / max(1, len(self.answers))

    @cached_property
    def longest(self) -> float:
        """Tokens of the longest answer."""
        return float(max(self.answers, default=1))

    def padded(self, size: int) -> float:
        """Tokens that a text takes in batches of so many, of like length; in the mean."""
        count, rows = len(self.lengths), self.rows
        ends = [*range(size, rows, size), rows] if rows else []
        longest = [self.lengths[math.ceil(count * end / rows) - 1] for end in ends]
        sizes = [end - start for start, end in pairwise([0, *ends])]
        tokens: int = sum(size * one for size, one in zip(sizes, longest, strict=True))
        return tokens / max(1, rows)

    def longest_of(self, rows: float) -> float:
        """Tokens of the longest of so many texts that are drawn, in the mean."""
        return sum(share * length for length, share in longest_shares(self.lengths, rows).items())

    @cached_property
    def _of_answers(self) -> list[int]:
        return list(Counter(example.target for example in self.examples).values())

    def few(self, shots: int | None, total: int | None, *, closed: bool) -> int:
        """How many rows a run trains on that draws so many of each answer, or so many in all."""
        if shots is not None and closed:
            return sum(min(shots, count) for count in self._of_answers)
        return min(self.rows, shots or total or self.rows)


def longest_shares(lengths: Sequence[int], rows: float) -> dict[int, float]:
    """How probable each length is to be that of the longest of so many texts that are drawn.

    Args:
        lengths: of texts, shorter ones first.
        rows: how many are drawn.
    """
    count, shares = len(lengths), defaultdict[int, float](float)
    for i, length in enumerate(lengths):
        shares[length] += ((i + 1) / count) ** rows - (i / count) ** rows
    return shares


def different(shares: Collection[float], draws: float) -> float:
    """How many different things so many draws give, in the mean; `shares` are their probabilities."""
    return sum(1 - math.pow(1 - share, draws) for share in shares)


@dataclass
class Reader:
    """Looks into the rows of tasks, each split once.

    Args:
        workspace: gives the tasks.
        backbone: the base model, which need have no numbers.
    """

    workspace: Workspace
    backbone: Backbone
    _known: dict[tuple[str, Split, int | None, int], Texts] = field(default_factory=dict)

    def texts(self, config: AnyRun, spec: TaskSpec, split: Split, cap: RowCap) -> Texts:
        """Of one of a run's tasks, as its limits say."""
        task, limit = self.workspace.task(spec), config.limits.tokens(spec.name)
        most = config.limits.rows(spec.name, cap)
        key = (spec.model_dump_json(), split, most, limit)
        if key not in self._known:
            self._known[key] = self._look(spec, subset(task.load(split), most), limit)
        return self._known[key]

    def training(self, config: AnyRun, spec: TaskSpec) -> tuple[Texts, int]:
        """The rows that a run may train on, and how many of them it does."""
        if not isinstance(config, AdaptRun):
            found = self.texts(config, spec, "train", "train_rows")
            return found, found.rows
        found = self.texts(config, spec, "train", "target_rows")
        return found, found.few(config.shots, config.shots_total, closed=bool(spec.labels))

    def _look(self, spec: TaskSpec, examples: list[Example], limit: int) -> Texts:
        task, backbone, some = self.workspace.task(spec), self.backbone, subset(examples, SAMPLE)
        letters = sum(len(one.source) for one in some) / max(1, len(some))
        if backbone.only_reads:
            read = sorted(len(backbone.text_tokens(one.source, limit)[0]) for one in some)
            ones = (1,) * len(read)
            return Texts(examples, tuple(read), ones, (), 1.0, bool(task.choices), letters)
        rows = sorted(encode_task(spec.name, some, backbone, limit).rows, key=lambda row: len(row.source))
        tree = ChoiceTree.of([backbone.answer_tokens(word) for word in task.choices])
        return Texts(
            examples,
            tuple(len(row.source) for row in rows),
            tuple(len(row.target) for row in rows),
            tuple(len(prefix) for prefix in tree.prefixes[1:]),
            float(task.max_target_tokens),
            bool(task.choices),
            letters,
        )
