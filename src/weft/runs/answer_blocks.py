"""Answers of one task in the evaluate stage, in blocks that outlast a stop.

Of a task with more rows than one block, every finished block is a file of the run's folder until the run is
sealed: `answers-<first row>-<task>-<sha256>.json`. The name carries the SHA-256 of the bytes. Blocks are
the same whoever computes them, so an evaluation that goes on ends with the same bytes.
"""

import json
from collections.abc import Callable
from dataclasses import asdict

from weft import storage
from weft.errors import ArtifactError
from weft.evaluation.answers import Answer
from weft.runs.folder import Run
from weft.tasks import Example, Task

BLOCK = 512  # rows
PREFIX = "answers-"
Answering = Callable[[list[Example]], list[Answer]]


def answers(answer: Answering, task: str, examples: list[Example], out: Run) -> list[Answer]:
    """Answers of a task's rows, block by block.

    Args:
        answer: answers a part of the rows.
        task: its name.
        examples: the rows.
        out: the open folder of the evaluation.
    """
    if len(examples) <= BLOCK:
        return answer(examples)
    found: list[Answer] = []
    for start in range(0, len(examples), BLOCK):
        found += _kept(out, f"{PREFIX}{start:08d}-{task}", answer, examples[start : start + BLOCK])
    return found


def _kept(out: Run, name: str, answer: Answering, examples: list[Example]) -> list[Answer]:
    """A block's answers, from its file if there is a whole one."""
    for path in out.path.glob(f"{name}-{'?' * 64}.json"):
        try:
            return [Answer(**one) for one in json.loads(storage.read_proven(path))]
        except ArtifactError:
            storage.remove(path)
    found = answer(examples)
    data = json.dumps([asdict(one) for one in found], allow_nan=False).encode()
    storage.write_proven(out.path, name, ".json", data)
    return found


def line(number: int, task: Task, example: Example, answer: Answer) -> str:
    """One row of predictions.jsonl."""
    value = {
        "task": task.name,
        "row": number,
        "text": example.source,
        "references": list(example.accepted),
        "answer": answer.text,
        "label": task.labels.get(answer.text),
        "written": answer.written,
        "probabilities": answer.probabilities,
        **({"group": example.group} if example.group else {}),
    }
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
