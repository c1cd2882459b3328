"""Checks of texts and answers as tokens: cut, empty, special, alike. Needs a tokenizer, and no weights."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from weft.checks.findings import Findings
from weft.checks.overlap import normal, whole
from weft.checks.row_checks import WARN, by_share, disputed, some_of
from weft.checks.used_rows import Used, share
from weft.data.batch import Tokens
from weft.errors import ConfigError, DataError
from weft.models import TokenizerCodec
from weft.tasks import Task, template
from weft.tasks.template import shows


def check_tokens(used: Used, codec: TokenizerCodec, limit: int, found: Findings) -> int:
    """What a model receives of texts, and answers that it is to write; how many texts are cut."""
    cut = check_reading(used, codec, limit, found)
    if not used.task.choices:
        _open_answers(used, codec, found)
    return len(cut)


def check_reading(used: Used, codec: TokenizerCodec, limit: int, found: Findings) -> list[int]:
    """What a model receives of texts: unknown, cut, special or alike; the places of those that are cut."""
    ids = codec.texts(used.texts)
    cut = [i for i, one in enumerate(ids) if len(one) > codec.whole(limit)]
    empty = _unread(used, ids, codec, found)
    _lost(used, cut, codec, limit, found)
    _fields_lost(used, cut, codec, limit, found)
    _cuts(used, cut, max(map(len, ids), default=0), limit, found)
    _special(used, codec, found)
    read = {**dict(enumerate(ids)), **{i: codec.cut(used.texts[i], limit) for i in cut}}
    _alike(used, [hash(tuple(one)) for one in read.values()], {*empty}, found)
    return cut


def _unread(used: Used, ids: Sequence[Sequence[int]], codec: TokenizerCodec, found: Findings) -> list[int]:
    """D03: texts of which no token is left, whose places are given, and fields that are mostly unknown."""
    left = {
        i: [codec.left(field) for field in fields if shows(field)]
        for i, (one, fields) in enumerate(zip(ids, used.inputs, strict=True))
        if codec.doubtful(one, fields)
    }
    empty = [i for i, kinds in left.items() if set(kinds) <= {"nothing"}]
    unknown = [i for i, kinds in left.items() if not set(kinds) <= {"nothing"} and set(kinds) != {"text"}]
    if empty:
        cause = f"{len(empty)} texts have no token"
        found.error(DataError(cause, where=used.at(empty), fix="remove the rows", code="D03"))
    if unknown:
        cause = f"{share(len(unknown), len(ids))} texts have a field of which the model knows less than half"
        fix = "take a model that knows these signs and words, or write them in others"
        found.warn(DataError(cause, where=used.at(unknown), fix=fix, code="D03"))
    return empty


def _longer(used: Used) -> str:
    """How fewer texts of a task are cut."""
    own = f"limits.tasks.{used.spec.name}.source_tokens"
    return f"raise limits.source_tokens, or {own} alone (weft learn: --tokens)"


def _fields_lost(used: Used, cut: Sequence[int], codec: TokenizerCodec, limit: int, found: Findings) -> None:
    """D14: texts of which a whole field is cut away, such as the second of a pair."""
    lost = {i: names for i in cut if (names := _lost_names(used, i, codec, limit))}
    counts = Counter(name for names in lost.values() for name in names)
    said = ", ".join(f"{name!r} in {count:,}" for name, count in counts.items())
    fault = DataError(
        f"{share(len(lost), len(used.texts))} texts lose a whole field where they are cut: {said}",
        where=used.at([*lost]),
        fix=f"{_longer(used)}, or let the template begin with what decides",
        code="D14",
    )
    by_share(len(lost), len(used.texts), 0.0, "cuts", fault, found)


def _lost_names(used: Used, place: int, codec: TokenizerCodec, limit: int) -> list[str]:
    """The fields of a text that is cut of which nothing is left."""
    text, form = used.texts[place], used.spec.source
    spans = template.spans(form, used.inputs[place])
    return [
        name
        for name, (start, end) in zip(template.names(form), spans, strict=False)
        if shows(text[start:end]) and codec.drops(text, start, end, limit)
    ]


def _alike(used: Used, keys: Sequence[int], empty: set[int], found: Findings) -> None:
    """D18: rows that a model cannot tell apart, and that have unlike answers; beside those of D03 and D10."""
    known = {*disputed(used, [whole(fields) for fields in used.inputs])} | empty
    places = [place for place in disputed(used, keys) if place not in known]
    if places:
        cause = f"{share(len(places), len(keys))} rows are the same tokens as one with another answer"
        fix = f"write signs that decide in words; if texts are cut, {_longer(used)}"
        found.warn(DataError(cause, where=used.at(places), fix=fix, code="D18"))


def _cuts(used: Used, cut: list[int], longest: int, limit: int, found: Findings) -> None:
    """D14: texts longer than the model is given."""
    fault = DataError(
        f"{share(len(cut), len(used.texts))} texts are cut to {limit} tokens; the longest has {longest}",
        where=used.at(cut),
        fix=_longer(used),
        code="D14",
    )
    by_share(len(cut), len(used.texts), WARN, "cuts", fault, found)


def _lost(used: Used, cut: list[int], codec: TokenizerCodec, limit: int, found: Findings) -> None:
    """D15: open answers that stand in the text, but no longer in what is left of it."""
    if used.task.choices:
        return
    lost = []
    for i in cut:
        answers = [normal(one) for one in used.examples[used.chosen[i]].accepted]
        text, rest = normal(used.texts[i]), normal(codec.kept(used.texts[i], limit))
        if any(one in text for one in answers) and not any(one in rest for one in answers):
            lost.append(i)
    fault = DataError(
        f"{share(len(lost), len(used.texts))} answers stand in the part of the text that is cut off",
        where=used.at(lost),
        fix=_longer(used),
        code="D15",
    )
    by_share(len(lost), len(used.texts), 0.0, "cuts", fault, found)


def _special(used: Used, codec: TokenizerCodec, found: Findings) -> None:
    """D19: special tokens of the model that stand in a text as words."""
    answers = [used.examples[i].target if not used.task.choices else "" for i in used.chosen]
    both = [f"{text} {answer}" for text, answer in zip(used.texts, answers, strict=True)]
    bad = [i for i, text in enumerate(both) if codec.written(text)]
    if bad:
        token = codec.written(both[bad[0]])[0]
        found.unless(
            "special_tokens",
            DataError(
                f"{len(bad)} texts hold a special token of the model: {token!r}",
                where=used.at(bad),
                fix="remove it from the texts",
                code="D19",
            ),
        )


def _open_answers(used: Used, codec: TokenizerCodec, found: Findings) -> None:
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


def check_words(task: Task, codec: TokenizerCodec, found: Findings) -> None:
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
