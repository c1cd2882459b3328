"""What the JSON files of a run folder hold; a field of another kind is refused. Loads without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from weft import storage
from weft.config.base import Content
from weft.config.task import TaskSpec
from weft.errors import ArtifactError
from weft.runs.config import AnyRun, EvaluateRun

Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(ge=-1e100, le=1e100)]  # sums of such numbers stay finite


class _Env(Content):
    base: str = ""
    base_hash: str = ""
    embedding_hash: str = ""
    tokenizer_hash: str = ""
    identity: str = ""
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["library", "eager", "sdpa", "grouped"] = "library"
    products: Literal["library", "packed", "bfloat16"] = "library"
    position: Literal["prefix", "suffix"] = "prefix"
    threads: Annotated[Count, Field(gt=0)] = 1
    micro_batch: Annotated[Count, Field(gt=0)] = 1
    together: list[str] = Field(default_factory=list)
    seen_in_pretraining: list[str] = Field(default_factory=list)


class _Rows(Content):
    read: Count = 0
    train: Count
    cut: Count = 0


class _Trained(Content):
    trained_parameters: Count = 0
    tasks: list[str]
    steps: Count
    best_step: Count
    parameters_per_task: Number
    dev: Number | None
    rows: dict[str, _Rows]


class _Score(Content):
    rows: Count
    metrics: dict[str, Number | None]
    written: dict[str, Number | None] | None


class _Scored(Content):
    trained_parameters: Count = 0
    scores: dict[str, _Score]


class _Timing(Content):
    seconds: Annotated[Number, Field(ge=0)]


class _Step(Content):
    step: Count
    loss: Number = 0
    lm: Number = 0
    logits: Number = 0
    hidden: Number = 0


class _Line(Content):
    task: str
    text: str
    references: list[str]
    answer: str
    probabilities: dict[str, Number] | None
    group: str = ""


RESULT, NOTES = "result.json", "notes.json"
CONFIGURED = (RESULT, NOTES)  # hold what follows from the run's configuration
CONTENTS: dict[str, type[Content]] = {
    "env.json": _Env,
    "timing.json": _Timing,
    "metrics.jsonl": _Step,
    "predictions.jsonl": _Line,
}


def content_of(name: str, config: AnyRun | None) -> type[BaseModel]:
    """What a file of that name holds.

    Args:
        name: of the file.
        config: the run's configuration, for files in `CONFIGURED`: of the result, fields follow from the
            stage; of notes, from the method.
    """
    if name == RESULT and config is not None:
        return _Scored if isinstance(config, EvaluateRun) else _Trained
    made_by = config.made_by if name == NOTES and config is not None else None
    return CONTENTS.get(name, Content) if made_by is None else made_by.noted


def parsed(data: bytes, kind: type[BaseModel], path: Path) -> dict[str, Any]:
    """A JSON object with the fields that such a file, or a line of it, has.

    Raises:
        ArtifactError: naming the field that is wrong.
    """
    try:
        found = storage.strict_json(data)
        if not isinstance(found, dict):
            raise ValueError("this is not a JSON object")
        kind.model_validate(found)
    except ValueError as error:  # pydantic's ValidationError is one
        raise ArtifactError(
            f"not what such a file holds: {_first(error)}",
            where=str(path),
            fix=storage.RESTORE,
            code="A04",
        ) from None
    return found


def check_tasks(result: dict[str, Any], config: AnyRun, path: Path) -> None:
    """Refuse a result that lacks what tables ask of it: the scores, or the rows, of each of the run's tasks.

    Args:
        result: of the form that `content_of` says.
        config: the run's configuration.
        path: of the file, for messages.

    Raises:
        ArtifactError: naming the task.
    """
    other = _other_scores if isinstance(config, EvaluateRun) else _other_tasks
    if cause := other(result, config.tasks):
        raise ArtifactError(cause, where=str(path), fix=storage.RESTORE, code="A14")


def _other_scores(result: dict[str, Any], tasks: Sequence[TaskSpec]) -> str:
    """What an evaluation does not say of its tasks."""
    for task in tasks:
        found = result["scores"].get(task.name, {"metrics": {}, "written": None})
        scores = [found["metrics"]] if found["written"] is None else [found["metrics"], found["written"]]
        for metric in task.metrics:
            if any(metric not in one for one in scores):
                return f"the result has no {metric!r} of task {task.name!r}"
    return ""


def _other_tasks(result: dict[str, Any], tasks: Sequence[TaskSpec]) -> str:
    """What a training does not say of its tasks."""
    names = [task.name for task in tasks]
    if result["tasks"] != names:
        return f"the result is of the tasks {str(result['tasks'])[:120]}, and the run's are {names}"
    silent = [name for name in names if name not in result["rows"]]
    return f"the result says nothing of the rows of task {silent[0]!r}" if silent else ""


def _first(error: ValueError) -> str:
    """What is wrong, and in which field; of several faults the first."""
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, fault['loc']))[:120]}: {fault['msg']}"
