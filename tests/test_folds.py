"""Cross-validation: which rows stand together, and what answers each."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.errors import DataError
from weft.evaluation.answers import Answer
from weft.evaluation.folds import fold_of, out_of_fold
from weft.tasks import Example

EXAMPLES = [Example(f"text {i}", "abc"[i % 3]) for i in range(33)]


@given(st.integers(2, 6), st.integers(0, 9), st.lists(st.sampled_from("abc"), min_size=6, max_size=40))
def test_folds_share_out_the_rows_and_every_answer_evenly(folds, seed, targets):
    """Sizes differ by one at most, in all and of each answer; the same for the same seed."""
    examples = [Example(f"text {i}", target) for i, target in enumerate(targets)]
    numbers = fold_of(examples, folds, seed)
    assert numbers == fold_of(examples, folds, seed)
    for some in (set("abc"), {"a"}, {"b"}, {"c"}):
        sizes = np.bincount([n for n, t in zip(numbers, targets, strict=True) if t in some], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_copies_of_a_text_stand_in_one_fold():
    """Else each would be answered by what its copy taught; case and spaces make no other text."""
    texts = ["Same  text", "same text", "SAME TEXT "]
    examples = [*EXAMPLES, *(Example(text, "a") for text in texts)]
    assert len(set(fold_of(examples, 4, 1)[-3:])) == 1
    assert len(set(fold_of(examples, 4, 1))) == 4


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), min_size=8, max_size=30))
def test_what_belongs_together_stands_in_one_fold(rows):
    """Rows of one group (0: none), copies of a text, and what either joins, as a plain search finds."""
    examples = [Example(f"text {text}", "ab"[text % 2], group="" if not g else f"{g}") for text, g in rows]
    numbers = fold_of(examples, 3, 0)
    for start in range(len(rows)):
        reached = {start}
        while (
            more := {
                j
                for i in reached
                for j in range(len(rows))
                if rows[i][0] == rows[j][0] or rows[i][1] == rows[j][1] != 0
            }
            - reached
        ):
            reached |= more
        assert len({numbers[i] for i in reached}) == 1


def test_every_row_is_answered_by_what_the_other_folds_taught():
    """The fit sees no row of its fold, and all others; answers keep the order of the rows."""
    seen: list[set[str]] = []

    def fit(train):
        seen.append({one.source for one in train})
        return lambda rows: [Answer("t", chosen=f"{row.source} {len(seen)}") for row in rows]

    answers = out_of_fold(EXAMPLES, 3, 0, fit)
    assert [one.text.rpartition(" ")[0] for one in answers] == [one.source for one in EXAMPLES]
    for one, answer in zip(EXAMPLES, answers, strict=True):
        by = int(answer.text.rpartition(" ")[2])
        assert all((one.source in texts) == (k != by) for k, texts in enumerate(seen, start=1))
    assert Counter(map(len, seen)) == {22: 3}


@pytest.mark.parametrize("examples", [EXAMPLES[:2], [EXAMPLES[0]] * 9, EXAMPLES[:1] + EXAMPLES[1:2]])
def test_too_few_rows_are_refused(examples):
    """Fewer texts than folds, or one answer alone to learn from."""
    with pytest.raises(DataError, match="too few for 3 folds"):
        out_of_fold(examples, 3, 0, lambda train: lambda rows: [Answer("t", chosen="a")] * len(rows))
