"""A base model's tokenizer without its weights: which of its tokens are no text, and those of an answer."""

import re
from typing import Any

from weft.data.batch import Tokens
from weft.data.chat import chat_of
from weft.errors import ArtifactError
from weft.models.base_folder import BaseFolder
from weft.models.chat import make_chat
from weft.models.language_model import settings_named

MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")  # how signs of control are written: <|im_start|>, [CLS]
FILLER = re.compile(r"\[unused\d+\]|<unused\d+>|<extra_id_\d+>|<0x[0-9A-Fa-f]{2}>")  # of no text, or a byte


def load_tokenizer(folder: BaseFolder, *, chat: bool = False) -> Any:
    """The tokenizer of a base model, with an end and a token for padding.

    For a missing end it takes the separator, or the one that config.json names; for missing padding the end,
    or likewise. An encoder needs no end.

    Args:
        folder: the base model's.
        chat: whether texts become turns of a chat.

    Raises:
        ArtifactError: if the folder has none that can be read, or neither it nor config.json names those.
        UnsupportedError: as `make_chat`.
    """
    from transformers import AutoConfig, AutoTokenizer

    if not any(_is_vocabulary(file.name) for file in folder.path.iterdir()):
        raise _no_tokenizer(folder, "no file holds its vocabulary")  # the library would make up an empty one
    with settings_named(folder):
        AutoConfig.from_pretrained(folder.path, local_files_only=True)  # which the tokenizer reads as well
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
    except Exception as error:  # the library raises what its parts raise
        raise _no_tokenizer(folder, type(error).__name__) from None
    if tokenizer.eos_token_id is None:
        _name(tokenizer, "eos_token", tokenizer.sep_token or _configured(tokenizer, folder, "eos_token_id"))
    if tokenizer.pad_token_id is None:
        _name(tokenizer, "pad_token", tokenizer.eos_token or _configured(tokenizer, folder, "pad_token_id"))
    needed = "pad_token" if folder.family == "encoder" else "eos_token"
    if getattr(tokenizer, f"{needed}_id") is None:
        raise _unnamed(tokenizer, folder, needed)
    if chat:
        make_chat(tokenizer, folder)
    return tokenizer


def check_vocabulary(tokenizer: Any, rows: int, folder: BaseFolder) -> None:
    """Refuse a tokenizer with tokens that the model has no numbers for.

    Args:
        tokenizer: the base model's.
        rows: of the model's embeddings, or of its output layer where that has fewer.
        folder: the base model's, for the message.

    Raises:
        ArtifactError: naming the last of them.
    """
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if last >= rows:
        raise ArtifactError(
            f"the tokenizer has tokens up to {last} ({token!r}), and the model's embeddings {rows:,} rows",
            where=str(folder.path),
            fix="take the tokenizer that the model was trained with, or resize the model's embeddings to it",
            code="A09",
        )


def _is_vocabulary(name: str) -> bool:
    return name == "tokenizer.json" or name.startswith("vocab") or name.endswith(".model")


def _no_tokenizer(folder: BaseFolder, why: str) -> ArtifactError:
    return ArtifactError(
        f"the base model has no tokenizer that can be read ({why})",
        where=str(folder.path),
        fix="the folder needs tokenizer.json and tokenizer_config.json",
        code="A09",
    )


def _name(tokenizer: Any, role: str, token: str | None) -> None:
    """Give a token a role, if there is one to give."""
    if token is not None:
        setattr(tokenizer, role, token)


def _configured(tokenizer: Any, folder: BaseFolder, key: str) -> str | None:
    """The token whose number config.json gives, if it is one of control: a default may point at any word."""
    given = folder.config.get(key)
    number = given[0] if isinstance(given, list) and given else given
    if type(number) is not int or not 0 <= number < len(tokenizer):
        return None
    token = tokenizer.convert_ids_to_tokens(number)
    return token if token and (number in control_tokens(tokenizer) or MARK.fullmatch(token)) else None


def _unnamed(tokenizer: Any, folder: BaseFolder, role: str) -> ArtifactError:
    """What to say of a tokenizer that lacks a token which weft needs."""
    what = {"eos_token": "ends an answer", "pad_token": "fills a batch"}[role]
    known = ", ".join(sorted(set(control_tokens(tokenizer).values()))[:5]) or "none"
    return ArtifactError(
        f"the tokenizer does not say which token {what} ({role}), and config.json names none ({role}_id)",
        where=str(folder.path / "tokenizer_config.json"),
        fix=f'add "{role}": "..." there, with the token that the model was trained with; its tokens of '
        f"control: {known}",
        code="A09",
    )


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Tokens that steer a model and are no text: what a tokenizer calls special, and marks added beside it.

    Where one is written in a text, the tokenizer makes the mark of it, not the words.
    """
    special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    added = tokenizer.added_tokens_decoder.items()
    marks = {i: str(token) for i, token in added if token.special or MARK.fullmatch(str(token))}
    return {**dict(special), **marks}


def textless_ids(tokenizer: Any, size: int) -> set[int]:
    """Ids among `size` embeddings that are no text: control tokens, fillers, bytes, and ids of no token."""
    vocabulary = tokenizer.get_vocab()
    fillers = {i for token, i in vocabulary.items() if FILLER.fullmatch(token)}
    return set(range(size)) - set(vocabulary.values()) | fillers | set(control_tokens(tokenizer))


def answer_tokens(tokenizer: Any, answer: str, *, spaced: bool) -> Tokens:
    """Token ids of an answer, and the end token.

    Args:
        tokenizer: the base model's.
        answer: text to write.
        spaced: whether the answer goes on after a text (causal models), and so has its leading space; in a
            chat it begins a turn, and has none.
    """
    spaced = spaced and chat_of(tokenizer) is None
    ids = tokenizer(f" {answer}" if spaced else answer, add_special_tokens=False)["input_ids"]
    if spaced and ids and not tokenizer.decode(ids[:1]).strip():  # the vocabulary marks word starts itself
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return (*ids, tokenizer.eos_token_id)
