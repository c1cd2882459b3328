"""Tokens of texts and answers, as the backbone makes them, without its weights."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from weft.data.batch import Tokens
from weft.models import answer_tokens, control_tokens


class TokenizerCodec:
    """Tokens of texts and answers, as the backbone makes them."""

    def __init__(self, tokenizer: Any, spaced: bool) -> None:
        self.tokenizer, self.spaced = tokenizer, spaced

    @cached_property
    def special(self) -> tuple[str, ...]:
        """Tokens that a text must not hold."""
        return tuple(sorted(set(control_tokens(self.tokenizer).values())))

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, whole."""
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return ids

    def answer(self, text: str) -> Tokens:
        """Token ids of an answer, and the end token."""
        return answer_tokens(self.tokenizer, text, spaced=self.spaced)

    def kept(self, text: str, limit: int) -> str:
        """What is left of a text that is cut."""
        ids = self.tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))
