"""What `weft evaluate` shows: scores with intervals, each answer, confusions, and how sure they are."""

from collections.abc import Sequence

from weft.evaluation.figures import BINS, Confusion, Figures, PerAnswer, Sureness
from weft.evaluation.intervals import DRAWS, Interval
from weft.tasks.metrics import NEVER_FIRST
from weft.text_table import columns, filled, fitted, plain, render, room, shorten

DASH, EMPTY = "—", "(empty)"
ACROSS, LISTED, MISTAKES = 10, 20, 10  # answers of a matrix, answers of a list, confusions of a list
NAME, LONG = 12, 24  # columns that a name needs beside a matrix; a longer one has a number, for it may be cut
FEW, SMALL = 100, 5.0  # rows of a rough estimate; points of calibration error that do no harm
OVERVIEW = ("task", "rows", "metric", "score", "95 % interval", "majority")

NOTE = (
    f"In percent. Intervals: Wilson for shares of right rows, bootstrap (up to {DRAWS:,} draws) for others. "
    "Majority: share of the commonest true answer."
)


def text(found: Sequence[Figures], most: int) -> str:
    """All figures for a screen.

    Args:
        found: of each task.
        most: columns of the screen.
    """
    return "\n\n".join([_overview(found, most), *(part for one in found for part in _details(one, most))])


def _overview(found: Sequence[Figures], most: int) -> str:
    """Every task's rows, scores and majority."""
    rows = fitted(OVERVIEW, [row for one in found for row in _score_rows(one)], most)
    named = [name for name in NEVER_FIRST if any(name in one.scores.metrics for one in found)]
    note = " ".join([NOTE, *(f"{name}: {NEVER_FIRST[name]}." for name in named)])
    return render(OVERVIEW, rows, "<><>>>", most=most) + "\n\n" + filled(note, most)


def _score_rows(one: Figures) -> list[list[str]]:
    """A line for each metric; the task stands beside the one that decides."""
    names = [one.metric, *(name for name in one.scores.metrics if name != one.metric)]
    scores = [[name, _number(one.scores.metrics[name]), _interval(one.intervals[name])] for name in names]
    first = [plain(one.task), f"{one.scores.rows:,}", *scores[0], _number(one.majority[1])]
    return [first, *(["", "", *score, ""] for score in scores[1:])]


def _details(one: Figures, most: int) -> list[str]:
    """What there is to say of one task beyond its scores."""
    parts = []
    if one.confusion is not None:
        parts += [_answers(one, one.confusion, most), _confusions(one, one.confusion, most)]
    said = _said(one)
    return parts + ([filled(f"{plain(one.task)}: {' '.join(said)}", most)] if said else [])


def _answers(one: Figures, confusion: Confusion, most: int) -> str:
    """Precision, recall and F1 of each answer; of many, those that fail most."""
    answers, labels, title = confusion.per_answer(), _labels(confusion), f"{plain(one.task)}: answers"
    if len(answers) > LISTED:
        title += f", the {LISTED} of {len(answers)} with the lowest F1 (all: --json)"
        answers = sorted(answers, key=_worth)[:LISTED]
    head = ("answer", "precision", "recall", "F1", "rows")
    body = [
        [labels[row.answer], *map(_number, (row.precision, row.recall, row.f1)), f"{row.rows:,}"]
        for row in answers
    ]
    return f"{filled(title, most)}\n\n{render(head, fitted(head, body, most), '<>>>>', most=most)}"


def _worth(row: PerAnswer) -> float:
    """For sorting; an answer that neither side has fails nowhere."""
    return 100.0 if row.f1 is None else row.f1


def _confusions(one: Figures, confusion: Confusion, most: int) -> str:
    """The matrix, or the most frequent confusions where it would be too wide."""
    title = f"{plain(one.task)}: confusions"
    if not confusion.mistakes():
        return f"{title}: none"
    counts = [[f"{count:,}" for count in row] for row in confusion.counts]
    names, numbered = list(_labels(confusion).values()), _numbered(confusion)
    numbers, longest = [name.split()[0] for name in numbered], max(map(columns, numbered))
    for heads, labels, least in ((names, names, longest), (numbers, numbered, min(NAME, longest))):
        if len(names) <= ACROSS and room(heads, counts, most) >= least:
            head, body = ["", *heads], [[label, *row] for label, row in zip(labels, counts, strict=True)]
            shown = render(head, fitted(head, body, most), "<" + ">" * len(names), most=most)
            said = filled(f"{title}: a line for each true answer, a column for each given one", most)
            return f"{said}\n\n{shown}"
    return f"{title}, the most frequent ones\n\n{_mistakes(confusion, most)}"


def _labels(confusion: Confusion) -> dict[str, str]:
    """Answers as they are shown: with their numbers if some are so long that they may be cut alike."""
    names = [plain(answer) or EMPTY for answer in confusion.answers]
    shown = _numbered(confusion) if max(map(columns, names)) > LONG else names
    return dict(zip(confusion.answers, shown, strict=True))


def _numbered(confusion: Confusion) -> list[str]:
    return [f"{i} {plain(answer) or EMPTY}" for i, answer in enumerate(confusion.answers, start=1)]


def _mistakes(confusion: Confusion, most: int) -> str:
    """The most frequent confusions, a line each."""
    labels, wide = _labels(confusion), (most - 12) // 2
    shown = confusion.mistakes()[:MISTAKES]
    body = [[f"{count:,}", *(shorten(labels[name], wide) for name in names)] for count, *names in shown]
    return render(("rows", "true answer", "given answer"), body, "><<", most=most, folds=-1)


def _said(one: Figures) -> list[str]:
    """In sentences: how sure the probabilities are, what was written, what is empty."""
    said = _beside_majority(one) + (_sure(one.sureness, one.scores.rows) if one.sureness else [])
    if one.confusion is not None and one.scores.written is not None:
        scores = ", ".join(f"{name} {_number(score)}" for name, score in one.scores.written.items())
        said.append(f"Written freely: {scores}; {_number(one.scores.unparsable)} % outside the answers.")
    if one.groups is not None:
        said.append(f"The rows make {one.groups:,} groups; intervals draw whole groups.")
    return said + ([] if one.empty is None else [f"{_number(one.empty)} % of the answers are empty."])


def _beside_majority(one: Figures) -> list[str]:
    """A warning, where the rows do not show that closed answers are better than one and the same."""
    found, (answer, share) = one.intervals.get("accuracy"), one.majority
    if one.confusion is None or found is None or found.low > share:
        return []
    return [f"Not surely better than always answering {plain(answer)!r}, which is right for {share:.1f} %."]


def _sure(found: Sureness, rows: int) -> list[str]:
    """How far the probabilities can be believed; the numbers behind that."""
    off = found.mean - found.right
    if found.calibration_error < SMALL:
        verdict = "probabilities can be taken at their word"
    elif abs(off) < found.calibration_error / 2:
        verdict = "some probabilities are too high, some too low"
    else:
        verdict = "probabilities are too high" if off > 0 else "probabilities are too low"
    rough = f" (a rough estimate from {rows:,} rows)" if rows < FEW else ""
    return [
        f"Answers have a probability of {found.mean:.1f} % in the mean, and {found.right:.1f} % of them are "
        f"right: {verdict}{rough}.",
        f"Expected calibration error {found.calibration_error:.1f} points ({BINS} bins), log loss "
        f"{found.log_loss:.3f}, Brier score {found.brier:.3f}.",
    ]


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _interval(found: Interval | None) -> str:
    return DASH if found is None else f"{found.low:.1f} to {found.high:.1f}"
