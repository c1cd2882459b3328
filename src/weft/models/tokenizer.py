"""A base model's tokenizer without its weights: which of its tokens are no text, and those of an answer."""

import re
from typing import Any

from weft.data.batch import Tokens
from weft.errors import ArtifactError
from weft.models.base_folder import BaseFolder

MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")  # how signs of control are written: <|im_start|>, [CLS]
FILLER = re.compile(r"\[unused\d+\]|<unused\d+>|<extra_id_\d+>|<0x[0-9A-Fa-f]{2}>")  # of no text, or a byte


def load_tokenizer(folder: BaseFolder) -> Any:
    """The tokenizer of a base model; for a missing end it takes the separator, for missing padding the end.

    Raises:
        ArtifactError: if the folder has none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
    except Exception as error:  # the library raises what its parts raise
        raise ArtifactError(
            f"the base model has no tokenizer that can be read ({type(error).__name__})",
            where=str(folder.path),
            fix="the folder needs tokenizer.json and tokenizer_config.json",
            code="A09",
        ) from None
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


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
        spaced: whether the answer goes on after a text (causal models), and so has its leading space.
    """
    ids = tokenizer(f" {answer}" if spaced else answer, add_special_tokens=False)["input_ids"]
    if spaced and ids and not tokenizer.decode(ids[:1]).strip():  # the vocabulary marks word starts itself
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return (*ids, tokenizer.eos_token_id)
