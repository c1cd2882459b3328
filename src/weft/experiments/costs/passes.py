"""Passes of rows through a model: kinds, operations, and how many. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from weft.experiments.costs.machine import Kind
from weft.experiments.costs.sizes import Operations, Row, Sizes
from weft.experiments.costs.texts import Texts
from weft.losses.targets import padded, pass_rows
from weft.models.packed_prompts import at_once


@dataclass(frozen=True)
class Pass:
    """Passes of one kind and size.

    Attributes:
        kind: forward and backward, forward, one more token, or with gradients of all weights.
        operations: of each.
        times: how many; a share of one that several runs have together.
        shapes: how many shapes of them no run met before.
    """

    kind: Kind
    operations: float
    times: float
    shapes: float = 0.0


def text_reads(
    sizes: Sizes, texts: Texts, rows: float, at_once: float, read_tokens: int, step: int
) -> list[Pass]:
    """Texts that are read to be kept, in reads of like length that are filled up.

    Args:
        sizes: of the model.
        texts: of the task.
        rows: how many of them are read.
        at_once: as far as they are announced together.
        read_tokens: of a read.
        step: lengths are padded to multiples of it.
    """
    padded = [-(-length // step) * step for length in texts.lengths]
    calls = max(1.0, rows / at_once)
    found = []
    for length in sorted(set(padded)):
        count = rows / calls * padded.count(length) / len(padded)  # of one call
        size = max(1, read_tokens // length)
        reads = float(ceil(count / size)) if count >= 1 else count
        one = sizes.reader.pass_over(float(size * length), float(length)).forward
        found.append(Pass("read", one, calls * reads))
    return found


def taught(
    sizes: Sizes, drawn: Sequence[tuple[Texts, float]], prompt: float, calls: float, *, kept: bool
) -> list[Pass]:
    """What teachers say of rows, in passes of like lengths that are filled up.

    Args:
        sizes: of the model.
        drawn: texts of each task, and how many rows of it.
        prompt: tokens of a teacher's prompt.
        calls: how often some of them are announced together.
        kept: whether texts are there already.
    """
    counts: dict[tuple[int, int], float] = defaultdict(float)  # of one call
    for texts, rows in drawn:
        for lengths in zip(texts.lengths, texts.answers, strict=True):
            counts[padded(*lengths, kept=kept)] += rows / calls / len(texts.lengths)
    found = []
    for (text, answer), count in sorted(counts.items()):
        size = pass_rows(text + int(prompt))
        times = float(ceil(count / (size - 1))) if count >= 1 else count
        row = Row(prompt, float(text), float(answer), kept)
        found.append(Pass("read", size * row.operations(sizes).forward, calls * times))
    return found


def answers(
    sizes: Sizes, texts: Texts, row: Row, size: int, times: int, written: float, *, met: bool
) -> list[Pass]:
    """Rows of a split that are read, their choices scored, and answers written.

    Args:
        sizes: of the model.
        texts: of the task.
        row: as the model sees one.
        size: rows of a batch.
        times: how often the split is answered.
        written: tokens of a written answer; 0: none is written.
        met: whether a run before answered the same.
    """
    if not texts.rows:
        return []
    batches = ceil(texts.rows / size)
    rows, count = texts.rows / batches, float(batches * times)
    found = scoring(sizes, texts, row, rows, count, shapes=0.0 if met else float(batches))
    if written > 1:  # the first token follows from what was read
        behind = Row(row.prompt, row.text, 1 + written / 2, row.kept)
        found.append(Pass("write", rows * behind.next_token(sizes).forward, (written - 1) * count))
    return found


def scoring(
    sizes: Sizes, texts: Texts, row: Row, rows: float, times: float, shapes: float = 0.0
) -> list[Pass]:
    """Rows that are read, and what is read before each later parting of their choices."""
    found = [Pass("read", rows * row.operations(sizes).forward, times, shapes)]
    return found + [Pass("read", rows * _path(sizes, row, path).forward, times) for path in texts.paths]


def _path(sizes: Sizes, row: Row, tokens: int) -> Operations:
    """Of some tokens of an answer behind a row that was read."""
    seen = row.prompt + row.text
    if sizes.writer is None:
        return Operations(2.0 * sizes.head, 0.0) + sizes.reader.pass_over(float(tokens), seen + tokens)
    out = Operations(2.0 * sizes.head * tokens, 0.0)
    own = sizes.writer.pass_over(float(tokens), 1.0 + tokens)  # behind the start token
    return out + own + sizes.writer.far_attention(float(tokens), seen)


def readings(sizes: Sizes, texts: Texts, rows: float, size: int) -> list[Pass]:
    """Bare texts through the stack that reads, in batches of like length."""
    if not rows:
        return []
    batches, length = max(1, ceil(rows / size)), texts.padded(size)
    one = sizes.reader.pass_over(rows / batches * length, length).forward
    return [Pass("read", one, float(batches))]


def under_prompts(sizes: Sizes, row: Row, rows: float, size: int, prompts: int) -> list[Pass]:
    """Rows under each of some prompts, up to the state that would predict an answer.

    Behind texts that are kept, as many prompts as go side by side are read in one pass.
    """
    if not rows:
        return []
    batches, most = max(1, ceil(rows / size)), at_once(int(row.prompt)) if row.kept else 1
    found = []
    for together, times in ((most, prompts // most), (prompts % most, 1)):
        if together and times:
            several = replace(row, prompt=together * row.prompt)
            one = several.operations(replace(sizes, head=0)).forward
            found.append(Pass("read", rows / batches * one, float(batches * times)))
    return found
