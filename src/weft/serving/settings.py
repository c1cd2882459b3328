"""How much the engine does at once, and what it keeps. Loads without torch."""

from dataclasses import dataclass

from weft.errors import ConfigError


@dataclass(frozen=True)
class EngineSettings:
    """Bounds of the engine.

    Attributes:
        rows: most rows at once, each beam counting as one.
        read_tokens: most positions of the prompts and texts that are read at once, padding among them.
        live_tokens: most positions of all rows that are being answered, padding among them. A row that is
            longer is answered alone.
        fixed: every batch has `rows` rows and lengths from a short ladder, whatever is asked: an answer's
            numbers are then the same to the last bit in any company. Small batches cost as much as full ones.
        text_bytes: of keys and values of texts, on causal models whose prompts stand behind them.
        prompt_bytes: of keys and values of prompts, on causal models whose prompts stand before the text.
        tasks: whose texts and words are kept ready.
        heads: tasks of `method: weft` whose readers are kept ready.
    """

    rows: int = 32
    read_tokens: int = 2048
    live_tokens: int = 16384
    fixed: bool = False
    text_bytes: int = 1 << 30
    prompt_bytes: int = 256 << 20
    tasks: int = 4096
    heads: int = 256

    def __post_init__(self) -> None:
        least = {"rows": 1 + self.fixed, "read_tokens": 1, "live_tokens": 1, "tasks": 1, "heads": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                cause = f"{name} is {getattr(self, name)}"
                raise ConfigError(cause, where="engine", fix=f"give at least {bound}", code="C06")
