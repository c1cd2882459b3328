"""What a reader of answers should know of the texts behind them: the faults that training names in rows."""

from collections.abc import Callable, Sequence

from weft.errors import DataError
from weft.serving.predictor import Prediction

SHOWN = 5  # rows that a message names
KINDS: tuple[tuple[Callable[[Prediction], object], str, str, str], ...] = (
    (
        lambda one: one.cut,
        "texts are cut to the longest that their task reads (limits of its run)",
        "shorten them",
        "D14",
    ),
    (
        lambda one: one.special_tokens,
        "texts hold special tokens of the model, which it does not read as words",
        "remove them from the texts",
        "D19",
    ),
    (
        lambda one: one.unknown,
        "texts have a field of which the model knows less than half",
        "the answer says little; write it in signs and words that the model knows",
        "D03",
    ),
)


def doubts(predictions: Sequence[Prediction], where: str = "") -> list[DataError]:
    """What is doubtful in answers, each kind once, with the count of its answers and its first rows.

    Args:
        predictions: of some rows.
        where: they come from.
    """
    found = []
    for doubted, what, fix, code in KINDS:
        some = [one for one in predictions if doubted(one)]
        if some:
            rows = [str(row + 1) for row in dict.fromkeys(one.row for one in some)]
            place = f"{where}, rows {', '.join(rows[:SHOWN])}" + (", …" if len(rows) > SHOWN else "")
            cause = f"{len(some)} of {len(predictions)} {what}"
            found.append(DataError(cause, where=place, fix=fix, code=code))
    return found
