"""Tokens of texts and answers as a backbone makes them, without its weights, and what they leave of texts."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from weft.data.batch import Tokens
from weft.data.chat import with_turn
from weft.models.tokenizer import answer_tokens, control_tokens
from weft.tasks.template import shows

Left = Literal["text", "unknown", "nothing"]
PLAIN = re.compile("[A-Za-z0-9]")  # a tokenizer that knows no letter of these is not known to us


class TokenizerCodec:
    """Tokens of texts and answers, as the backbone makes them.

    Args:
        tokenizer: the model's.
        spaced: whether answers go on after a text; see `answer_tokens`.
    """

    def __init__(self, tokenizer: Any, spaced: bool = False) -> None:
        self.tokenizer, self.spaced = tokenizer, spaced

    @cached_property
    def special(self) -> tuple[str, ...]:
        """Tokens that a text must not hold."""
        return tuple(sorted(set(control_tokens(self.tokenizer).values())))

    @cached_property
    def added(self) -> int:
        """Special tokens that the tokenizer puts around every text."""
        return int(self.tokenizer.num_special_tokens_to_add())

    def whole(self, limit: int) -> int:
        """Most tokens of a text and all that stands around it; see `with_turn`."""
        return with_turn(self.tokenizer, limit)

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, whole."""
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return ids

    def bare(self, text: str) -> list[int]:
        """Token ids of a text and nothing around it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)[
            "input_ids"
        ]
        return ids

    def cut(self, text: str, limit: int) -> list[int]:
        """Token ids of a text that is cut."""
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self.whole(limit))["input_ids"]
        return ids

    def drops(self, text: str, start: int, end: int, limit: int) -> bool:
        """Whether all of a part of a text is gone where the text is cut to a limit."""
        first = self.tokenizer.truncation_side == "left"  # such a model reads the end of a text
        kept = text[end:].lstrip() if first else text[:start].rstrip()
        return len(self.texts([kept])[0]) >= self.whole(limit)

    def answer(self, text: str) -> Tokens:
        """Token ids of an answer, and the end token."""
        return answer_tokens(self.tokenizer, text, spaced=self.spaced)

    def kept(self, text: str, limit: int) -> str:
        """What is left of a text that is cut."""
        return str(self.tokenizer.decode(self.cut(text, limit), skip_special_tokens=True))

    def written(self, text: str) -> list[str]:
        """The special tokens that stand in a text as words, each once."""
        return [token for token in self.special if token in text]

    def doubtful(self, ids: Sequence[int], fields: Sequence[str]) -> bool:
        """Whether the fields of a text, whose tokens these are, need to be looked at by `left`."""
        plain = all(PLAIN.search(one) and not self.written(one) for one in fields)
        return not plain or self.tokenizer.unk_token_id in ids

    def left(self, field: str) -> Left:
        """What a model reads of a field: text, mostly signs and words that it does not know, or nothing."""
        ids = self.bare(field)
        known = [one for one in ids if one != self.tokenizer.unk_token_id]
        if shows(self.tokenizer.decode(known, skip_special_tokens=True)) and 2 * len(known) >= len(ids):
            return "text"
        return "unknown" if len(known) < len(ids) else "nothing"
