"""Rows of the source task `opinion`: python -m recipes.sources.opinions FOLDER

Sentences that praise or blame, as users' texts come: with capitals or without, with and without a word before
them. Of words and turns of our own (`recipes.pocket.opinions`), and the demo's rows on sentiment, each twice.
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
    if draw.random() < 0.7:
        text = text.replace(" ,", ",")
    if draw.random() < 0.6:
        text += draw.choice(AFTER)
    return draw.choice(BEFORE) + text


def rows(count: int = COUNT) -> list[dict[str, str]]:
    """Training rows in an order of their own."""
    draw = random.Random(1)
    found = [{"text": dressed(draw, said), "label": label} for label, said in opinions(count, seed=5)]
    for line in (DEMO / "train.jsonl").read_text("utf-8").splitlines():
        found += [json.loads(line)] * 2
    draw.shuffle(found)
    return found


def main(folder: Path) -> None:
    """Write the rows and the task's file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "opinion-train.jsonl": rows(),
        "opinion-dev.jsonl": list(map(json.loads, (DEMO / "dev.jsonl").read_text("utf-8").splitlines())),
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    (folder / "opinion.yaml").write_text(Path(__file__).with_name("opinion.yaml").read_text("utf-8"), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
