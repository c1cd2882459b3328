"""Checks of texts and answers as tokens: cut, empty, special, alike. Needs a tokenizer, and no weights."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from weft.checks.findings import Findings
from weft.checks.overlap import normal
from weft.checks.row_checks import WARN, by_share, some_of
from weft.checks.used_rows import Used, share
from weft.data.batch import Tokens
from weft.errors import ConfigError, DataError
from weft.tasks import Task


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
    by_share(len(cut), len(used.texts), WARN, "cuts", fault, found)


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
    by_share(len(lost), len(used.texts), 0.0, "cuts", fault, found)


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
    by_share(len(long), len(sizes), 0.0, "cuts", fault, found)


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
                    f"the label words {some_of(words)} are the same tokens for this model",
                    where=where,
                    fix="choose words that the tokenizer tells apart",
                    code="D18",
                )
            )
    alike = [words for words in first.values() if len({tokens[word] for word in words}) > 1]
    if alike:
        found.warn(
            ConfigError(
                f"label words begin with the same token: {some_of(alike[0])}"
                + (f"; {len(alike)} such groups" if len(alike) > 1 else ""),
                where=where,
                fix="nothing needs to change: scores compare whole words; it only takes longer",
                code="D18",
            )
        )
