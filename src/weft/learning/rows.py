"""What a file asks for: the rows that are used, their answers, and what is odd. Loads without torch."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from weft.errors import DataError, UnsupportedError
from weft.learning.columns import Columns
from weft.learning.drawing import drawn
from weft.tasks import Row, template

SEPARATORS = ";|,"  # between the answers of a row that has several
SHOWN = 5
FEWEST = 2  # rows of an answer on the mean, below which the answers are no closed set


@dataclass(frozen=True)
class Rows:
    """The rows of a file that are learnt from.

    Attributes:
        columns: where texts and answers stand.
        rows: of these columns alone, all values as text, answers without spaces at their ends.
        counts: rows of each answer, in the order in which the file first has them.
        left_out: why a row is left out -> the numbers of such rows, from 1.
        kind: whether answers are a closed set, or open texts to write.
        before: how many of the rows, the first ones, are of an earlier run.
    """

    columns: Columns
    rows: list[dict[str, str]]
    counts: dict[str, int]
    left_out: dict[str, list[int]]
    kind: Literal["closed", "open"]
    before: int = 0

    @property
    def answers(self) -> tuple[str, ...]:
        """The different answers, in the order of the file."""
        return tuple(self.counts)


def understand(
    rows: Sequence[Row], columns: Columns, *, whole: bool = False, earlier: Sequence[dict[str, str]] = ()
) -> Rows:
    """The rows that can be learnt from.

    Args:
        rows: of the file.
        columns: where texts and answers stand.
        whole: an answer with separators in it is one answer.
        earlier: rows of an earlier run, which stay but where the file has their text, and so its new answer.

    Raises:
        DataError: if no row is left, or all have one answer.
        UnsupportedError: if a row has several answers, or answers are numbers on a scale.
    """
    kept: list[dict[str, str]] = []
    left_out: dict[str, list[int]] = {}
    for number, row in enumerate(rows, start=1):
        if fault := _fault(row, columns):
            left_out.setdefault(fault, []).append(number)
            continue
        kept.append({name: template.written(name, row) for name in columns.texts})
        kept[-1][columns.answer] = _answer(row, columns.answer, number)
    new = {_text(row, columns) for row in kept}
    old = [row for row in earlier if _text(row, columns) not in new]
    kept = [*old, *kept]
    counts = dict(Counter(row[columns.answer] for row in kept))
    _check(counts, columns, whole)
    kind: Literal["closed", "open"] = "closed" if len(counts) * FEWEST <= len(kept) else "open"
    if kind == "open" and all(map(_number, counts)):
        raise UnsupportedError(
            f"the answers in {columns.answer!r} are {len(counts)} different numbers in {len(kept)} rows",
            where=f"column {columns.answer}",
            fix="weft chooses among answers and does not estimate numbers: put them into a few named ranges",
        )
    return Rows(columns, kept, counts, left_out, kind, len(old))


def few(rows: Rows, most: int, seed: int) -> Rows:
    """At most so many of the file's rows, as `drawn` draws them; those of an earlier run stay.

    Args:
        rows: that can be learnt from.
        most: rows of the file that are wanted.
        seed: of the draw.

    Raises:
        ConfigError: if no row is wanted.
    """
    name, old, new = rows.columns.answer, rows.rows[: rows.before], rows.rows[rows.before :]
    places = drawn([row[name] if rows.kind == "closed" else "" for row in new], most, seed)
    if len(places) == len(new):
        return rows
    kept = [*old, *(new[i] for i in places)]
    seen = Counter(row[name] for row in kept)
    counts = {answer: seen[answer] for answer in rows.counts if answer in seen}
    return replace(rows, rows=kept, counts=counts)


def _text(row: dict[str, str], columns: Columns) -> tuple[str, ...]:
    return tuple(row[name] for name in columns.texts)


def _fault(row: Row, columns: Columns) -> str:
    """Why a row cannot be learnt from; empty if it can."""
    if all(template.missing(name, row) or not _shown(row, name) for name in columns.texts):
        return "no text"
    if any(template.missing(name, row) for name in columns.texts):
        return "a field of the text is empty"
    answer = row.get(columns.answer)
    empty = template.missing(columns.answer, row) or (isinstance(answer, list | tuple) and not answer)
    return "no answer" if empty or not _shown(row, columns.answer) else ""


def _shown(row: Row, name: str) -> bool:
    return template.shows(str(row[name])) if name in row else True


def _answer(row: Row, name: str, number: int) -> str:
    """A row's answer; a list of one is that one.

    Raises:
        UnsupportedError: for a list of several.
    """
    value = row.get(name)
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise _several(f"row {number} has a list of {len(value)} answers", name)
        return template.written(name, {name: value[0]}).strip()
    return template.written(name, row).strip()


def _check(counts: dict[str, int], columns: Columns, whole: bool) -> None:
    """Refuse answers that nothing can be learnt from, and several answers in one."""
    if len(counts) < 2:
        said = f"every row has the answer {next(iter(counts))!r}" if counts else "no row has text and answer"
        raise DataError(
            said,
            where=f"columns {', '.join(columns.texts)}, {columns.answer}",
            fix="give rows with two or more answers",
            code="D13",
        )
    for sign in () if whole else SEPARATORS:
        joined = {
            answer: [part.strip() for part in answer.split(sign)] for answer in counts if sign in answer
        }
        seen = Counter(part for parts in joined.values() for part in parts) + Counter(
            answer for answer in counts if sign not in answer
        )
        if joined and all(seen[part] > 1 for parts in joined.values() for part in parts):
            raise _several(f"answers such as {next(iter(joined))!r} join others by {sign!r}", columns.answer)


def _several(cause: str, name: str) -> UnsupportedError:
    return UnsupportedError(
        f"a row may have one answer: {cause}",
        where=f"column {name}",
        fix="make a column of yes and no for each answer, and learn each as a task of its own (predict reads "
        "a text once for all of them); or --whole, if such an answer is one answer",
    )


def _number(answer: str) -> bool:
    try:
        return math.isfinite(float(answer))
    except ValueError:
        return False


def described(rows: Rows, read: int) -> list[str]:
    """What was understood, line by line.

    Args:
        rows: that are used.
        read: how many the file has.
    """
    columns = rows.columns
    said = [f"{name} (found)" if name in columns.found else name for name in (*columns.texts, columns.answer)]
    lines = [f"{read:,} rows; text: {', '.join(said[:-1])}; answer: {said[-1]}"]
    lines += [f"with {rows.before:,} rows of the earlier run"] if rows.before else []
    for why, numbers in rows.left_out.items():
        shown = ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
        lines.append(f"left out: {len(numbers):,} rows with {why} (row {shown})")
    if rows.kind == "open":
        return [*lines, f"{len(rows.counts):,} different answers in {len(rows.rows):,} rows: open answers"]
    ordered = sorted(rows.counts.items(), key=lambda one: -one[1])
    shown = ", ".join(f"{answer} {count:,}" for answer, count in ordered[: 2 * SHOWN])
    more = f", and {len(ordered) - 2 * SHOWN} more" if len(ordered) > 2 * SHOWN else ""
    lines.append(f"{len(ordered):,} answers: {shown}{more}")
    return lines + _odd(rows.counts)


def _odd(counts: dict[str, int]) -> list[str]:
    """What a reader of the answers may not have meant."""
    folded: dict[str, list[str]] = {}
    for answer in counts:
        folded.setdefault(answer.casefold(), []).append(answer)
    lines = [
        f"odd: {' and '.join(map(repr, same))} differ in case alone" for same in folded.values() if same[1:]
    ]
    once = [answer for answer, count in counts.items() if count == 1]
    if once:
        names = ", ".join(map(repr, once[:SHOWN])) + (", ..." if len(once) > SHOWN else "")
        lines.append(f"odd: {len(once)} answers have one row, too few to tell how well they do: {names}")
    return lines
