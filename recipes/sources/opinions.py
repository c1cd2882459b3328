"""Rows of the source task `opinion`: python -m recipes.sources.opinions FOLDER

Sentences that praise or blame, as users' texts come: with capitals or without, with and without a word before them. Of
words and turns of our own (`recipes.pocket.opinions`), and the demo's own rows on sentiment.
"""

import json
import random
import sys
from pathlib import Path

from recipes.pocket.opinions import opinions

COUNT = 1600
DEMO = Path(__file__).parents[2] / "demo/data/sentiment"
BEFORE = ("", "", "", "sentence: ", "review: ", "text: ")
AFTER = (".", "!", " .")


def dressed(draw: random.Random, said: str) -> str:
    """An opinion as somebody would write it."""
    parts = said.split(" . ")
    if draw.random() < 0.7:
        parts = [part[:1].upper() + part[1:] for part in parts]
    text = (". " if draw.random() < 0.7 else " . ").join(parts)
    text = text.replace(" ,", ",") if draw.random() < 0.7 else text
    text += draw.choice(AFTER) if draw.random() < 0.6 else ""
    return draw.choice(BEFORE) + text


def rows(count: int = COUNT, seed: int = 5) -> list[dict[str, str]]:
    """Training rows, no text twice, in an order of their own."""
    draw = random.Random(seed)
    found = {dressed(draw, said): label for label, said in opinions(count, seed)}
    found |= {row["text"]: row["label"] for row in map(json.loads, (DEMO / "train.jsonl").open(encoding="utf-8"))}
    listed = [{"text": text, "label": label} for text, label in found.items()]
    draw.shuffle(listed)
    return listed


def main(folder: Path) -> None:
    """Write the rows and the task's file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    (folder / "opinion-train.jsonl").write_text(lines, "utf-8")
    dev = (DEMO / "dev.jsonl").read_text("utf-8")
    (folder / "opinion-dev.jsonl").write_text(dev, "utf-8")
    (folder / "opinion.yaml").write_text(Path(__file__).with_name("opinion.yaml").read_text("utf-8"), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
