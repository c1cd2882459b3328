"""Text formats that a template cannot say: a raw row becomes one or several rows of template fields.

The formats are those of T5 (Raffel et al. 2020, arXiv:1910.10683), which the paper of MPT follows.
A row without its answer column is a question and gives its fields; one whose list of answers is empty
teaches nothing and gives none.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from weft.config.task import Format
from weft.errors import DataError, did_you_mean
from weft.tasks.task import Row

ANSWERS = {
    "answers",
    "Answer",
    "lex",
    "human_reference",
    "references",
}  # columns that hold answers, and that no question is made of


def plain(row: Row) -> list[Row]:
    """The columns as they are."""
    return [row]


def stsb(row: Row) -> list[Row]:
    """STS-B: the score, 0 to 5, becomes the nearest multiple of 0.2, written with one decimal."""
    if "label" not in row:
        return [row]
    score = float(_column(row, "label"))
    if not 0 <= score <= 5:
        raise DataError(f"a similarity is 0 to 5, not {score}", where="label", code="D05")
    return [{**row, "label": f"{round(score * 5) / 5:.1f}"}]


def multirc(row: Row) -> list[Row]:
    """MultiRC: the paragraph loses its line breaks and bold marks."""
    text = re.sub(r"</?b>", "", re.sub(r"<br\s*/?>", " ", str(_column(row, "paragraph"))))
    return [{**row, "paragraph": " ".join(text.split())}]


def record(row: Row) -> list[Row]:
    """ReCoRD: entities in one line, highlights as sentences, and one row for each answer."""
    highlight = re.compile(r"([.?!\"'])?\s*@highlight\s*")
    text = highlight.sub(lambda mark: f"{mark[1] or '.'} ", str(_column(row, "passage"))).strip()
    entities = ", ".join(_column(row, "entities"))
    return _answered({**row, "passage": text, "entities": entities}, _listed(row.get("answers")))


def wsc(row: Row) -> list[Row]:
    """WSC: the first span stands between * and *, the second between # and #."""
    text = str(_column(row, "text"))
    marks = []
    for name, mark in (("span1", "*"), ("span2", "#")):
        start, end = _span(row, text, name)
        marks += [(start, f"{mark} "), (end, f" {mark}")]
    for place, mark in sorted(marks, reverse=True):  # from the right, so that places stay right
        text = text[:place] + mark + text[place:]
    return [{**row, "text": text}]


def qa(row: Row) -> list[Row]:
    """SQuAD and data sets with its columns; punctuation stands alone, in answers too."""
    fields = {part: spaced(str(_column(row, part))) for part in ("question", "context")}
    given: Any = row.get("answers")
    answers = _listed(given["text"] if isinstance(given, dict) else given)
    return _answered({**row, **fields}, answers and [spaced(one) for one in answers])[:1]


def tweet_qa(row: Row) -> list[Row]:
    """TweetQA: a question, a tweet, and a list of free answers."""
    fields = {"question": _column(row, "Question"), "context": _column(row, "Tweet")}
    return _answered({**row, **fields}, _listed(row.get("Answer")))[:1]


def web_nlg(row: Row) -> list[Row]:
    """WebNLG: the triples in one line, and one row for each text that was judged good."""
    sets = _column(row, "modified_triple_sets")["mtriple_set"]
    fields = {**row, "triples": " && ".join(triple.replace("_", " ") for triple in sets[0])}
    if "lex" not in row:
        return [fields]
    lex = _column(row, "lex")
    judged = zip(lex["text"], lex["comment"], strict=True)
    return _answered(fields, [text for text, comment in judged if comment == "good"])


def e2e(row: Row) -> list[Row]:
    """E2E: one row for each reference, be they a list or one a row."""
    _column(row, "meaning_representation")
    several: Any = row.get("references")
    return _answered(row, _listed(row.get("human_reference") if several is None else several))


FORMATS: dict[Format, Callable[[Row], list[Row]]] = {
    "plain": plain,
    "stsb": stsb,
    "multirc": multirc,
    "record": record,
    "wsc": wsc,
    "qa": qa,
    "tweet_qa": tweet_qa,
    "web_nlg": web_nlg,
    "e2e": e2e,
}


def put_together(name: Format, rows: list[Row]) -> list[Row]:
    """Rows as they are counted: those of one meaning representation of E2E as one, with all references."""
    if name != "e2e":
        return rows
    same: dict[object, list[Row]] = {}
    for row in rows:
        same.setdefault(_column(row, "meaning_representation"), []).append(row)
    return [_with_all_references(some) for some in same.values()]


def _with_all_references(rows: list[Row]) -> Row:
    answers = [one["answer"] for row in rows for one in e2e(row) if "answer" in one]
    return {**rows[0], "references": answers} if answers else rows[0]


def fields_of(name: Format, row: Row) -> list[Row]:
    """Rows of template fields of a raw row; none if the row has no answer.

    Raises:
        DataError: if a column is missing or holds something else.
    """
    try:
        return FORMATS[name](row)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(
            f"the row does not fit the format {name!r} ({type(error).__name__}: {error})",
            fix="compare its columns with those of the public data set",
            code="D05",
        ) from None


def question_of(name: Format, row: Row) -> Row:
    """Template fields of a row whose answer is not known, or does not matter."""
    asked = row if name == "plain" else {key: value for key, value in row.items() if key not in ANSWERS}
    return fields_of(name, asked)[0]


def spaced(text: str) -> str:
    """Text with every punctuation mark or other sign between spaces, and single spaces.

    Letters, numbers, accents and underscores stay together.
    """
    return " ".join(re.sub(r"[^\w\s]", _apart, text).split())


def _apart(match: re.Match[str]) -> str:
    return match[0] if unicodedata.category(match[0]).startswith("M") else f" {match[0]} "


def _column(row: Row, name: str) -> Any:
    """A column that a format needs."""
    if name not in row:
        known = [str(column) for column in row]
        raise DataError(
            f"there is no column {name!r}; the row has {', '.join(known) or 'nothing'}",
            fix=did_you_mean(name, known),
            code="D01",
        )
    if row[name] is None:
        raise DataError(f"the row has no {name!r}", fix="complete the rows or remove them", code="D02")
    return row[name]


def _listed(answers: Any) -> list[str] | None:
    """Answers as a list, whether one or several were given; none if none were asked for."""
    if answers is None:
        return None
    return [str(one) for one in (answers if isinstance(answers, list | tuple) else [answers])]


def _answered(fields: Row, answers: list[str] | None) -> list[Row]:
    """The same fields with each different answer in turn; as they are where no answers are given."""
    if answers is None:
        return [fields]
    known = list(dict.fromkeys(one for one in answers if one.strip()))
    return [{**fields, "answer": one, "answers": known} for one in known]


def _span(row: Row, text: str, name: str) -> tuple[int, int]:
    """Start and end of a span in characters: of its occurrences, the one nearest to its word's number."""
    span, number = str(_column(row, f"{name}_text")), int(_column(row, f"{name}_index"))
    word = [match.start() for match in re.finditer(r"\S+", text)][number]
    found = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(span)}(?!\w)", text)]
    if not found:
        raise DataError(f"the text has no {span!r}", where=f"{name}_text", code="D05")
    return min(found, key=lambda place: abs(place[0] - word))
