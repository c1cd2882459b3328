"""Checks of the rows that a plan reads: copies, ids, empty texts, answers. No tokenizer is needed."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from weft.checks.findings import Findings
from weft.checks.overlap import repeats, whole
from weft.checks.used_rows import SHOWN, Used, share
from weft.errors import ConfigError, DataError, WeftError
from weft.tasks import template
from weft.tasks.generation_metrics import check_libraries

WARN, STOP = 0.01, 0.20  # shares of rows
IDS = ("id", "idx")
FEW = 10  # rows that may hold the words of their answers by chance


def check_rows(used: Used, found: Findings) -> None:
    """Copies, ids, empty texts and answers of one split."""
    _told(used, found)
    _ids(used, found)
    _copies(used, found)
    check_texts(used, found)
    _answers(used, found)
    _numbers(used, found)


def check_texts(used: Used, found: Findings) -> None:
    """What spoils a row that is learnt or scored: an empty text, and a text with two answers.

    C18: nor can rows be scored by a metric whose library is absent.
    """
    if used.split != "train":
        where = f"task {used.spec.name} (metrics)"
        found.attempt(lambda: check_libraries(used.spec.metrics, where))
    _blanks(used, found)
    _disputed(used, found)


def _told(used: Used, found: Findings) -> None:
    """D20: texts that show their answer, by its column or by its words: every score is 100 for nothing."""
    told = sorted({*template.names(used.spec.source)} & {*template.names(used.spec.target)})
    if told:
        cause = f"the text shows {told[0]!r}, the column of the answer: it need not be learnt"
        fix = f"take {{{told[0]}}} out of the text; new rows will not have it"
        where = f"task {used.spec.name} (source)"
        found.warn(DataError(cause, where=where, fix=fix, code="D20"))
    elif _all_show_answers(used):
        cause = "every text holds its own answer's word, and no other answer's: it need not be learnt"
        fix = "take it out of the texts, if new rows will not have it"
        found.warn(DataError(cause, where=used.name, fix=fix, code="D20"))


def _all_show_answers(used: Used) -> bool:
    """Whether of all answers' words and labels each text has those of its own, and of two answers or more."""
    labels = used.spec.written().labels or {}
    answers = {used.examples[i].target for i in used.chosen}
    if len(used.chosen) < FEW or len(answers) < 2 or not labels:
        return False
    of_word = {said.casefold(): word for label, word in labels.items() for said in (label, word)}
    if len({*of_word.values()}) < len(answers):
        return False
    sign = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(map(re.escape, of_word), key=len, reverse=True))})(?!\w)")
    for i, fields in zip(used.chosen, used.inputs, strict=True):
        shown = {of_word[one] for field in fields for one in sign.findall(field.casefold())}
        if shown != {used.examples[i].target}:
            return False
    return True


def _ids(used: Used, found: Findings) -> None:
    """D09: a column `id` or `idx` that the template does not show, and that stands twice.

    With the same text it is a row that came twice; with other texts it may name what many rows share.
    """
    texts: dict[int, str] = {}
    for place, text in enumerate(used.texts):
        texts.setdefault(used.row(place), text)
    shown = template.names(used.spec.source + used.spec.target)
    for column in [name for name in IDS if name not in shown]:
        ids = {row: used.rows[row - 1].get(column) for row in texts}
        if not all(isinstance(value, str | int) for value in ids.values()):
            continue
        twice = [list(ids)[n] for n in repeats(ids.values())]
        copies = [list(ids)[n] for n in repeats((ids[row], texts[row]) for row in ids)]
        if copies:
            fault = _twice(used, copies, f"an {column!r} and a text that stand before: {ids[copies[0]]!r}")
            fault.fix = "remove the copies"
            found.unless("duplicates", fault)
        elif twice:
            found.warn(_twice(used, twice, f"an {column!r} that stands before, with another text"))


def _twice(used: Used, rows: Sequence[int], what: str) -> DataError:
    places = ", ".join(map(str, rows[:SHOWN]))
    fix = "nothing needs to change if it names what rows share, such as a customer"
    return DataError(
        f"{len(rows)} rows have {what}", where=f"{used.name}, rows {places}", fix=fix, code="D09"
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
    by_share(len(copies), len(used.chosen), 0.0, "duplicates", fault, found)


def by_share(count: int, total: int, warn: float, allowance: Any, fault: WeftError, found: Findings) -> None:
    """An error over 20 %, unless it is allowed; a warning over `warn`."""
    if count > STOP * total:
        found.unless(allowance, fault)
    elif count > warn * total:
        found.warn(fault)


def _blanks(used: Used, found: Findings) -> None:
    """D02: texts of which nothing can be seen, and single fields of which nothing can."""
    shown = [[template.shows(text) for text in fields] for fields in used.inputs]
    empty = [i for i, one in enumerate(shown) if not any(one)]
    partly = [i for i, one in enumerate(shown) if any(one) and not all(one)]
    fix = "complete the rows or remove them"
    if empty:
        cause = f"{len(empty)} texts are nothing but white space and signs that cannot be seen"
        found.error(DataError(cause, where=used.at(empty), fix=fix, code="D02"))
    if partly:
        names = template.names(used.spec.source)
        counts = Counter(names[k] for i in partly for k, one in enumerate(shown[i]) if not one)
        said = ", ".join(f"{name!r} in {count:,}" for name, count in counts.items())
        cause = f"{share(len(partly), len(shown))} rows have an empty field beside others: {said}"
        found.warn(DataError(cause, where=used.at(partly), fix=fix, code="D02"))


def _disputed(used: Used, found: Findings) -> None:
    """D10: one text, but for case, spaces and punctuation, with two answers of which one must be wrong."""
    texts = [whole(fields) for fields in used.inputs]
    places = disputed(used, texts)
    if places:
        cause = f"{share(len(places), len(texts))} rows have the text of another row, and another answer"
        fix = "keep the right ones, or show in the text what tells them apart"
        found.warn(DataError(cause, where=used.at(places), fix=fix, code="D10"))


def disputed(used: Used, keys: Sequence[Hashable]) -> list[int]:
    """Places of the used rows that no answer of all rows with their key would satisfy.

    Args:
        used: the rows.
        keys: what tells them apart, one for each.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        groups[key].append(place)
    answers = [set(used.examples[i].accepted) for i in used.chosen]
    apart = [some for some in groups.values() if not set.intersection(*(answers[i] for i in some))]
    return sorted(i for some in apart for i in some)


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
                f"{len(absent)} of {len(used.task.choices)} answers have no row: {some_of(absent)}",
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


def some_of(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words[:5])) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
