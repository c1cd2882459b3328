"""Which runs may spread the layers of their base model over several processes. Loads without torch."""

from weft.errors import ConfigError, UnsupportedError
from weft.runs.config import AnyRun, SourceRun, touches_weights


def check_sharded(config: AnyRun, position: str) -> None:
    """Refuse runs in which one process would run the model more often than another, or change its layers.

    Raises:
        ConfigError: for prompts after the text: who has a text kept does not read it.
        UnsupportedError: for distillation, of which the same holds, and for methods that change weights.
    """
    if not config.base.sharded:
        return
    if position == "suffix":
        raise ConfigError(
            "prompts that stand after cached texts do not go with layers that are spread over processes",
            where="base.sharded",
            fix="set prompt.position: prefix; or base.sharded: false",
            code="C08",
        )
    distils = isinstance(config, SourceRun) and bool(config.teachers) and config.distill.teaches
    if distils or touches_weights(config):
        what = "distillation from teachers" if distils else "a method that changes or adds weights"
        raise UnsupportedError(
            f"{what} does not go with layers that are spread over processes",
            where="base.sharded",
            fix="set base.sharded: false",
            code="C08",
        )
