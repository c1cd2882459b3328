"""What a bank says of one task beside its numbers. Loads without torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import Field

from weft.bank.forms import Kind
from weft.bank.lines import Line
from weft.config.base import Config
from weft.config.task import TaskSpec
from weft.errors import UnsupportedError
from weft.methods.method import Method

PLACES = ("files", "in_data_root", "holdout", "holdout_draw", "train_rows", "hub", "folder")


class Definition(Config):
    """What tasks of one text format have in common; kept once, with every default written out.

    Attributes:
        task: the text format, answer words and metrics, without a name and without places of rows.
        source_tokens: longest text, in tokens.
        method: the settings of the method that answers, of readers; else none.
        encoders: SHA-256 over the files of every encoder that it reads with, by name.
        choices: what last digits depend on and the run noted: number format, attention, products.
    """

    task: TaskSpec
    source_tokens: int = Field(gt=0)
    method: dict[str, Any] | None = None
    encoders: dict[str, str] = Field(default_factory=dict)
    choices: dict[str, str] = Field(default_factory=dict)

    @property
    def method_of(self) -> Method | None:
        """The method that answers.

        Raises:
            UnsupportedError: if it is not installed here, or is of another version.
        """
        from weft.methods import known

        if self.method is None:
            return None
        name = str(self.method.get("name"))
        try:
            return known()[name].model_validate(self.method)
        except (KeyError, ValueError):
            raise UnsupportedError(
                f"the method {name[:40]!r} is not here, or not with these settings",
                where="method",
                fix="install the package or the version of weft that trained the task",
            ) from None

    @property
    def text(self) -> str:
        """As JSON; the order of labels is kept, since answers are compared in it."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))


def without_places(task: TaskSpec) -> TaskSpec:
    """A task as answers need it: where its rows lie, and how they were parted, is left out."""
    kept = {key: value for key, value in task.model_dump().items() if key not in PLACES}
    return TaskSpec.model_validate({**kept, "name": "task"})


@lru_cache(1024)
def definition_of(text: str) -> Definition:
    """The definition that a JSON text holds; read once.

    Raises:
        ValueError: if it holds none.
    """
    return Definition.model_validate_json(text)


@dataclass(frozen=True)
class Entry:
    """One task of a generation.

    Attributes:
        name: of the task in the bank.
        kind: factors of a shared prompt, a plain prompt, or a method's readers.
        group: of the tasks that share arrays with it; empty: it shares none.
        since: the generation that added it.
        sha256: of its numbers as they lie in the bank.
        task: text format and answers, as the configuration of its run has them, under its name in the bank.
        source_tokens: its text limit.
        prompt_length: tokens of its prompt; 0 for readers.
        metrics: what an evaluation found, if one was added.
        run: id of the run that it comes from.
        method: of readers, what answers.
        encoders: SHA-256 over the files of every encoder that it reads with, by name.
        choices: number format, attention and products of its run, which last digits depend on.
        line: where it lies.
    """

    name: str
    kind: Kind
    group: str
    since: int
    sha256: str
    task: TaskSpec
    source_tokens: int
    prompt_length: int
    metrics: Mapping[str, float | None]
    run: str
    method: Method | None = None
    encoders: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    line: Line = field(repr=False, kw_only=True)

    @classmethod
    def of(cls, line: Line, kind: Kind, prompt_length: int) -> "Entry":
        """What a line of the index says.

        Raises:
            ValueError: if it says something else.
        """
        found = definition_of(line.definition)
        task = found.task.model_copy(update={"name": line.name})
        return cls(
            line.name,
            kind,
            line.group,
            line.since,
            line.sha256.hex(),
            task,
            found.source_tokens,
            prompt_length,
            json.loads(line.metrics),
            line.run,
            _method(line.definition),
            found.encoders,
            found.choices,
            line=line,
        )


@lru_cache(1024)
def _method(text: str) -> Method | None:
    """The method of a definition, if it says one; read once."""
    return definition_of(text).method_of
