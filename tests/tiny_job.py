"""A whole small job: a tiny base model, four tasks that it can learn, and an experiment over them."""

import json
import sys
from pathlib import Path

from conftest import build_lm, build_tokenizer

from weft import cli

GOOD = ["good", "fine", "likes", "true", "up"]
BAD = ["bad", "hates", "false", "down", "not"]
NOUNS = ["film", "book", "meal", "song", "story", "city", "river", "dog", "cat", "man"]


PLACES = ["a", "an", "is", "was", "are", "were", "it"]
VERBS = {"alpha": "sits", "beta": "runs", "gamma": "eats", "delta": "sees"}


def rows_of(name: str, words: tuple[list[str], list[str]], count: int, start: int) -> str:
    """JSON lines of a task that a tiny model can learn: the second word decides. No text comes twice."""
    lines = []
    for i in range(start, start + count):
        word = words[i % 2][(i // 2) % 5]
        text = f"the {word} {NOUNS[i % 10]} {PLACES[i // 10]} {VERBS[name]}"
        lines.append(json.dumps({"text": text, "label": "yn"[i % 2]}))
    return "\n".join(lines)


def write_task(folder: Path, name: str, words: tuple[str, str], flip: bool) -> None:
    """A task file and its rows."""
    order = (BAD, GOOD) if flip else (GOOD, BAD)
    for split, count, start in (("train", 40, 0), ("dev", 10, 40), ("test", 12, 50)):
        (folder / f"{name}-{split}.jsonl").write_text(rows_of(name, order, count, start), "utf-8")
    files = "\n".join(f"  {split}: {name}-{split}.jsonl" for split in ("train", "dev", "test"))
    (folder / f"{name}.yaml").write_text(
        f'name: {name}\nfiles:\n{files}\nsource: "{{text}}"\ntarget: "{{label}}"\n'
        f'labels: {{"y": {words[0]!r}, "n": {words[1]!r}}}\n'
        "metrics: [accuracy, f1_macro]\nmax_target_tokens: 3\n",
        "utf-8",
    )


EXPERIMENT = """
name: tiny
base: {{model: {base}, dtype: float32, attention: eager}}
prompt: {{length: 4, position: {position}}}
tasks: [tasks]
sources: [alpha, beta]
targets: [gamma, delta]
allow: [leaks, duplicates]
shots: 6
seeds: [0, 1]
teachers:
  optim: {{lr: {{prompt: 0.1}}, steps: 6, batch_size: 6, eval_every: 3}}
source:
  optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 6, batch_size: 6, eval_every: 6}}
rows:
  - {{label: majority, method: {{name: majority}}}}
  - {{label: frozen model, method: {{name: no_prompt}}}}
  - label: prompt tuning
    method: {{name: prompt_tuning}}
    optim: {{lr: {{prompt: 0.1}}, steps: 4, batch_size: 6}}
  - label: SPoT
    method: {{name: prompt_tuning, start: nearest}}
    optim: {{lr: {{prompt: 0.1}}, steps: 4, batch_size: 6}}
  - label: MPT mean
    method: {{name: mpt, start: mean}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 4, batch_size: 6, micro_batch: 4}}
  - label: MPT group
    method: {{name: mpt, start: mean}}
    group: true
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 4, batch_size: 6}}
  - label: MPT frozen
    method: {{name: mpt, start: nearest, train: factors}}
    optim: {{lr: {{factors: 0.1}}, steps: 4, batch_size: 6}}
"""
FULL = (
    "  - {{label: full, method: {{name: full}}, optim: {{lr: {{model: 0.001}}, steps: 4, batch_size: 6}}}}\n"
)

SHORT = """
name: tiny
base: {{model: {base}, dtype: float32, attention: eager}}
prompt: {{length: 4, position: {position}}}
tasks: [tasks]
sources: [alpha, beta]
targets: [gamma, delta]
allow: [leaks, duplicates]
shots: 6
seeds: [0]
teachers:
  optim: {{lr: {{prompt: 0.1}}, steps: 2, batch_size: 6}}
source:
  optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
rows:
"""  # rows follow
ONE_TARGET = SHORT.replace("[gamma, delta]", "[gamma]").replace("rows:", "generate: false\nrows:")
READERS = SHORT.replace("name: tiny", "name: readers").replace("shots: 6", "shots: 8")
READERS = (
    READERS.replace("batch_size: 6", "batch_size: 4")
    + "  - {{label: weft, method: {{name: weft, encoders: [], worth: -1000}}, group: true}}\n"
)

TASKS = (
    ("alpha", ("yes", "no"), False),
    ("beta", ("red", "blue"), True),
    ("gamma", ("positive", "negative"), False),
    ("delta", ("same", "other"), True),
)


def write_job(folder: Path, family: str, position: str, rows: str = EXPERIMENT) -> Path:
    """Write the base model, the tasks and the experiment; returns the experiment's file."""
    build_lm(family).save_pretrained(folder / "base")
    build_tokenizer(ends_texts=family == "t5").save_pretrained(folder / "base")
    (folder / "tasks").mkdir()
    for name, words, flip in TASKS:
        write_task(folder / "tasks", name, words, flip)
    path = folder / "tiny.yaml"
    path.write_text(rows.format(base=folder / "base", position=position), "utf-8")
    return path


def command(*arguments: object) -> int:
    """Exit code of a command of weft, run in this process."""
    before, sys.argv = sys.argv, ["weft", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0
