"""Attention that sees a window: weft reads no input that is longer, so that no layer needs one.

Rows are padded between their parts, and the library counts a window's tokens with the padding among them: of
two rows alike, one would see less for the company that it keeps.
"""

from collections.abc import Mapping
from typing import Any

STACKS = ("encoder", "decoder")
OWN = "weft_window"  # where a model that was opened keeps what it had


def window_of(settings: Mapping[str, Any]) -> int | None:
    """Tokens that every layer of a model sees at least; none: all of them.

    Args:
        settings: its `config.json`, or those of one of its stacks.
    """
    parts = [settings, *(settings[name] for name in STACKS if isinstance(settings.get(name), Mapping))]
    own = [part.get(OWN) or (part.get("sliding_window") if _slides(part) else None) for part in parts]
    return min((int(one) for one in own if one), default=None)


def _slides(settings: Mapping[str, Any]) -> bool:
    kinds = settings.get("layer_types")
    return settings.get("use_sliding_window", True) and (not kinds or "sliding_attention" in kinds)


def open_windows(lm: Any) -> None:
    """Let every layer see all that is there; `window_of` still finds what the model had."""
    for config in (lm.config, *(getattr(lm.config, name, None) for name in STACKS)):
        own = window_of(config.to_dict()) if config is not None else None
        if own is not None and getattr(config, OWN, None) is None and getattr(config, "sliding_window", None):
            setattr(config, OWN, own)
            config.sliding_window = int(config.max_position_embeddings)
