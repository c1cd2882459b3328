"""The question by which a worker shows that it answers with the generation it was to open."""

from typing import Any

from weft.bank import Entry, Snapshot
from weft.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    NumericError,
    ResourceError,
    UnsupportedError,
    WeftError,
)
from weft.server.jobs import Answer, Asked, content

TRIED = 20  # tasks, of which one must be readable
KINDS = {
    one.exit_code: one
    for one in (UnsupportedError, ConfigError, DataError, ArtifactError, ResourceError, NumericError)
}


def question(snapshot: Snapshot) -> Asked | None:
    """A question to the first task that can be read; none of an empty bank.

    Raises:
        ArtifactError: if none of the first ones can be read.
    """
    fault = None
    for name in snapshot.names(limit=TRIED):
        try:
            return _asked(snapshot.find(name), snapshot.generation)
        except ArtifactError as error:
            fault = error
    if fault is not None:
        raise fault
    return None


def _asked(entry: Entry, generation: int) -> Asked:
    """Its text has words that the model surely knows: the task's own."""
    text = " ".join(entry.task.choices) or entry.task.source
    return Asked(entry.name, generation, entry.sha256, content(text=text, max_tokens=1), 0)


def check(asked: Asked, told: Answer | None) -> None:
    """See that what a worker answered is of the generation that it was to open.

    Raises:
        ArtifactError: saying what is wrong.
    """
    if told is None or not asked.answered_by(told):
        cause = f"the worker's first answer is not of task {asked.task!r} in generation {asked.generation}"
        raise ArtifactError(cause, fix="see what weft bank verify says", code="S21")
    if told["error"]:
        raise ArtifactError(f"task {asked.task!r} does not answer: {told['error']}", code="S21")


def error_of(told: dict[str, Any]) -> WeftError:
    """An error that a worker tells of, as it was there."""
    told = told.get("faults", [told])[0]
    kind = KINDS.get(told["exit"], ArtifactError)
    return kind(told["cause"], where=told["where"], fix=told["fix"], code=told["code"])
