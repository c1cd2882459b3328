"""Which columns of a file hold texts and answers: as the user says, or where it is plain. Without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from weft.errors import ConfigError, DataError, did_you_mean
from weft.tasks import Row, template

ANSWERS = (
    *("label", "labels", "answer", "class", "category", "intent", "sentiment", "kind", "target", "topic"),
    *("tag", "type", "y", "output", "completion", "response", "summary"),
)
TEXTS = (
    *("text", "message", "sentence", "review", "comment", "tweet", "utterance", "question", "query"),
    *("body", "content", "document", "description", "email", "sms", "input", "prompt"),
)
PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2")),
    *(("question", "sentence"), ("question", "passage"), ("sentence_a", "sentence_b"), ("text_a", "text_b")),
    *(("title", "body"), ("title", "text"), ("title", "content"), ("subject", "body"), ("subject", "text")),
)
LONGER = 3  # times the length of others: the texts of a file without a known name
REPEATED = 0.5  # of the rows: a column with fewer different values may hold answers


@dataclass(frozen=True)
class Columns:
    """Where texts and answers stand.

    Attributes:
        texts: columns of the text, one or several.
        answer: column of the answer.
        found: which of them were not named by the user.
    """

    texts: tuple[str, ...]
    answer: str
    found: tuple[str, ...] = ()


def find(rows: Sequence[Row], texts: Sequence[str] = (), answer: str | None = None) -> Columns:
    """The columns of texts and answer.

    Args:
        rows: of the file.
        texts: columns that the user names; none: found by name, by pairs of names, or by length.
        answer: likewise; none: found by name, or as the only other column whose values repeat.

    Raises:
        DataError: if a named column is not there.
        ConfigError: if it is not plain which columns are meant.
    """
    known = list(dict.fromkeys(str(column) for row in rows for column in row))
    for name in (*texts, *([answer] if answer else [])):
        if not any(template.has(name, row) for row in rows):
            cause = f"there is no column {name!r}; the file has {', '.join(known)}"
            raise DataError(cause, where="--text, --answer", fix=did_you_mean(name, known), code="D01")
    if answer in texts:
        raise ConfigError(f"column {answer!r} cannot be both text and answer", where="--text, --answer")
    said = answer or _answer([name for name in known if name not in texts], rows)
    read = tuple(texts) or _texts([name for name in known if name != said], rows)
    named = {*texts, answer}
    return Columns(read, said, tuple(name for name in (*read, said) if name not in named))


def _answer(known: Sequence[str], rows: Sequence[Row]) -> str:
    named = _called(known, ANSWERS)
    found = named or [name for name in known if _repeats(_values(name, rows))]
    if len(found) != 1:
        raise _unclear("answers", "--answer", found or known)
    return found[0]


def _texts(known: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    for pair in PAIRS:
        if len(found := _called(known, pair)) == len(pair):
            return tuple(sorted(found, key=lambda name: pair.index(name.casefold())))
    named = _called(known, TEXTS)
    if len(named) == 1:
        return (named[0],)
    lengths = {name: fmean(map(len, _values(name, rows)) or [0]) for name in named or known}
    ordered = sorted(lengths, key=lambda name: -lengths[name])
    if len(ordered) == 1 or (ordered and lengths[ordered[0]] > LONGER * lengths[ordered[1]]):
        return (ordered[0],)
    raise _unclear("texts", "--text", named or known)


def _called(known: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in known if name.casefold() in names]


def _values(name: str, rows: Sequence[Row]) -> list[str]:
    """A column's values as text, where there is one."""
    there = [row for row in rows if not template.missing(name, row)]
    return [str(row[name]) for row in there if name in row]


def _repeats(values: Sequence[str]) -> bool:
    return 1 < len(set(values)) <= REPEATED * len(values)


def _unclear(what: str, option: str, names: Sequence[str]) -> ConfigError:
    listed = ", ".join(repr(name) for name in names)
    return ConfigError(
        f"it is not plain which column holds the {what}: {listed or 'none is left'}",
        where="the file's columns",
        fix=f"name it: {option} COLUMN",
        code="D01",
    )
