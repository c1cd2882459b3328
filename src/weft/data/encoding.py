"""Rows as tokens, those of large tasks kept on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from weft.data.batch import Encoded, Tokens
from weft.data.chat import chat_of, with_turn
from weft.data.token_store import TokenRows, TokenStore, key_of
from weft.tasks import Example

LARGE = 4096  # rows, from which on a task's tokens are kept on the disk
CHUNK = 4096  # texts of one call of the tokenizer
Order = np.ndarray[tuple[int], np.dtype[np.int64]]


class TextReader(Protocol):
    """What makes tokens of texts and answers: a model's tokenizer and habits, as every backbone has them."""

    tokenizer: Any
    base_hash: str

    @property
    def added_tokens(self) -> int:
        """Special tokens that the tokenizer puts around every text."""

    @property
    def keeps_texts(self) -> bool:
        """Whether a text is read once and kept, for any prompt."""

    def text_tokens(self, text: str, limit: int | None = None) -> tuple[Tokens, bool]:
        """Token ids of a text, and whether it was cut to `limit`."""

    def answer_tokens(self, answer: str) -> Tokens:
        """Token ids of an answer, with the end token."""


@dataclass(frozen=True)
class EncodedTask:
    """A task's rows as tokens, and how many texts were cut to fit."""

    name: str
    rows: Sequence[Encoded]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> Order:
        """Number of source tokens of every row."""
        rows = self.rows if isinstance(self.rows, TokenRows) else TokenRows.of(self.rows)
        return rows.lengths


def encode_task(
    name: str,
    examples: Sequence[Example],
    backbone: TextReader,
    limit: int,
    store: TokenStore | None = None,
) -> EncodedTask:
    """Tokens of every example; those of a large task are made once and mapped from the store.

    Raises:
        DataError: if nothing is left of a text.
    """
    if store is None or len(examples) < LARGE:
        return EncodedTask(name, *_encoded(examples, backbone, limit))
    about = [backbone.base_hash, type(backbone).__name__, limit, version("tokenizers")]
    about += ["chat"] if chat_of(backbone.tokenizer) else []
    key = key_of(about, ((one.source, one.target) for one in examples))
    return EncodedTask(name, *(store.get(key) or store.put(key, *_encoded(examples, backbone, limit))))


def _encoded(examples: Sequence[Example], backbone: TextReader, limit: int) -> tuple[TokenRows, int]:
    """Rows of tokens, and how many texts were cut."""
    starts = range(0, max(1, len(examples)), CHUNK)
    parts = [_encoded_chunk(examples[start : start + CHUNK], backbone, limit) for start in starts]
    return TokenRows.joined([rows for rows, _ in parts]), sum(cut for _, cut in parts)


def _encoded_chunk(examples: Sequence[Example], backbone: TextReader, limit: int) -> tuple[TokenRows, int]:
    """As `Backbone.text_tokens` and `answer_tokens` say it, many texts at once."""
    texts = [example.source for example in examples]
    sources = _tokens(backbone.tokenizer, texts, truncation=False, verbose=False)
    for text, tokens in zip(texts, sources, strict=True):
        if len(tokens) <= backbone.added_tokens:
            backbone.text_tokens(text, limit)  # says what is wrong
    most = with_turn(backbone.tokenizer, limit)
    long = [i for i, one in enumerate(sources) if len(one) > most]
    shorter = _tokens(backbone.tokenizer, [texts[i] for i in long], truncation=True, max_length=most)
    for i, tokens in zip(long, shorter, strict=True):
        sources[i] = tokens
    answers = {text: backbone.answer_tokens(text) for text in dict.fromkeys(one.target for one in examples)}
    pairs = zip(sources, examples, strict=True)
    return TokenRows.of(Encoded(tuple(one), answers[example.target]) for one, example in pairs), len(long)


def _tokens(tokenizer: Any, texts: list[str], **kw: Any) -> list[list[int]]:
    return list(tokenizer(texts, return_attention_mask=False, **kw)["input_ids"]) if texts else []
