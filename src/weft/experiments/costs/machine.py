"""What a machine was measured to do with base models, and the file that keeps it. Loads without torch."""

import os
import platform
import socket
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from weft import storage
from weft.config.base import Content
from weft.errors import ArtifactError
from weft.models.bundled import cache_folder

Kind = Literal["step", "taught", "read", "write"]
Own = Literal["full", "added"]  # models that runs have for themselves: all weights trained, or some added
Point = tuple[float, float]  # operations of a pass, and its seconds
FOLDER, MEASURE = "machines", "run weft plan on that machine, and take the file that it names"


class Curve(Content):
    """Seconds of a pass by its operations.

    Attributes:
        points: as measured, fewer operations first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    points: tuple[Point, ...] = Field(min_length=2)

    def seconds(self, operations: float) -> float:
        """Between measured points as on a line; beyond the last one at its rate.

        Before the first one, on the line through the first two: what a pass of nothing would take is the
        model's own overhead.
        """
        x, y = self._sides
        if operations > x[-1]:
            return float(y[-1] * operations / x[-1])
        return float(np.interp(operations, x, y))

    @cached_property
    def _sides(self) -> tuple[list[float], list[float]]:
        x, seconds = zip(*sorted(self.points), strict=True)
        y = np.maximum.accumulate(seconds).tolist()  # more work takes no less time, but for noise
        slope = (y[1] - y[0]) / (x[1] - x[0])
        return [0.0, *x], [max(0.0, y[0] - slope * x[0]), *y]


class Times(Content):
    """Of a model in one number format, what passes take, and runs beside them.

    Attributes:
        step: of a step that trains, of a shape that was met before.
        taught: of one that teachers' targets are beside, which are there; none where that was not measured.
        read: of a pass without gradients.
        write: of one more token of some rows.
        fresh_step: seconds that the first step of a shape takes beyond that: its products are set up.
        fresh_read: likewise of a pass without gradients.
        train: seconds of a training run beside its steps.
        evaluate: seconds of an evaluation beside its passes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: Curve
    taught: Curve | None = None
    read: Curve
    write: Curve
    fresh_step: float = Field(ge=0)
    fresh_read: float = Field(ge=0)
    train: float = Field(ge=0)
    evaluate: float = Field(ge=0)

    def seconds(self, kind: Kind, operations: float) -> float:
        """Of a pass of a shape that was met before."""
        curves = {"step": self.step, "taught": self.taught, "read": self.read, "write": self.write}
        return (curves[kind] or self.step).seconds(operations)

    def fresh(self, kind: Kind) -> float:
        """What the first pass of a shape takes beyond that; of written tokens that was not measured."""
        return {"step": self.fresh_step, "taught": self.fresh_step, "read": self.fresh_read}.get(kind, 0.0)


class Measured(Content):
    """What was measured of one base model.

    Attributes:
        model: its name.
        choices: number format, attention and products, and where prompts stand.
        load: seconds until its weights are there.
        frozen: of the model that runs share, under prompts.
        own: of models that runs have for themselves, which each of them loads; as far as they were measured.
        kept: bytes that a step keeps of a token for its backward pass.
        files: bytes of a run's files beside its tensors and answers.
        line: bytes of an answer in the run's files, beside its text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    choices: dict[str, str]
    load: float = Field(ge=0)
    frozen: Times
    own: dict[Own, Times] = Field(default_factory=dict)
    kept: float = Field(ge=0)
    files: float = Field(ge=0)
    line: float = Field(ge=0)

    def times(self, own: Own | None) -> Times:
        """Of the frozen model, or of one that a run has for itself; if that was not measured, as frozen."""
        if own is None or own in self.own:
            return self.frozen if own is None else self.own[own]
        beside = {"train": self.frozen.train + self.load, "evaluate": self.frozen.evaluate + self.load}
        return self.frozen.model_copy(update=beside)


class Machine(Content):
    """A machine, by measurement.

    Attributes:
        format: of this file.
        host: its name.
        processor: as the system calls it.
        device: what models run on.
        threads: of a worker.
        start: seconds until a process can load a model.
        part_tokens: of a step, that fill the device.
        read_tokens: of a read of texts that are kept.
        bases: base models, by hash and place of the prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[3] = 3
    host: str
    processor: str
    device: str
    threads: int = Field(gt=0)
    start: float = Field(ge=0)
    part_tokens: int = Field(gt=0)
    read_tokens: int = Field(gt=0)
    bases: dict[str, Measured] = Field(default_factory=dict)

    def base(self, key: str, name: str, where: Path) -> Measured:
        """What was measured of a base model.

        Raises:
            ArtifactError: if it was not.
        """
        if key not in self.bases:
            raise ArtifactError(
                f"nothing was measured of the base model {name!r} on {self.host}",
                where=str(where),
                fix=MEASURE,
            )
        return self.bases[key]

    def describe(self) -> str:
        """One line for people."""
        return f"{self.host}, {self.processor}, {self.device}, {self.threads} threads a worker"


def place(device: str, threads: int) -> Path:
    """Where this machine's file is kept: weft's cache folder."""
    return cache_folder() / FOLDER / f"{socket.gethostname()}-{device}-{threads}.json"


def read(path: Path) -> Machine:
    """A machine from its file.

    Raises:
        ArtifactError: if there is none, or it is not such a file.
    """
    try:
        return Machine.model_validate_json(storage.read_plain(path, storage.LARGEST_FILE))
    except FileNotFoundError:
        raise ArtifactError("there is no such file", where=str(path), fix=MEASURE) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(
            f"the file holds no measurement of a machine ({place}: {first['msg']})",
            where=str(path),
            fix=MEASURE,
        ) from None


def write(machine: Machine, path: Path) -> None:
    """Keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_json(path, machine.model_dump(mode="json"))


def processor() -> str:
    """What the system calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()} x {os.cpu_count()}"


def key_of(base_hash: str, position: str) -> str:
    """Names a base model in a machine's file."""
    return f"{base_hash[:16]}-{position}"


def points(measured: Sequence[Point]) -> Curve:
    """A curve through some points."""
    return Curve(points=tuple(measured))
