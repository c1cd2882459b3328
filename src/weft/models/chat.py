"""Chat templates: a tokenizer that makes of every text a user's turn, and of an answer the assistant's.

The template's signs take the place of the special tokens that a tokenizer puts around texts. So a begin token
is there once at most, a text that is cut keeps the assistant's header behind it, and what a text says of
special tokens is words.
"""

from collections.abc import Sequence
from typing import Any

from weft.data.chat import OWN, Chat
from weft.errors import UnsupportedError
from weft.models.base_folder import BaseFolder

TEXT, ANSWER = "weftText", "weftAnswer"  # stand for a text and an answer where a template is asked
TRIED = ("a", "The text, and more.")  # texts whose tokens must be the same in and outside a template
DAY = "strftime_now"  # by which templates write the day into every text


def make_chat(tokenizer: Any, folder: BaseFolder) -> None:
    """Let a tokenizer put every text into a user's turn, behind which the assistant's begins.

    Its end token becomes that with which the template ends the assistant's turn.

    Args:
        tokenizer: the base model's; changed.
        folder: the base model's, for messages.

    Raises:
        UnsupportedError: if it has no template, or one that weft cannot put around tokens.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise _refused("the base model has no chat template", folder)
    if DAY in str(template):
        raise _refused("the base model's chat template writes the day of use into every text", folder)
    if not getattr(tokenizer, "is_fast", False):
        raise _refused("weft puts chat templates around texts of fast tokenizers alone", folder)
    head, _, tail = _rendered(tokenizer, folder, TEXT).partition(TEXT)
    chat = Chat(_tokens(tokenizer, head), _tokens(tokenizer, tail))
    for text in TRIED:
        whole = _tokens(tokenizer, _rendered(tokenizer, folder, text))
        if whole != chat.head + _tokens(tokenizer, text) + chat.tail:
            raise _refused("the base model's chat template changes texts, or joins with their tokens", folder)
    end = _end(tokenizer)
    tokenizer.backend_tokenizer.post_processor = _around(tokenizer, chat)
    tokenizer.split_special_tokens = True
    if end is not None:
        tokenizer.eos_token = end
    setattr(tokenizer, OWN, chat)


def _rendered(tokenizer: Any, folder: BaseFolder, text: str) -> str:
    """A user's turn and the assistant's header, as text."""
    turns = [{"role": "user", "content": text}]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of the model's makers, and raises what it likes
        raise _refused(f"the base model's chat template refuses a user's text ({error})", folder) from None


def _tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])


def _end(tokenizer: Any) -> str | None:
    """The control token with which the assistant's turn ends; none where a template says none."""
    turns = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": ANSWER}]
    try:
        after = str(tokenizer.apply_chat_template(turns, tokenize=False)).partition(ANSWER)[2]
    except Exception:  # likewise: such a template is for one turn
        return None
    first = next(iter(_tokens(tokenizer, after)), None)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return str(tokenizer.convert_ids_to_tokens(first)) if first in special else None


def _around(tokenizer: Any, chat: Chat) -> Any:
    """What puts the template's tokens around a text's."""
    from tokenizers.processors import TemplateProcessing

    def piece(name: str, ids: Sequence[int]) -> dict[str, Any]:
        return {"id": name, "ids": list(ids), "tokens": tokenizer.convert_ids_to_tokens(list(ids))}

    named = {name: ids for name, ids in (("<head>", chat.head), ("<tail>", chat.tail)) if ids}
    single = [name for name in ("<head>", "$A", "<tail>") if name in named or name == "$A"]
    return TemplateProcessing(single=single, special_tokens=[piece(*one) for one in named.items()])


def _refused(cause: str, folder: BaseFolder) -> UnsupportedError:
    return UnsupportedError(
        cause,
        where=f"base.chat ({folder.path})",
        fix="set base.chat: false; texts are then read as they are",
        code="C08",
    )
