"""Texts in Markdown, of which no sign is read as markup; and the data at the head of a card."""

import json
import re
from typing import Any

DASH = "—"


def front_matter(**said: Any) -> str:
    """The data of a card, as the hub reads them; what is none or empty is left out."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(**{key: value for key, value in said.items() if value})
    return f"---\n{data.to_yaml()}\n---"


def percent(value: float | None) -> str:
    """A score as tables have it."""
    return DASH if value is None else f"{value:.1f}"


def plain(text: str) -> str:
    """A text in a line."""
    return re.sub(r"([\\`*_{}\[\]<>#~])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """A text as code in a line; one with breaks or other controls as JSON."""
    text = text if text.isprintable() else json.dumps(text, ensure_ascii=False)
    marks = "`" * (_longest(text) + 1)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{marks}{blank}{text}{blank}{marks}"


def fence(language: str, *lines: str) -> str:
    """Lines of code."""
    text = "\n".join(lines)
    marks = "`" * max(3, _longest(text) + 1)
    return f"{marks}{language}\n{text}\n{marks}"


def _longest(text: str) -> int:
    """Of the rows of backticks in a text."""
    return max(map(len, re.findall("`+", text)), default=0)
