"""Sentences that praise or blame, of turns and words of our own: no reviews of others are needed."""

import random
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

PARTS = YAML(typ="safe").load(Path(__file__).with_suffix(".yaml").read_text())
SIDES = {"positive": ("praise", "blame"), "negative": ("blame", "praise")}


def opinions(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """So many pairs of a label and one or two sentences, half of them of either label.

    Args:
        count: how many.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    for i in range(count):
        label = ("positive", "negative")[i % 2]
        yield label, " . ".join(sentence(draw, label) for _ in range(draw.choice((1, 1, 2))))


def sentence(draw: random.Random, label: str) -> str:
    """One sentence of an opinion."""
    own, other = (PARTS[side] for side in SIDES[label])
    words = {name: draw.choice(own[name]) for name in ("be", "do", "noun", "ask")}
    words |= {f"{name}2": draw.choice(own[name]) for name in ("be", "do")}
    words |= {f"not_{name}": draw.choice(other[name]) for name in ("be", "do", "noun")}
    words |= {"thing": draw.choice(PARTS["things"])}
    words |= dict(zip(("part", "part2"), draw.sample(PARTS["parts"], 2), strict=True))
    return str(draw.choice(PARTS["turns"]).format(**words))
