"""Answers of `weft predict` as JSON lines, as CSV, and as a table for people."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from weft.errors import ConfigError
from weft.text_table import plain, render, room, shorten

if TYPE_CHECKING:  # weft.serving loads torch
    from weft.serving.predictor import Prediction

DASH = "—"
HEAD, ALIGN = ("row", "task", "answer", "sure"), "><<>"
MOST_ROWS = 1000  # nobody reads more from a screen
TASK, TEXT, ANSWER = 16, 15, 3  # most columns of a task, least of a text; an answer has one in so many
OTHER = (".tsv", ".parquet", ".xlsx")  # forms of tables that are not written
Rows = Sequence[Mapping[str, object]]
Sources = Mapping[str, Callable[[dict[str, object]], str]]


def check_ending(out: Path) -> None:
    """Refuse a file's name that promises another form than is written.

    Raises:
        ConfigError: naming the forms.
    """
    if out.suffix.lower() in OTHER:
        raise ConfigError(
            f"answers are not written as {out.suffix}", where=f"--out {out}", fix="use .jsonl or .csv"
        )


def is_csv(out: Path) -> bool:
    """Whether a file's name asks for CSV."""
    return out.suffix.lower() == ".csv"


def json_lines(found: Sequence["Prediction"]) -> str:
    """One JSON object a line, as `Prediction.as_dict` says."""
    return "".join(json.dumps(one.as_dict(), ensure_ascii=False) + "\n" for one in found)


def csv_text(found: Sequence["Prediction"]) -> str:
    """The fields of the JSON lines as columns, and `probability`, that of the answer.

    What is neither text nor a number is JSON, such as `probabilities`; what is none is empty.
    """
    out = StringIO()
    lines = [_csv_line(one) for one in found]
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _csv_line(one: "Prediction") -> dict[str, object]:
    fields = {name: _csv_value(value) for name, value in one.as_dict().items()}
    return {**fields, "probability": _probability(one)}


def _csv_value(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | dict | list | tuple) else value


def _probability(one: "Prediction") -> float | None:
    """Of the answer, where answers are closed."""
    return one.probabilities[one.answer] if one.probabilities and one.answer is not None else None


def table(found: Sequence["Prediction"], rows: Rows, sources: Sources, most: int) -> str:
    """Answers for a screen, and how many there are.

    Args:
        found: the answers.
        rows: that were asked about.
        sources: task -> what makes a text of a row.
        most: columns of the screen.
    """
    shown = found[:MOST_ROWS]
    cells = [_cells(one, most) for one in shown]
    kept = [i for i in range(len(HEAD)) if any(row[i] for row in cells) and (i != 1 or len(sources) > 1)]
    head, body = [HEAD[i] for i in kept], [[row[i] for i in kept] for row in cells]
    wide = max(TEXT, room(head, body, most))
    body = [[*row, _text(one, rows, sources, wide)] for row, one in zip(body, shown, strict=True)]
    align = "".join(ALIGN[i] for i in kept) + "<"
    return f"{render([*head, 'text'], body, align, most=most, folds=-1)}\n\n{_count(found)}"


def _cells(one: "Prediction", most: int) -> list[str]:
    """What stands left of the text."""
    share = _probability(one)
    answer = DASH if one.answer is None else shorten(plain(one.answer), most // ANSWER)
    sure = "" if share is None else f"{100 * share:.1f} %"
    return [str(one.row + 1), shorten(plain(one.task or DASH), TASK), answer, sure]


def _text(one: "Prediction", rows: Rows, sources: Sources, wide: int) -> str:
    """What was read, shortened; or, in full, why there is no answer."""
    if one.task is None or one.error is not None:
        return f"not answered: {plain(one.error or '')}"
    return shorten(plain(sources[one.task](dict(rows[one.row]))), wide)


def _count(found: Sequence["Prediction"]) -> str:
    """How many answers and faults there are, and how many of them are not shown."""
    faults = sum(one.error is not None for one in found)
    answers = len(found) - faults
    said = f"{answers:,} answer{'' if answers == 1 else 's'}, {faults:,} fault{'' if faults == 1 else 's'}"
    return said + (
        f"; the first {MOST_ROWS:,} are shown, --out FILE keeps all" if len(found) > MOST_ROWS else ""
    )
