"""An experiment: the whole story in one file."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from weft.config.base import Allowance, Config, HoldoutDraw, Name, RelationError, Split, check_shots
from weft.config.decoding import GREEDY, Decoding
from weft.config.files import overridden
from weft.config.model import BaseConfig
from weft.config.task import Answers
from weft.config.training import (
    DistillConfig,
    FactorConfig,
    LimitsConfig,
    OptimConfig,
    PromptConfig,
    SamplingConfig,
    check_rates,
)
from weft.errors import WeftError
from weft.methods import AnyMethod
from weft.runs.config import check_optim

OWN = ("prompt", "sources", "teachers", "source")  # parts of an experiment that a row may have for itself


class TeacherStage(Config):
    """Settings of all teachers of an experiment."""

    optim: OptimConfig


class SourceStage(Config):
    """Settings of the source stage of an experiment."""

    factors: FactorConfig = FactorConfig()
    distill: DistillConfig = DistillConfig()
    sampling: SamplingConfig = SamplingConfig()
    init: Literal["vocabulary", "text", "labels", "teachers"] | None = Field(
        None, description="start of P*; none: as the teachers start"
    )
    optim: OptimConfig


class Entry(Config):
    """One row of the result table: a method with its settings."""

    label: str = Field(min_length=1)
    method: AnyMethod
    optim: OptimConfig | None = Field(None, description="needed by every method that trains")
    shots: int | None = Field(None, gt=0, description="instead of the experiment's shots")
    shots_total: int | None = Field(None, gt=0, description="instead of the experiment's shots")
    group: bool = Field(
        False, description="train the targets of each of the groups in one run; with mpt they share P*"
    )

    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="dotted key -> value: what the row has other than the experiment, of prompt, sources, "
        "teachers and source; for ablations",
    )

    @field_validator("settings")
    @classmethod
    def _settings_are_of_sources(cls, settings: dict[str, Any]) -> dict[str, Any]:
        strange = [key for key in settings if key.split(".")[0] not in OWN]
        if strange:
            raise ValueError(f"a row has no {strange[0]!r} of its own; it may have {', '.join(OWN)}")
        return settings

    @model_validator(mode="after")
    def _training_has_settings(self) -> "Entry":
        check_shots(self.shots, self.shots_total)
        check_optim(self.method, self.optim)
        return self


class Paper(Config):
    """Published numbers that the table shows."""

    file: str = Field(description="a YAML file of published tables, beside the experiment's own file")
    tables: tuple[Name, ...] = Field((), description="which; none: all that have one of the targets")


class Experiment(Config):
    """The whole story in one file: teachers, source, adaptation, scores, table."""

    name: Name
    title: str = ""
    base: BaseConfig = BaseConfig()
    prompt: PromptConfig = PromptConfig()
    limits: LimitsConfig = LimitsConfig()
    tasks: tuple[str, ...] = Field(
        description="task files, or folders of them, beside this file; builtin: all tasks that weft knows"
    )
    answers: Answers | None = Field(
        None, description="closed answers of all tasks as words or class numbers; none: as each task says"
    )
    holdout_draw: HoldoutDraw | None = Field(
        None, description="which rows all tasks hold out; none: as each task says"
    )
    sources: tuple[Name, ...] = Field(
        (),
        description="two or more; none: a row that needs a source stage starts from the one that comes "
        "with weft for a known base model",
    )
    targets: tuple[Name, ...] = Field(min_length=1)
    further: dict[Name, tuple[str, ...]] = Field(
        default_factory=dict,
        description="target -> further metrics of its task, which small tables show beside the first one",
    )
    averages: dict[Name, tuple[Name, ...]] = Field(
        default_factory=dict,
        description="name -> targets whose average stands in the table, beside that of all; for benchmarks",
    )
    groups: dict[Name, tuple[Name, ...]] = Field(
        default_factory=dict,
        description="name -> targets that rows with group: true train in one run; targets in none are "
        "trained alone; no groups: all targets are one",
    )
    shots: int | None = Field(None, gt=0, description="training rows per answer of a target; none: all")
    shots_total: int | None = Field(
        None, gt=0, description="training rows of a target in all, as many of one answer as of another"
    )
    steps: dict[Name, Annotated[int, Field(gt=0)]] = Field(
        default_factory=dict,
        description="target -> optimiser steps of its training in every row, instead of optim.steps; of a "
        "group, those of its targets together",
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0, 1, 2), min_length=1)
    vary_sources: bool = Field(
        False,
        description="each seed of a target starts from a source stage and teachers of that seed; false: all "
        "from one, trained once",
    )
    teachers: TeacherStage | None = Field(None, description="needed with sources")
    source: SourceStage | None = Field(None, description="needed with sources")
    rows: tuple[Entry, ...] = Field(min_length=1, description="the methods compared, in table order")
    reference: str | None = Field(
        None, description="label of the row that every other is compared with; none: the first row of mpt"
    )
    paper: Paper | None = Field(
        None, description="published numbers beside ours, in rows that say that they were not measured here"
    )
    split: Split = Field("test", description="rows that are scored; dev for choosing settings")
    eval_batch: int = Field(64, gt=0)
    generate: bool = Field(True, description="also score freely written answers of closed tasks")
    decoding: Decoding = GREEDY
    allow: tuple[Allowance, ...] = Field(
        (), description="faults of the data that do not stop the experiment; its table names them"
    )
    folder: str = Field("", description="where `tasks` lie; set by the loader")

    @model_validator(mode="after")
    def _names_differ(self) -> "Experiment":
        for what, names in (
            ("source", self.sources),
            ("target", self.targets),
            ("row", tuple(entry.label for entry in self.rows)),
            ("seed", self.seeds),
        ):
            if len(set(names)) < len(names):
                twice = sorted({str(name) for name in names if names.count(name) > 1})
                raise RelationError(f"a {what} is named twice: {', '.join(twice)}", "C10")
        return self

    @field_validator("sources")
    @classmethod
    def _sources_are_two(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if len(sources) == 1:
            raise RelationError("a shared prompt needs two or more sources, or none", "C10")
        return sources

    @model_validator(mode="after")
    def _sources_have_stages(self) -> "Experiment":
        missing = [name for name in ("teachers", "source") if getattr(self, name) is None]
        if self.sources and missing:
            raise RelationError(f"the sources need {' and '.join(missing)}", "C02")
        return self

    @model_validator(mode="after")
    def _sources_can_vary(self) -> "Experiment":
        if self.vary_sources and not self.sources:
            raise RelationError("vary_sources trains source stages, and there are no sources", "C02")
        return self

    @model_validator(mode="after")
    def _rows_settings_fit(self) -> "Experiment":
        for entry in self.rows:
            try:
                self.of(entry)
            except ValidationError as error:
                fault = error.errors()[0]
                key = ".".join(map(str, fault["loc"])) or "settings"
                said = str(fault["msg"]).removeprefix("Value error, ")
                raise ValueError(f"settings of row {entry.label!r}: {key}: {said}") from None
            except WeftError as error:
                raise ValueError(f"settings of row {entry.label!r}: {error.cause}") from None
        return self

    @model_validator(mode="after")
    def _reference_is_a_row(self) -> "Experiment":
        labels = [entry.label for entry in self.rows]
        if self.reference is not None and self.reference not in labels:
            raise RelationError(f"reference: no row is called {self.reference!r}, but {labels}", "C12")
        return self

    @model_validator(mode="after")
    def _groups_are_of_targets(self) -> "Experiment":
        for key, sets in (("group", self.groups), ("average", self.averages)):
            for name, targets in sets.items():
                strange = [one for one in targets if one not in self.targets]
                if strange:
                    raise RelationError(f"{strange[0]!r} in {key} {name!r} is no target", "C12")
                if not targets:
                    raise RelationError(f"{key} {name!r} has no target", "C10")
                if len(set(targets)) < len(targets):
                    raise RelationError(f"{key} {name!r} names a target twice", "C10")
        grouped = [name for names in self.groups.values() for name in names]
        twice = sorted({name for name in grouped if grouped.count(name) > 1})
        if twice:
            raise RelationError(f"a target is in two groups: {', '.join(twice)}", "C10")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "Experiment":
        check_shots(self.shots, self.shots_total)
        if self.teachers:
            check_rates(self.teachers.optim, {"prompt"})
        if self.source:
            self._source_fits(self.source)
        for entry in (one for one in self.rows if not one.settings):
            starts, start = entry.method.starts, getattr(entry.method, "start", None)
            if self.sources and starts is not None and start not in {*self.sources, *starts}:
                raise RelationError(
                    f"row {entry.label!r} starts from {start!r}, which is none of "
                    f"{sorted({*self.sources, *starts})}",
                    "C12",
                )
        return self

    @model_validator(mode="after")
    def _named_tasks_are_there(self) -> "Experiment":
        self.limits.check((*self.sources, *self.targets))
        for key, names in (("steps", self.steps), ("further", self.further)):
            strange = [name for name in names if name not in self.targets]
            if strange:
                raise RelationError(f"{strange[0]!r} in {key} is no target", "C12")
        return self

    @model_validator(mode="after")
    def _groups_have_steps(self) -> "Experiment":
        grouped = any(entry.group for entry in self.rows)
        for names in (self.groups.values() or [self.targets]) if grouped else ():
            without = [name for name in names if name not in self.steps]
            if 0 < len(without) < len(names):
                cause = "trains in a group whose other targets have steps: name all of a group, or none"
                raise RelationError(f"{without[0]!r} {cause}", "C17")
        return self

    def _source_fits(self, stage: SourceStage) -> None:
        check_rates(stage.optim, stage.factors.groups)
        if stage.factors.rank > self.prompt.length:
            raise RelationError(
                f"source.factors.rank ({stage.factors.rank}) exceeds prompt.length ({self.prompt.length})",
                "C06",
            )
        kappa = stage.sampling.kappa
        if kappa is not None and kappa > len(self.sources) and not stage.sampling.replacement:
            raise RelationError(
                f"source.sampling.kappa ({kappa}) exceeds the number of sources ({len(self.sources)})", "C09"
            )
        if stage.init == "text" and not self.prompt.init_text:
            raise ValueError("source.init: text needs prompt.init_text")

    def optim_of(self, entry: Entry, targets: Sequence[str]) -> OptimConfig | None:
        """How a row of the table trains some targets in one run, with their own steps if they have any."""
        steps = sum(self.steps.get(name, 0) for name in targets)
        return entry.optim.lasting(steps) if entry.optim and steps else entry.optim

    def of(self, entry: Entry) -> "Experiment":
        """The experiment with the settings that a row has for itself.

        Raises:
            ValidationError: if they do not fit.
            ConfigError: for a key whose place is not there.
        """
        if not entry.settings:
            return self
        row = entry.model_copy(update={"settings": {}})
        values = self.model_copy(update={"rows": (row,), "reference": None}).model_dump(mode="json")
        return Experiment.model_validate(overridden(values, entry.settings))

    @property
    def compared_with(self) -> str | None:
        """Label of the row that every other is compared with; none without MPT where none is named."""
        ours = (entry.label for entry in self.rows if entry.method.name == "mpt")
        return self.reference or next(ours, None)

    def shots_of(self, entry: Entry) -> tuple[int | None, int | None]:
        """Rows per answer and rows in all, of which one at most is set, that a row of the table trains on."""
        own = entry if entry.shots or entry.shots_total else self
        return own.shots, own.shots_total
