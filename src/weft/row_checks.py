"""Checks of the rows that a plan reads: copies, answers, texts as tokens, and leaks into scored rows.

Only rows that are used count: those left after caps on rows; where a few of each answer are drawn, those
that any seed draws. Nothing here needs a model's weights.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from weft.batch import Tokens
from weft.config import Split, TaskSpec
from weft.errors import ConfigError, DataError, WeftError
from weft.findings import Findings
from weft.leaks import Fields, fields_of, leaks, normal, repeats, shared
from weft.tasks import Example, Row, Task
from weft.tasks.holdout import origin

WARN, STOP = 0.01, 0.20  # shares of rows
SHOWN = 3  # places that a message names
IDS = ("id", "idx")


@dataclass
class Used:
    """The rows of one split of a task that a plan reads.

    Attributes:
        spec: the task's declaration.
        task: the task.
        split: the split.
        rows: all rows of the split.
        examples: all examples of these rows, in their order.
        row_of: the row, from 1, of every example.
        places: which examples are used.
    """

    spec: TaskSpec
    task: Task
    split: Split
    rows: list[Row]
    examples: list[Example]
    row_of: list[int]
    places: set[int] = field(default_factory=set)

    @cached_property
    def chosen(self) -> list[int]:
        """Places of the used examples, in order; asked for once all are known."""
        return sorted(self.places)

    @cached_property
    def texts(self) -> list[str]:
        """What the model reads of them."""
        return [self.examples[i].source for i in self.chosen]

    @cached_property
    def inputs(self) -> list[Fields]:
        """The values at the template's fields."""
        return [fields_of(self.spec.source, text) for text in self.texts]

    @property
    def name(self) -> str:
        """Task, split and file, for messages."""
        rule = self.spec.holdout
        file = self.spec.files.get(origin(rule, self.split))
        part = "" if rule == "none" else "its part of "  # rows are counted within the part
        return f"task {self.spec.name}, {self.split}" + (f" ({part}{file})" if file else "")

    def row(self, place: int) -> int:
        """The row, from 1, of the used example at a place of `chosen`."""
        return self.row_of[self.chosen[place]]

    def at(self, places: Sequence[int]) -> str:
        """Where some of the used examples stand: the first few rows."""
        rows = [self.row(place) for place in places[:SHOWN]]
        more = ", …" if len(places) > SHOWN else ""
        return f"{self.name}, row{'s' if len(places) > 1 else ''} {', '.join(map(str, rows))}{more}"


def share(count: int, total: int) -> str:
    """`3 of 200 (1.5 %)`."""
    return f"{count:,} of {total:,} ({100 * count / total:.1f} %)"


# what needs no tokens


def check_rows(used: Used, found: Findings) -> None:
    """Copies, ids, empty texts and answers of one split."""
    _ids(used, found)
    _copies(used, found)
    _blanks(used, found)
    _answers(used, found)
    _numbers(used, found)


def _ids(used: Used, found: Findings) -> None:
    """D09: a column `id` or `idx` that the template does not show names a row once."""
    for column in IDS:
        places = sorted({used.row_of[i] - 1 for i in used.chosen})
        values = [used.rows[place].get(column) for place in places]
        plain = all(isinstance(value, str | int) for value in values)
        twice = list(repeats(values)) if plain else []
        if twice and f"{{{column}}}" not in used.spec.source + used.spec.target:
            rows = ", ".join(str(places[n] + 1) for n in twice[:SHOWN])
            found.unless(
                "duplicates",
                DataError(
                    f"{len(twice)} rows have an {column!r} that stands before: {values[twice[0]]!r}",
                    where=f"{used.name}, rows {rows}",
                    fix="remove the copies or rename the column",
                    code="D09",
                ),
            )


def _copies(used: Used, found: Findings) -> None:
    """D10: training rows that are copies, input and answer, of others."""
    if used.split != "train":
        return
    copies = repeats((used.examples[i].source, used.examples[i].target) for i in used.chosen)
    fault = DataError(
        f"{share(len(copies), len(used.chosen))} training rows are copies of others",
        where=used.at(copies),
        fix="remove the copies",
        code="D10",
    )
    _by_share(len(copies), len(used.chosen), 0.0, "duplicates", fault, found)


def _by_share(count: int, total: int, warn: float, allowance: Any, fault: WeftError, found: Findings) -> None:
    """An error over 20 %, unless it is allowed; a warning over `warn`."""
    if count > STOP * total:
        found.unless(allowance, fault)
    elif count > warn * total:
        found.warn(fault)


def _blanks(used: Used, found: Findings) -> None:
    """D02: texts whose fields are all white space, and single fields that are."""
    filled = [[bool(text.strip()) for text in fields] for fields in used.inputs]
    empty = [i for i, one in enumerate(filled) if not any(one)]
    partly = [i for i, one in enumerate(filled) if any(one) and not all(one)]
    fix = "complete the rows or remove them"
    if empty:
        cause = f"{len(empty)} texts are nothing but white space"
        found.error(DataError(cause, where=used.at(empty), fix=fix, code="D02"))
    if partly:
        cause = f"{len(partly)} rows have an empty field beside others"
        found.warn(DataError(cause, where=used.at(partly), fix=fix, code="D02"))


def _answers(used: Used, found: Findings) -> None:
    """D12: closed answers that never occur, or only one that does."""
    if not used.task.choices:
        return
    seen = Counter(used.examples[i].target for i in used.chosen)
    absent = [word for word in used.task.choices if word not in seen]
    where = used.name
    whole = {example.target for example in used.examples}
    if len(seen) == 1 and len(whole) == 1 and absent:
        undefined = [name for name in used.task.metrics if name != "accuracy"]
        found.error(
            DataError(
                f"all {len(used.chosen)} rows have the answer {next(iter(seen))!r}",
                where=where,
                fix="give rows of every answer"
                + (f"; {', '.join(undefined)} would mean nothing here" if undefined else ""),
                code="D12",
            )
        )
    elif absent:
        found.warn(
            DataError(
                f"{len(absent)} of {len(used.task.choices)} answers have no row: {_some(absent)}",
                where=where,
                fix="give rows of every answer, or remove the label"
                + ("; a higher cap in limits has some" if len(whole) > len(seen) else ""),
                code="D12",
            )
        )


def _numbers(used: Used, found: Findings) -> None:
    """C18: correlations need answers that are numbers."""
    wanted = [name for name in used.task.metrics if name in ("pearson", "spearman")]
    wrong = [i for i, place in enumerate(used.chosen) if not _is_number(used.examples[place].target)]
    if wanted and wrong:
        answer = used.examples[used.chosen[wrong[0]]].target
        found.error(
            ConfigError(
                f"{wanted[0]} compares numbers, and the answer {answer!r} is none",
                where=f"{used.at(wrong)} (metrics)",
                fix="name a metric that the answers suit, such as accuracy",
                code="C18",
            )
        )


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def _some(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words[:5])) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


# what needs the tokenizer


class Codec(Protocol):
    """A base model's tokens, without its weights."""

    @property
    def special(self) -> tuple[str, ...]:
        """Tokens that are no text."""

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, whole."""

    def answer(self, text: str) -> Tokens:
        """Token ids of an answer, and the end token."""

    def kept(self, text: str, limit: int) -> str:
        """What the model still reads of a text that is cut."""


def check_tokens(used: Used, codec: Codec, limit: int, found: Findings) -> int:
    """Texts that are cut, empty or hold special tokens, and answers that are; how many texts are cut."""
    lengths = [len(ids) for ids in codec.texts(used.texts)]
    empty = [i for i, length in enumerate(lengths) if not length]
    if empty:
        found.error(
            DataError(
                f"{len(empty)} texts have no token", where=used.at(empty), fix="remove the rows", code="D03"
            )
        )
    cut = [i for i, length in enumerate(lengths) if length > limit]
    _lost(used, cut, codec, limit, found)
    _cuts(used, cut, max(lengths, default=0), limit, found)
    _special(used, codec.special, found)
    if not used.task.choices:
        _open_answers(used, codec, found)
    return len(cut)


def _cuts(used: Used, cut: list[int], longest: int, limit: int, found: Findings) -> None:
    """D14: texts longer than the model is given."""
    fault = DataError(
        f"{share(len(cut), len(used.texts))} texts are cut to {limit} tokens; the longest has {longest}",
        where=used.at(cut),
        fix="raise limits.source_tokens",
        code="D14",
    )
    _by_share(len(cut), len(used.texts), WARN, "cuts", fault, found)


def _lost(used: Used, cut: list[int], codec: Codec, limit: int, found: Findings) -> None:
    """D15: open answers that stand in the text, but no longer in what is left of it."""
    if used.task.choices:
        return
    lost = []
    for i in cut:
        answers = [normal(one) for one in used.examples[used.chosen[i]].accepted]
        whole, rest = normal(used.texts[i]), normal(codec.kept(used.texts[i], limit))
        if any(one in whole for one in answers) and not any(one in rest for one in answers):
            lost.append(i)
    fault = DataError(
        f"{share(len(lost), len(used.texts))} answers stand in the part of the text that is cut off",
        where=used.at(lost),
        fix="raise limits.source_tokens",
        code="D15",
    )
    _by_share(len(lost), len(used.texts), 0.0, "cuts", fault, found)


def _special(used: Used, special: tuple[str, ...], found: Findings) -> None:
    """D19: special tokens of the model that stand in a text as words."""
    if not special:
        return
    sign = re.compile("|".join(map(re.escape, special)))
    answers = [used.examples[i].target if not used.task.choices else "" for i in used.chosen]
    both = [f"{text} {answer}" for text, answer in zip(used.texts, answers, strict=True)]
    bad = [i for i, text in enumerate(both) if sign.search(text)]
    if bad:
        token = sign.search(both[bad[0]])
        found.unless(
            "special_tokens",
            DataError(
                f"{len(bad)} texts hold a special token of the model: {token[0] if token else ''!r}",
                where=used.at(bad),
                fix="remove it from the texts",
                code="D19",
            ),
        )


def _open_answers(used: Used, codec: Codec, found: Findings) -> None:
    """D16, D17: answers of an open task that are too long to be written, or have no token."""
    lengths = {text: len(codec.answer(text)) - 1 for text in {used.examples[i].target for i in used.chosen}}
    sizes = [lengths[used.examples[i].target] for i in used.chosen]
    empty = [i for i, size in enumerate(sizes) if not size]
    if empty:
        found.error(
            DataError(
                f"{len(empty)} answers have no token", where=used.at(empty), fix="remove the rows", code="D17"
            )
        )
    most = used.task.max_target_tokens
    long = [i for i, size in enumerate(sizes) if size > most]
    fault = DataError(
        f"{share(len(long), len(sizes))} answers have more than max_target_tokens ({most}); "
        f"the longest has {max(sizes)}",
        where=used.at(long),
        fix=f"raise max_target_tokens of task {used.spec.name}",
        code="D16",
    )
    _by_share(len(long), len(sizes), 0.0, "cuts", fault, found)


def check_words(task: Task, codec: Codec, found: Findings) -> None:
    """Label words as tokens: empty (D17), too long (D16), special (D19), or as another word (D18)."""
    tokens = {word: codec.answer(word) for word in task.choices}
    where = f"task {task.name} (labels)"
    for word, ids in tokens.items():
        if len(ids) == 1:
            found.error(
                ConfigError(
                    f"the label word {word!r} has no token", where=where, fix="choose another", code="D17"
                )
            )
        if len(ids) - 1 > task.max_target_tokens:
            found.error(
                ConfigError(
                    f"the label word {word!r} has {len(ids) - 1} tokens, and max_target_tokens is "
                    f"{task.max_target_tokens}",
                    where=where,
                    fix=f"set max_target_tokens to {len(ids) - 1} or more",
                    code="D16",
                )
            )
        if any(sign in word for sign in codec.special):
            found.error(
                ConfigError(
                    f"the label word {word!r} holds a special token",
                    where=where,
                    fix="choose another",
                    code="D19",
                )
            )
    _twins(tokens, where, found)


def _twins(tokens: dict[str, Tokens], where: str, found: Findings) -> None:
    """D18: label words that are the same tokens, or begin with the same one."""
    same, first = defaultdict(list), defaultdict(list)
    for word, ids in tokens.items():
        same[ids].append(word)
        first[ids[0]].append(word)
    for words in same.values():
        if len(words) > 1:
            found.error(
                ConfigError(
                    f"the label words {_some(words)} are the same tokens for this model",
                    where=where,
                    fix="choose words that the tokenizer tells apart",
                    code="D18",
                )
            )
    alike = [words for words in first.values() if len({tokens[word] for word in words}) > 1]
    if alike:
        found.warn(
            ConfigError(
                f"label words begin with the same token: {_some(alike[0])}"
                + (f"; {len(alike)} such groups" if len(alike) > 1 else ""),
                where=where,
                fix="nothing needs to change: scores compare whole words; it only takes longer",
                code="D18",
            )
        )


# leaks


def check_leaks(
    used: Used, seen: Iterable[Used], found: Findings, *, scored: bool = True
) -> tuple[int, dict[str, int]]:
    """D11: rows whose whole input is in training rows: how many in all, and for each task.

    Scored rows that leak are an error unless allowed; dev rows, which only choose a state, a warning.
    """
    counts: dict[str, int] = {}
    leaked: set[int] = set()
    for train in seen:
        pairs = leaks(train.inputs, used.inputs)
        if not pairs:
            continue
        counts[train.spec.name] = len(pairs)
        leaked |= {pair.scored for pair in pairs}
        exact = sum(pair.exact for pair in pairs)
        shown = "; ".join(
            f"row {used.row(one.scored)} = training row {train.row(one.seen)}" for one in pairs[:SHOWN]
        )
        fault = DataError(
            f"{share(len(pairs), len(used.inputs))} {used.split} rows stand in the training rows of "
            f"{train.spec.name}, {exact} of them letter for letter",
            where=f"{used.name} and {train.name}: {shown}{'; …' if len(pairs) > SHOWN else ''}",
            fix="remove them from one of the files",
            code="D11",
        )
        if scored:
            found.unless("leaks", fault)
        else:
            found.warn(fault)
    return len(leaked), counts


def shared_sentences(scored: Used, seen: Iterable[Used]) -> int:
    """How many scored rows have a sentence, but not their whole input, in common with training rows."""
    return shared([fields for train in seen for fields in train.inputs], scored.inputs)
