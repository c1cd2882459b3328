"""One run, told to one tracker from what stands in its folder: settings, every logged step, what came out."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from weft import storage
from weft.runs import Run
from weft.runs.config import AnyRun, EvaluateRun
from weft.runs.folder import LOG
from weft.tracking.trackers import NAMES, Settings, Trackers, opened

LOOK = 0.5  # seconds between looks at a log, at least
SHARE = 20  # a look that took a second is followed by twenty of rest
NOTE = "told.json"
Line = dict[str, int | float]
_OPENING = {name: Lock() for name in NAMES}  # clients make a project where there is none, one at a time


@dataclass
class Told:
    """How far a tracker was told of a run.

    Attributes:
        step: the last step; a tracker that fails in the middle of one is not told of it again.
        run: the tracker's own name of the run; none: it does not know it yet.
        done: whether all of it was told.
    """

    step: int = 0
    run: str | None = None
    done: bool = False

    def write(self, path: Path) -> None:
        """Note it."""
        data = json.dumps(asdict(self)).encode()
        storage.write_bytes(path, data, sync=False)  # every step; read again after a crash of this process


@dataclass(frozen=True)
class Telling:
    """One run, told to one tracker.

    Args:
        run: its folder, finished or not.
        name: the tracker.
        trackers: its project, and where notes lie.
    """

    run: Run
    name: str
    trackers: Trackers

    def tell(self, over: Callable[[], bool] = lambda: True) -> int | None:
        """Tell what was not told yet, and go on until the run is finished.

        Args:
            over: asked before each look whether it is the last one.

        Returns:
            How many steps were told; none, if all was told before.

        Raises:
            ResourceError: if another process tells it, or the disk refuses the note.
            ArtifactError: if the run's folder is damaged.
            Exception: whatever the tracker's client raises.
        """
        folder = self.trackers.folder(self.name, self.run.id)
        with storage.locked(folder):
            note = _noted(folder / NOTE)
            if note.done:
                return None
            before, values = note.step, settings(self.run.config())
            with _OPENING[self.name]:
                tracker, note.run = opened(self.name, self.trackers.project, folder, values, note.run)
            note.write(folder / NOTE)
            try:
                for step, line in self._news(note, over):
                    note.step = step
                    note.write(folder / NOTE)  # first: better a step that is missing than one that is twice
                    tracker.log(line, step=step)
            finally:
                tracker.finish()
            return note.step - before

    def _news(self, note: Told, over: Callable[[], bool]) -> Iterator[tuple[int, Line]]:
        """What is to be told, as it comes; at last what came out of the run, if it was finished."""
        last = False
        while not last:
            start = time.monotonic()
            last = over()
            done = self.run.done
            for line in later(self.run, note.step):
                yield int(line["step"]), {name: value for name, value in line.items() if name != "step"}
            if done:
                note.done = last = True
                yield note.step, outcome(self.run)
            if not last:
                time.sleep(max(LOOK, SHARE * (time.monotonic() - start)))


def _noted(path: Path) -> Told:
    return Told(**storage.read_json(path)) if path.is_file() else Told()


def later(run: Run, step: int) -> list[Line]:
    """The lines of a run's log for later steps, in order; a torn last line is left for the next look.

    The log is read from its end: a run that goes on from a checkpoint has cut it, and computes steps again.

    Raises:
        ArtifactError: if a finished run's log was changed.
    """
    if run.done:
        return [line for line in run.lines(LOG) if line["step"] > step]
    try:
        data = storage.read_plain(run.path / LOG, storage.LARGEST_FILE)
    except FileNotFoundError:
        return []
    found: list[Line] = []
    for text in reversed(data.split(b"\n")[:-1]):
        line: Line = json.loads(text)
        if line["step"] <= step:
            break
        found.append(line)
    return found[::-1]


def settings(config: AnyRun) -> Settings:
    """A run's configuration as one level, as trackers want it: `optim.lr.prompt`.

    Of its tasks the names; what is not set is left out; lists are JSON.
    """
    values = config.model_dump(mode="json")
    values["tasks"] = ", ".join(task.name for task in config.tasks)
    return dict(_flat("", values))


def _flat(place: str, value: Any) -> Iterator[tuple[str, str | int | float | bool]]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _flat(f"{place}.{name}" if place else name, one)
    elif isinstance(value, bool | int | float):
        yield place, value
    elif value:
        yield place, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def outcome(run: Run) -> Line:
    """What came out of a finished run: `<split>/<task>/<metric>` of an evaluation, in percent; of a training
    its parameters, its time in seconds, and the best score on dev rows.

    Raises:
        ArtifactError: if its result was changed.
    """
    config, result = run.config(), run.result()
    if not isinstance(config, EvaluateRun):
        names = ("dev", "best_step", "steps", "trained_parameters", "parameters_per_task")
        found = {f"result/{name}": result.get(name) for name in names} | {"result/seconds": run.seconds()}
    else:
        found = {
            f"{config.split}/{task}/{kind}{metric}": value
            for task, scores in result["scores"].items()
            for kind, values in (("", scores["metrics"]), ("written/", scores["written"] or {}))
            for metric, value in values.items()
        }
    return {name: value for name, value in found.items() if value is not None}
