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
from weft.evaluation import answering
from weft.evaluation.answering import Answer
from weft.models.tuned import TunedModel
from weft.runs import parents
from weft.runs.config import EvaluateRun
from weft.runs.folder import Run
from weft.runs.workspace import Workspace
from weft.tasks import Example, Task

BLOCK = 512  # rows
PREFIX = "answers-"
Answering = Callable[[list[Example]], list[Answer]]


def answers(
    config: EvaluateRun,
    task: Task,
    examples: list[Example],
    parent: Run | None,
    workspace: Workspace,
    out: Run,
) -> list[Answer]:
    """Answers of a run, of the frozen model, or the majority answer, block by block."""
    answer = _answering(config, task, parent, workspace)
    if len(examples) <= BLOCK:
        return answer(examples)
    found: list[Answer] = []
    for start in range(0, len(examples), BLOCK):
        found += _kept(out, f"{PREFIX}{start:08d}-{task.name}", answer, examples[start : start + BLOCK])
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


def _answering(config: EvaluateRun, task: Task, parent: Run | None, workspace: Workspace) -> Answering:
    """What gives a task's rows their answers; the model is loaded once for all blocks."""
    if parent is None and config.method is not None and config.method.name == "majority":
        train = task.load("train")
        return lambda examples: answering.majority(task, train, examples)[1]
    model, task_id = _model(config, task, parent, workspace)

    def answer(examples: list[Example]) -> list[Answer]:
        limit = config.limits.source_tokens
        sources = [model.backbone.text_tokens(one.source, limit)[0] for one in examples]
        known = [task] * (task_id + 1)
        ids, size = [task_id] * len(sources), config.batch_size
        return answering.answer(model, known, sources, ids, batch_size=size, generate=config.generate)

    return answer


def _model(
    config: EvaluateRun, task: Task, parent: Run | None, workspace: Workspace
) -> tuple[TunedModel, int]:
    """The model that answers, and the task's id in it."""
    if parent is None:
        return TunedModel(workspace.backbone(config), None, {}, (task.name,)), 0
    model, _ = parents.load(parent, workspace, config)
    if task.name not in model.tasks:
        raise ArtifactError(f"the run has no prompt for {task.name!r}", where=str(parent.path), code="C12")
    return model, model.tasks.index(task.name)


def line(number: int, task: Task, example: Example, answer: Answer) -> str:
    """One row of predictions.jsonl."""
    value = {
        "task": task.name,
        "row": number,
        "text": example.source,
        "references": list(example.accepted),
        "answer": answer.text,
        "written": answer.written,
        "probabilities": answer.probabilities,
    }
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
