"""Whether prompt, text and answer of a run have room in its base model. Loads without torch."""

from weft.errors import ConfigError, UnsupportedError
from weft.models.base_folder import BaseFolder
from weft.runs.config import AnyRun


def check_lengths(config: AnyRun, folder: BaseFolder) -> None:
    """Refuse what a model with absolute positions cannot read, or reads otherwise in another batch.

    One batch may hold the longest text of one task beside the longest answer of another.

    Raises:
        ConfigError: for more tokens than there are positions.
        UnsupportedError: for more tokens than a window of the model's attention holds, or than rotary
            positions that grow with a batch were trained for.
    """
    longest = max(task.max_target_tokens for task in config.tasks)
    _check_answers(longest, folder)
    text = max(config.source_tokens)
    around = folder.chat_tokens if config.base.chat else 0
    total = config.prompt.length + around + text + longest
    limits = (folder.positions, folder.rope_limit, folder.window)
    most = min((n for n in limits if n is not None), default=total)
    if total <= most:
        return
    chat = f"chat template {around}, " if around else ""
    tokens = (
        f"prompt {config.prompt.length}, {chat}text {text} and answer {longest} are "
        f"{total} tokens, and {folder.name!r}"
    )
    room = most - config.prompt.length - around - longest
    task = config.tasks[config.source_tokens.index(text)].name
    key = f"limits.{f'tasks.{task}.' if task in config.limits.tasks else ''}source_tokens"
    where, fix = f"prompt.length, {key}", f"set {key} to {room} or less" if room > 0 else "shorten the prompt"
    if folder.window == most:
        cause = f"{tokens}'s attention sees a window of {most}, beyond which weft does not read"
        raise UnsupportedError(cause, where=where, fix=fix, code="C08")
    if folder.rope_limit is None:
        raise ConfigError(f"{tokens} has {most} positions", where=where, fix=fix, code="C07")
    cause = f"{tokens} scales its positions beyond {most} by the longest text of a batch"
    raise UnsupportedError(cause, where=where, fix=fix, code="C08")


def _check_answers(longest: int, folder: BaseFolder) -> None:
    """Refuse answers that a decoder has no positions for.

    Raises:
        ConfigError: with both numbers.
    """
    if folder.answer_positions is not None and longest > folder.answer_positions:
        raise ConfigError(
            f"answers have up to {longest} tokens, and the decoder of {folder.name!r} has "
            f"{folder.answer_positions} positions",
            where="max_target_tokens",
            fix=f"set max_target_tokens to {folder.answer_positions} or less",
            code="C07",
        )
