"""Published numbers beside an experiment's own, from a file that gives their sources. Loads without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from weft.config.base import Config, Name
from weft.config.files import load_config
from weft.errors import ConfigError, did_you_mean
from weft.experiments.config import Experiment
from weft.experiments.entries import DASH

OTHER = ("parameters", "average")  # columns that are no targets
Value = Annotated[float, Field(ge=-100)] | None


class PublishedTable(Config):
    """One published table."""

    source: str = Field(min_length=1, description="where it was printed")
    provenance: Literal["seen", "memory"] = Field(
        description="seen: read in the source; memory: remembered, and not confirmed"
    )
    base: str = Field(description="base model")
    columns: tuple[Name, ...] = Field(min_length=1, description="targets, parameters, average")
    of: tuple[Name, ...] = Field((), description="targets of the average; none: those of the columns")
    rows: dict[str, tuple[Value, ...]] = Field(min_length=1, description="method -> a number a column")

    @model_validator(mode="after")
    def _rows_fill_the_columns(self) -> "PublishedTable":
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"a column is named twice: {', '.join(self.columns)}")
        for label, values in self.rows.items():
            if len(values) != len(self.columns):
                raise ValueError(f"row {label!r} has {len(values)} numbers for {len(self.columns)} columns")
        return self

    @property
    def targets(self) -> frozenset[str]:
        """The targets that the table, or its average, is of."""
        return frozenset(self.of or (name for name in self.columns if name not in OTHER))


class PublishedFile(Config):
    """A file of published tables."""

    tables: dict[Name, PublishedTable] = Field(min_length=1)


@dataclass(frozen=True)
class PublishedRow:
    """What was published of one method on an experiment's targets.

    Attributes:
        label: of its row.
        scores: target -> score.
        averages: targets -> the average over them as printed.
        parameters: trained parameters per task.
    """

    label: str
    scores: dict[str, float]
    averages: dict[frozenset[str], float]
    parameters: float | None

    def numbers(self, experiment: Experiment) -> list[float | None]:
        """Scores on the experiment's targets, and its averages; none where nothing was published."""
        of = [*experiment.averages.values(), experiment.targets]
        averages = [self.averages.get(frozenset(names)) for names in of]
        return [*(self.scores.get(name) for name in experiment.targets), *averages]

    def cells(self, experiment: Experiment) -> list[str]:
        """The row under the table's heads: targets, averages, parameters, seconds."""
        shown = [DASH if value is None else f"{value:.1f}" for value in self.numbers(experiment)]
        return [*shown, DASH if self.parameters is None else f"{self.parameters:,.0f}", DASH]


def tables_of(experiment: Experiment) -> dict[str, PublishedTable]:
    """The published tables that an experiment names, or else those that have one of its targets.

    Raises:
        ConfigError: for a file that cannot be read or does not fit, and for a table that it lacks.
    """
    asked = experiment.paper
    if asked is None:
        return {}
    path = Path(experiment.folder) / asked.file
    known = load_config(path, PublishedFile).tables
    for name in asked.tables:
        if name not in known:
            fix = did_you_mean(name, known)
            raise ConfigError(f"there is no table {name!r}", where=f"{path} (tables)", fix=fix, code="C12")
    targets = set(experiment.targets)
    return {
        name: one
        for name, one in known.items()
        if name in asked.tables or (not asked.tables and one.targets & targets)
    }


def published(experiment: Experiment) -> list[PublishedRow]:
    """Rows of published numbers under the experiment's heads; one method of several tables has one row.

    Raises:
        ConfigError: as `tables_of`.
    """
    found: dict[str, PublishedRow] = {}
    for table in tables_of(experiment).values():
        for method, values in table.rows.items():
            label = f"paper: {method}" + " (from memory)" * (table.provenance == "memory")
            row = found.setdefault(label, PublishedRow(label, {}, {}, None))
            known = {
                name: value for name, value in zip(table.columns, values, strict=True) if value is not None
            }
            averages = {table.targets: known["average"]} if "average" in known else {}
            scores = {name: value for name, value in known.items() if name not in OTHER}
            found[label] = PublishedRow(
                label, row.scores | scores, row.averages | averages, known.get("parameters", row.parameters)
            )
    return [row for row in found.values() if any(one is not None for one in row.numbers(experiment))]


def said(experiment: Experiment) -> list[str]:
    """Where they come from, in sentences."""
    found = tables_of(experiment)
    if not found:
        return []
    sources: dict[tuple[str, str, str], list[str]] = {}
    for name, one in found.items():
        sources.setdefault((one.base, one.provenance, one.source), []).append(name)
    how = {"seen": "read in", "memory": "remembered, and not confirmed, from"}
    told = [
        f"{', '.join(names)} ({base}) {how[kind]} {source}" for (base, kind, source), names in sources.items()
    ]
    return [f"Rows 'paper: ...' were not measured here: {'; '.join(told)}."]
