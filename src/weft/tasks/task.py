"""What a task is: rows, their text form, how answers are read, and how they are scored."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from weft.config.base import Split
from weft.errors import DataError, did_you_mean
from weft.tasks import template
from weft.tasks.scoring import Metric

Row = dict[str, object]


@dataclass(frozen=True)
class Example:
    """What a row becomes.

    Attributes:
        source: text the model reads.
        target: text it should write.
        references: all accepted answers, the first being `target` itself where there is one.
        group: what it shares with the rows that belong to it, such as their question's number; empty: none.
    """

    source: str
    target: str
    references: tuple[str, ...] = ()
    group: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        """The answers a scorer accepts."""
        return self.references or (self.target,)


@dataclass(frozen=True)
class Task:
    """A data set with its text format, answer parser and metrics.

    Attributes:
        name: stands in tables and run folders.
        rows: the rows of a split; nothing is read until it is called.
        examples: the text pairs of a row; some rows give several.
        source: the text of a row alone, for rows without an answer.
        template: of texts, with `{fields}`.
        question: the template's fields of a row, which its answer adds nothing to.
        metrics: name -> function, in percent; the first one decides.
        parse: written text -> answer.
        choices: the closed set of answers, if there is one, in the order of the labels.
        labels: of each choice, the value of the file that it stands for; of several, the first.
        max_target_tokens: longest answer that is written.
        splits: the splits that have data.
        data_hash: SHA-256 of a split's files, of which the run's name is made.
        reason: why a row that gives no example is left out.
    """

    name: str
    rows: Callable[[Split], list[Row]]
    examples: Callable[[Row], list[Example]]
    source: Callable[[Row], str]
    metrics: dict[str, Metric]
    template: str = "{text}"
    question: Callable[[Row], Row] = field(default=lambda row: row)
    parse: Callable[[str], str] = str.strip
    choices: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    max_target_tokens: int = 8
    splits: tuple[Split, ...] = ("train", "dev", "test")
    data_hash: Callable[[Split], str] = field(default=lambda split: "")
    reason: Callable[[Row], str] = field(default=lambda row: "no example")
    _made: dict[Split, list[tuple[int, Example]]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def main_metric(self) -> str:
        """The metric that decides between checkpoints and stands in tables."""
        return next(iter(self.metrics))

    def fields(self, row: Row) -> tuple[str, ...]:
        """What a row says at each field of the text's template."""
        return template.values(self.template, self.question(row))

    def load(self, split: Split) -> list[Example]:
        """All examples of a split; a dev or test row with several targets for one question counts once.

        Raises:
            DataError: if the split does not exist or a row does not fit the template.
        """
        if split not in self.splits:
            raise DataError(
                f"task {self.name!r} has no {split} rows",
                where=f"task {self.name}",
                fix=f"name a file for {split!r} under 'files'; {did_you_mean(split, self.splits)}",
                code="D13",
            )
        return [example for _, example in self.numbered(split)]

    def numbered(self, split: Split) -> list[tuple[int, Example]]:
        """The examples that `load` gives, each with the number of its row, from 1."""
        if split not in self._made:
            found = enumerate(map(self.examples, self.rows(split)), start=1)
            kept = found if split == "train" else ((n, _questions(examples)) for n, examples in found)
            self._made[split] = [(n, example) for n, examples in kept for example in examples]
        return self._made[split]

    def accounting(self, split: Split) -> dict[str, object]:
        """What became of a split's rows: `read` = `used` + the sum of `dropped` (reason -> rows)."""
        rows = self.rows(split)
        dropped = Counter(self.reason(row) for row in rows if not self.examples(row))
        return {"read": len(rows), "used": len(rows) - dropped.total(), "dropped": dict(dropped)}


def _questions(examples: list[Example]) -> list[Example]:
    """The first example of each question: of a text with its accepted answers."""
    first: dict[tuple[str, tuple[str, ...]], Example] = {}
    for one in examples:
        first.setdefault((one.source, one.accepted), one)
    return list(first.values())
