"""What is written so far as text: where it stops, and how much of it stands fast. Loads without torch."""

from collections.abc import Sequence

BROKEN = "\ufffd"  # a sign of which not all bytes are written yet


def stopped(text: str, stop: Sequence[str]) -> str | None:
    """The text before the first of the texts that stop it; none where none of them stands in it."""
    places = [text.index(one) for one in stop if one in text]
    return text[: min(places)] if places else None


def fast(text: str, stop: Sequence[str]) -> str:
    """What of a text no further token changes: without a broken sign, a begun stop and spaces at the end."""
    whole = text.rstrip(BROKEN)
    held = max((_begun(whole, one) for one in stop), default=0)
    return whole[: len(whole) - held].strip()


def _begun(text: str, stop: str) -> int:
    """How many of the text's last signs may be the first ones of a stop."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
