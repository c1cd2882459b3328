"""Other words for the answers of a task, so that they are a matter of the prompt and not of the model."""

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

WORDS = YAML(typ="safe").load(Path(__file__).with_suffix(".yaml").read_text())
OPPOSITES = [pair.split("/") for pair in WORDS["opposites"].split()]
ANY = WORDS["any"].split()


@cache
def others(task: str, own: Sequence[str], number: int) -> dict[str, str]:
    """What each answer of a task is called instead, the same for the same task and number.

    Args:
        task: its name.
        own: its answers; two of them are called by opposites half of the time.
        number: which of its sets of words.
    """
    draw = random.Random(f"{task} {number}")
    opposed = len(own) == 2 and number % 2 == 0
    words = list(draw.choice(OPPOSITES)) if opposed else draw.sample(ANY, len(own))
    draw.shuffle(words)
    return dict(zip(own, words, strict=True))


def said(called: Mapping[str, str]) -> str:
    """An instruction to use other words."""
    return " , ".join(f"{answer} is {word}" for answer, word in called.items())
