"""What stands before a text in a model's context: an instruction, and examples with their answers.

    [instruction]\\n\\n[text 1] [answer 1]\\n\\n[text 2] [answer 2]\\n\\n ... [text]

Every part is made tokens by itself, so that lengths add up and the context is the same for every text. Where
a tokenizer knows no line breaks, the parts stand next to each other.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from weft.data.batch import Tokens
from weft.data.chat import chat_of
from weft.data.encoding import TextReader
from weft.tasks import Example

GAP = "\n\n"  # between the parts


@dataclass(frozen=True)
class ContextLayout:
    """How texts, answers and an instruction become the tokens of one input.

    Attributes:
        reader: what makes tokens.
        limit: longest text in tokens, with the special tokens that the tokenizer puts around it.
    """

    reader: TextReader
    limit: int

    @cached_property
    def edges(self) -> tuple[Tokens, Tokens]:
        """The special tokens, or a chat's signs, that stand before and after every input."""
        if chat := chat_of(self.reader.tokenizer):
            return chat.head, chat.tail
        inner, whole = self.bare("a"), tuple(self.reader.tokenizer("a")["input_ids"])
        start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
        return whole[:start], whole[start + len(inner) :]

    @cached_property
    def gap(self) -> Tokens:
        """What stands between two parts."""
        return self.bare(GAP)

    def bare(self, text: str) -> Tokens:
        """Tokens of a text, without special ones."""
        return tuple(self.reader.tokenizer(text, add_special_tokens=False)["input_ids"])

    def body(self, text: str) -> Tokens:
        """Tokens of a text as every method reads it, cut to the limit, without what stands around it.

        Raises:
            DataError: if nothing is left of the text.
        """
        before, after = self.edges
        tokens = self.reader.text_tokens(text, self.limit)[0]
        return tokens[len(before) : len(tokens) - len(after)]

    def instruction(self, words: str) -> Tokens:
        """An instruction and the gap behind it."""
        return self.bare(words) + self.gap

    def example(self, one: Example) -> Tokens:
        """A text, its answer without the end token, and the gap behind it."""
        return self.body(one.source) + self.reader.answer_tokens(one.target)[:-1] + self.gap

    def context(self, words: str, examples: Sequence[Example]) -> Tokens:
        """All that stands before the text of a row, from the first token of the input."""
        parts = [self.edges[0], self.instruction(words), *map(self.example, examples)]
        return tuple(token for part in parts for token in part)

    def choose(self, rows: Sequence[Example], room: int, most: int | None, seed: int) -> list[Example]:
        """The first rows of a balanced order that have room, in an order of their own.

        Args:
            rows: to choose from.
            room: tokens of all of them together, gaps included.
            most: rows at most; none: as many as have room.
            seed: of the order.
        """
        draw = random.Random(seed)
        found: list[Example] = []
        for row in balanced(rows, draw):
            room -= len(self.example(row))
            if room < 0 or len(found) == most:
                break
            found.append(row)
        draw.shuffle(found)
        return found


def balanced(rows: Sequence[Example], draw: random.Random) -> Iterator[Example]:
    """Rows in rounds with one of every answer, until an answer has no more.

    However many are taken, no answer has two more than another. Of open answers that is one row of each.
    """
    by_answer: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_answer[row.target].append(row)
    groups = [by_answer[answer] for answer in sorted(by_answer)]
    for group in groups:
        draw.shuffle(group)
    for number in range(min(map(len, groups), default=0)):
        draw.shuffle(groups)
        yield from (group[number] for group in groups)
