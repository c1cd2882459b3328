"""A text as a user's turn in a chat: what stands around it, in tokens. A tokenizer that has it says so.

Loads without torch: the server's own process reads it.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # weft.data.batch loads torch
    from weft.data.batch import Tokens

OWN = "weft_chat"  # where a tokenizer that puts texts into turns keeps what it puts around them


class Chat(NamedTuple):
    """What a model's chat template puts around a user's text."""

    head: "Tokens"
    tail: "Tokens"


def chat_of(tokenizer: Any) -> Chat | None:
    """What a tokenizer puts around every text as a chat template has it; none: it knows no turns."""
    found: Chat | None = getattr(tokenizer, OWN, None)
    return found


def with_turn(tokenizer: Any, limit: int) -> int:
    """Most tokens of a text with all that stands around it; a limit of the text counts no template."""
    chat = chat_of(tokenizer)
    return limit if chat is None else limit + len(chat.head) + len(chat.tail)
