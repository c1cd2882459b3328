"""What a stage has prepared, trained in its run folder: alone, or several in one batch."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from weft import runs, storage
from weft.config.training import OptimConfig
from weft.data.batch import Batch, Tokens, collate
from weft.data.encoding import EncodedTask
from weft.data.sampling import WINDOW, Batches, ReadAhead
from weft.data.selection import subset
from weft.errors import NumericError, ResourceError, WeftError
from weft.evaluation import answering
from weft.losses.objective import Loss
from weft.losses.targets import TeacherTargets
from weft.losses.terms import lm_loss_sum
from weft.methods.method import Starts
from weft.models import free_bytes, rows_that_fit
from weft.models.tuned import TunedModel
from weft.parallel.group import ALONE, Group
from weft.runs import Run
from weft.runs.config import AdaptRun, SourceRun, TeacherRun
from weft.runs.folder import LOG
from weft.runs.workspace import Workspace
from weft.tasks import Example, Task
from weft.training.checkpoints import Keeper, Pace
from weft.training.course import Checkpoint, Course, Hooks, Progress
from weft.training.loop import fit_together

TrainedRun = TeacherRun | SourceRun | AdaptRun
STATE_BYTES = 12  # of a trained number, beside its value: a gradient and two moments, in float32
LOWEST = -100.0  # no metric is lower, so a state with an undefined score is never the best
LONE = "R17"  # too little memory is a run's own fault; other faults of the machine would stop every run


@dataclass(frozen=True)
class Prepared:
    """What a stage trains.

    Attributes:
        config: of the run.
        model: what is trained.
        train: the rows of each of its tasks.
        batches: the batch of any step.
        loss: what is minimised.
        start: where each task's prompt started.
        targets: what the teachers say of the rows, made ahead; none where nothing is distilled.
        window: for how many steps texts are read, and targets made, at once.
    """

    config: TrainedRun
    model: TunedModel
    train: list[EncodedTask]
    batches: Batches
    loss: Loss
    start: Starts = field(default_factory=dict)
    targets: TeacherTargets | None = None
    window: int = WINDOW

    @property
    def optim(self) -> OptimConfig:
        """The run's settings of training."""
        assert self.config.optim is not None
        return self.config.optim


@dataclass(frozen=True)
class _Place:
    """A run in training: what it is, its course, its folder, and what holds the folder."""

    prepared: Prepared
    course: Course
    out: Run
    keeper: Keeper
    held: ExitStack


def train(prepared: Sequence[Prepared], workspace: Workspace) -> Iterator[tuple[str, Run | WeftError]]:
    """Train runs, a step of all in one batch; each is kept and sealed as soon as it is over.

    Runs that were begun go on from the newest step that all of them have kept.

    Yields:
        Every run's id, and the finished run or what it failed of.

    Raises:
        ResourceError: at once, for all that are not finished: a full disk stops every run.
        Stopped: if the process was asked to end.
    """
    with ExitStack() as every:
        places: list[_Place] = []
        names = [workspace.run_id(one.config) for one in prepared]
        for name, one in zip(names, prepared, strict=True):
            try:
                places.append(_place(one, names, workspace, every))
            except WeftError as error:
                yield name, spared(error, workspace.group)
        if not places:
            return
        _resume(places, workspace.group)
        pace = Pace(workspace.save_seconds, workspace.stop, workspace.group)
        with workspace.stop.after_step(), enough_memory(places[0].out):
            for course in fit_together([place.course for place in places], pace, workspace.group):
                place = next(one for one in places if one.course is course)
                yield place.out.id, _finish(place, workspace)


def _place(prepared: Prepared, names: Sequence[str], workspace: Workspace, every: ExitStack) -> _Place:
    """Open a run's folder, and a course that logs and saves there; where that fails, let the folder go."""
    config, model, group = prepared.config, prepared.model, workspace.group
    with ExitStack() as held:
        out = group.every(lambda: held.enter_context(workspace.open(config, names)))
        keeper = Keeper(out, workspace.progress.warn)
        validate = _validator(config, model, workspace) if prepared.optim.eval_every else None
        teach = prepared.targets.prepare if prepared.targets is not None else None
        window = prepared.window
        ahead = ReadAhead(
            prepared.batches, model.prepare, prepared.optim.steps, window, teach, group.rank, group.size
        )
        hooks = _hooks(prepared, workspace, out, keeper) if group.leads else Hooks()
        with enough_memory(out):
            optim = rows_in_memory(prepared, out, group)
        course = Course(model, ahead, prepared.loss, optim, validate, hooks, config.seed)
        return _Place(prepared, course, out, keeper, every.enter_context(held.pop_all()))


def rows_in_memory(prepared: Prepared, out: Run, group: Group = ALONE) -> OptimConfig:
    """A run's settings of training, with as many rows in memory at once as there is room for.

    As configured; else as the run's folder says, since last digits depend on it; else measured on the
    longest rows.

    Args:
        prepared: what is trained, as it is before the first step.
        out: the run's folder, which notes what was measured.
        group: the processes of this training, of which each has so many rows in memory.
    """
    model, given = prepared.model, prepared.optim
    if given.micro_batch is not None or prepared.config.base.deterministic:
        return given
    noted = group.led(lambda: runs.noted(out.path))
    if "micro_batch" not in noted:
        device = model.backbone.device
        share = group.machine if device.type == "cpu" else 1  # of the machine's memory; a GPU is one's own
        room = free_bytes(device) // share - STATE_BYTES * model.trained_parameters
        longest = partial(_longest_loss, model, prepared.train)
        noted["micro_batch"] = group.agree(rows_that_fit(longest, given.batch_size, room))
        if group.leads:
            out.write_json("env.json", noted)
    return given.model_copy(update={"micro_batch": int(noted["micro_batch"])})


def _longest_loss(model: TunedModel, train: Sequence[EncodedTask], rows: int) -> Tensor:
    """The loss of a run's longest row, so many times over."""
    task = max(range(len(train)), key=lambda k: int(train[k].lengths.max()))
    row = train[task].rows[int(train[task].lengths.argmax())]
    batch = collate([row] * rows, [task] * rows).to(model.backbone.device)
    with torch.random.fork_rng():
        return lm_loss_sum(model(batch).logits, batch.labels)


def _resume(places: Sequence[_Place], group: Group) -> None:
    """Go on from where an earlier process stopped, or begin with the same first values in every process."""
    found = group.led(lambda: _found(places))
    for place, checkpoint in zip(places, found, strict=True):
        if checkpoint is not None:
            place.course.resume(checkpoint)
        else:
            group.copy_(place.course.parameters)


def _found(places: Sequence[_Place]) -> list[Checkpoint | None]:
    """The checkpoint of each run to go on from; where there is none, its log is begun."""
    several = len(places) > 1
    common = set.intersection(*(place.keeper.steps() for place in places)) if several else None
    found = [place.keeper.latest(common) for place in places]
    for place, checkpoint in zip(places, found, strict=True):
        if checkpoint is None:
            place.out.write(LOG, "")
        place.out.own(LOG)
    return found


def _finish(place: _Place, workspace: Workspace) -> Run | WeftError:
    """Keep what was trained, and seal the run; or let its folder go as it is."""
    try:
        done = place.course.finish()
        idle = not changes_answers(place.prepared.model, place.prepared.batches(0))
        workspace.group.led(lambda: _keep(place, done, workspace, idle=idle))
    except WeftError as error:
        spared(error, workspace.group)
        place.held.__exit__(type(error), error, error.__traceback__)
        return error
    return place.out


def spared(error: WeftError, group: Group = ALONE) -> WeftError:
    """A fault that concerns one run only, as an outcome; one that would stop every run is raised.

    Raises:
        ResourceError: a full disk, a folder in use.
        WeftError: what only one of several processes met; the others would wait for it.
    """
    stops_all = isinstance(error, ResourceError) and error.code != LONE
    if stops_all or (group.size > 1 and not (error.shared or isinstance(error, NumericError))):
        raise error
    return error


@contextmanager
def enough_memory(out: Run) -> Iterator[None]:
    """Say what to do where memory is too small (R17).

    Raises:
        ResourceError: instead of what torch or Python raise then.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        small = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not small:
            raise
        raise ResourceError(
            "there is not enough memory for a step",
            where=str(out.path),
            fix="set optim.micro_batch: the step stays the same; or lower base.text_cache_mb",
            code=LONE,
        ) from None


def _keep(place: _Place, done: Progress, workspace: Workspace, *, idle: bool) -> None:
    """Write what was trained, and what is to be said of it, and seal the run."""
    prepared, out = place.prepared, place.out
    model, config = prepared.model, prepared.config
    if idle:
        workspace.progress.warn(f"{out.id}: the trained prompt changes no logit")
    out.save_tensors(model.tensors())
    rows = {
        known.name: {**known.accounting("train"), "train": len(task), "cut": task.cut}
        for task, known in zip(prepared.train, workspace.tasks(config), strict=True)
    }
    out.write_json("result.json", {**_summary(model, done), "rows": rows, "start": prepared.start})
    storage.flush_log(out.path / LOG)
    out.write_json("timing.json", {"seconds": done.seconds})
    place.held.close()


def _summary(model: TunedModel, done: Progress) -> dict[str, object]:
    """What a training run reports of itself."""
    return {
        "tasks": list(model.tasks),
        "trained_parameters": model.trained_parameters,
        "parameters_per_task": model.trained_parameters / len(model.tasks),
        "steps": done.step,
        "best_step": done.best_step,
        "dev": done.best,
        "dev_scores": done.scores,
    }


def _hooks(prepared: Prepared, workspace: Workspace, out: Run, keeper: Keeper) -> Hooks:
    """Log every step to the run's folder, show it, and save now and then."""
    log, steps = out.path / LOG, prepared.optim.steps

    def on_step(line: dict[str, int | float]) -> None:
        storage.append_line(log, json.dumps(line))
        dev = f" dev {line['dev']:.1f}" if "dev" in line else ""
        note = f"step {line['step']:.0f}/{steps} loss {line['loss']:.3f}{dev}"
        workspace.progress.step(line["step"] / steps, note)

    return Hooks(log=on_step, warn=workspace.progress.warn, save=keeper.save)


def _validator(config: TrainedRun, model: TunedModel, workspace: Workspace) -> Callable[[], float]:
    """Mean over the run's tasks of the main metric on dev rows; every process judges all rows."""
    parts = []
    for k, task in enumerate(workspace.tasks(config)):
        examples = subset(task.load("dev"), config.limits.rows(task.name, "dev_rows"))
        limit = config.limits.tokens(task.name)
        sources = [model.backbone.text_tokens(one.source, limit)[0] for one in examples]
        parts.append(partial(_dev_score, model, task, examples, sources, k))
    return lambda: workspace.group.agree(sum(part() for part in parts) / len(parts))


def _dev_score(
    model: TunedModel, task: Task, examples: list[Example], sources: list[Tokens], task_id: int
) -> float:
    name = task.main_metric
    task = replace(task, metrics={name: task.metrics[name]})  # TER of many texts takes a minute
    scores, _ = answering.evaluate(model, task, examples, sources, task_id=task_id, generate=False)
    value = scores.metrics[name]
    return LOWEST if value is None else value


@torch.no_grad()
def changes_answers(model: TunedModel, batch: Batch) -> bool:
    """Whether prompts change any logit of a batch's first rows; true for methods without prompts."""
    if model.prompts is None:
        return True
    batch = batch.split(2)[0].to(model.backbone.device)
    state = model.backbone.read(batch.sources)
    bare = model.backbone(state, None, batch.labels).logits
    return not torch.equal(model(batch).logits, bare)
