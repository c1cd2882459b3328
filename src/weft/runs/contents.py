"""What the JSON files of a run folder hold; a field of another kind is refused. Loads without torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from weft import storage
from weft.config.base import Content
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
    products: Literal["library", "packed"] = "library"
    position: Literal["prefix", "suffix"] = "prefix"
    threads: Annotated[Count, Field(gt=0)] = 1
    micro_batch: Annotated[Count, Field(gt=0)] = 1
    together: list[str] = Field(default_factory=list)
    seen_in_pretraining: list[str] = Field(default_factory=list)


class _Rows(Content):
    read: Count = 0
    train: Count = 0
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


def _first(error: ValueError) -> str:
    """What is wrong, and in which field; of several faults the first."""
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, fault['loc']))[:120]}: {fault['msg']}"
