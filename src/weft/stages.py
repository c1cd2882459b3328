"""The paper's story, one function a stage: teachers, source, adapt, evaluate. Read this file first.

    teachers   one plain soft prompt for each source task, on a frozen model
    source     the teachers distilled into one shared prompt with task factors
    adapt      a method trained on target tasks, from the shared prompt or from elsewhere
    evaluate   answers and scores of a run on rows that nothing was chosen on

Stages talk through run folders only. Each returns its folder; a finished run is not run again.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

import torch

from weft import evaluation, runs, scoring, starts, storage
from weft.backbone import Backbone
from weft.batch import Batch
from weft.checkpoints import LOG, Keeper
from weft.config import AdaptRun, AnyRun, EvaluateRun, RunConfig, SourceRun, TeacherRun
from weft.data import EncodedTask, EpochBatches, ReadAhead, TaskBatches, encode_task, few_shot, subset
from weft.errors import ResourceError
from weft.methods import mpt, prompt_tuning
from weft.model import TunedModel
from weft.runs import Run
from weft.tasks import Example, Task
from weft.training import Hooks, Loss, Progress, fit, lm_loss
from weft.workspace import Workspace

TrainedRun = TeacherRun | SourceRun | AdaptRun
LOWEST = -100.0  # no metric is lower, so a state with an undefined score is never the best


def teachers(config: TeacherRun, workspace: Workspace) -> Run:
    """Train a plain soft prompt for each task of the run (paper: source prompts)."""
    with workspace.open(config) as out:
        backbone, tasks = workspace.backbone(config), workspace.tasks(config)
        train = [_training_rows(config, task, backbone) for task in tasks]
        prompts = [starts.fresh(config, backbone, task) for task in tasks]
        names, dropout = starts.names_of(tasks), config.base.dropout
        model = prompt_tuning.build(backbone, torch.stack(prompts), names, dropout=dropout)
        batches = EpochBatches(tuple(train), config.optim.batch_size, config.seed)
        _train(model, config, train, batches, lm_loss, workspace, out)
    return out


def source(config: SourceRun, workspace: Workspace) -> Run:
    """Distil the teachers into one shared prompt with task factors (paper: prompt distillation)."""
    with workspace.open(config) as out:
        backbone, tasks = workspace.backbone(config), workspace.tasks(config)
        teacher = starts.teacher_of(config, backbone, workspace) if config.teachers else None
        train = [_training_rows(config, task, backbone) for task in tasks]
        shared = starts.shared_start(config, backbone, teacher)
        bank = mpt.new_bank(shared, config.factors, starts.names_of(tasks), seed=config.seed)
        model = mpt.build(backbone, bank, dropout=config.base.dropout)
        batches = TaskBatches(tuple(train), config.optim.batch_size, config.seed, config.sampling)
        loss = mpt.distillation_loss(teacher, config.distill)
        _train(model, config, train, batches, loss, workspace, out)
    return out


def adapt(config: AdaptRun, workspace: Workspace) -> Run:
    """Train a method on the target tasks, all in one model; with several tasks, MPT shares P* among them."""
    with workspace.open(config) as out:
        backbone = workspace.backbone(config, fresh=config.method.name == "full")
        tasks = workspace.tasks(config)
        train = [_training_rows(config, task, backbone, shots=config.shots) for task in tasks]
        model, start = starts.build(config, backbone, tasks, train, workspace)
        batches = EpochBatches(tuple(train), config.optim.batch_size, config.seed)
        _train(model, config, train, batches, lm_loss, workspace, out, start)
    return out


def evaluate(config: EvaluateRun, workspace: Workspace) -> Run:
    """Answer and score rows of a split: of a run, of the frozen model, or of the majority answer."""
    with workspace.open(config) as out:
        clock = time.monotonic()
        parent = runs.find(workspace.root, config.run) if config.run else None
        scores, lines = {}, []
        for task in workspace.tasks(config):
            examples = subset(task.load(config.split), config.limits.test_rows)
            answers = scoring.answers(config, task, examples, parent, workspace, out)
            scores[task.name] = asdict(evaluation.score(task, examples, answers))
            pairs = zip(examples, answers, strict=True)
            lines += [scoring.line(i, task, *pair) for i, pair in enumerate(pairs)]
            workspace.progress.step(len(scores) / len(config.tasks))
        out.write("predictions.jsonl", "".join(lines))
        rows = {task.name: task.accounting(config.split) for task in workspace.tasks(config)}
        out.write_json("result.json", {"scores": scores, "split": config.split, "rows": rows})
        out.write_json("timing.json", {"seconds": time.monotonic() - clock})
    return out


def perform(config: AnyRun, workspace: Workspace) -> Run:
    """Run a stage, unless it is finished already."""
    run = workspace.run(config)
    if run.done:
        run.tidy()
        return run
    workspace.check_data(config)
    if isinstance(config, TeacherRun):
        run = teachers(config, workspace)
    elif isinstance(config, SourceRun):
        run = source(config, workspace)
    elif isinstance(config, AdaptRun):
        run = adapt(config, workspace)
    else:
        run = evaluate(config, workspace)
    workspace.stop.check()  # asked in the last step, which is kept now
    return run


def _training_rows(
    config: RunConfig, task: Task, backbone: Backbone, shots: int | None = None
) -> EncodedTask:
    """The rows a task trains on, as tokens: a capped part of a source's, a few of each answer of a target."""
    cap = None if isinstance(config, AdaptRun) else config.limits.train_rows
    examples = subset(task.load("train"), cap)
    if shots is not None:
        examples = few_shot(examples, shots, seed=config.seed, task=task.name, closed=bool(task.choices))
    return encode_task(task.name, examples, backbone, config.limits.source_tokens)


def _train(
    model: TunedModel,
    config: TrainedRun,
    train: list[EncodedTask],
    batches: EpochBatches | TaskBatches,
    loss: Loss,
    workspace: Workspace,
    out: Run,
    begun: starts.Starts | None = None,
) -> None:
    """Fit a model, from a checkpoint if there is one, and fill its run folder."""
    keeper = Keeper(out, workspace.save_seconds, workspace.stop, workspace.progress.warn)
    resume = keeper.latest()
    if resume is None:
        out.write(LOG, "")
    out.own(LOG)
    validate = _validator(config, model, workspace) if config.optim.eval_every else None
    ahead = ReadAhead(batches, model.backbone.prepare, config.optim.steps)
    hooks = _hooks(config, workspace, out, keeper)
    with workspace.stop.after_step():
        with enough_memory(out):
            done = fit(
                *(model, ahead, loss, config.optim),
                validate=validate, hooks=hooks, resume=resume, seed=config.seed,
            )  # fmt: skip
        _keep(model, config, train, batches, done, workspace, out, begun)
    out.write_json("timing.json", {"seconds": keeper.elapsed})


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
            code="R17",
        ) from None


def _keep(
    model: TunedModel,
    config: TrainedRun,
    train: list[EncodedTask],
    batches: EpochBatches | TaskBatches,
    done: Progress,
    workspace: Workspace,
    out: Run,
    begun: starts.Starts | None,
) -> None:
    """Write what was trained, and what is to be said of it."""
    if not changes_answers(model, batches(0)):
        workspace.progress.warn(f"{out.id}: the trained prompt changes no logit")
    out.save_tensors(model.tensors())
    rows = {
        known.name: {**known.accounting("train"), "train": len(task), "cut": task.cut}
        for task, known in zip(train, workspace.tasks(config), strict=True)
    }
    out.write_json("result.json", {**_summary(model, done), "rows": rows, "start": begun or {}})
    storage.flush_log(out.path / LOG)


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


def _hooks(config: TrainedRun, workspace: Workspace, out: Run, keeper: Keeper) -> Hooks:
    """Log every step to the run's folder, show it, and save now and then."""
    log, steps = out.path / LOG, config.optim.steps

    def on_step(line: dict[str, int | float]) -> None:
        storage.append_line(log, json.dumps(line))
        dev = f" dev {line['dev']:.1f}" if "dev" in line else ""
        note = f"step {line['step']:.0f}/{steps} loss {line['loss']:.3f}{dev}"
        workspace.progress.step(line["step"] / steps, note)

    return Hooks(log=on_step, warn=workspace.progress.warn, save=keeper)


def _validator(config: TrainedRun, model: TunedModel, workspace: Workspace) -> Callable[[], float]:
    """Mean over the run's tasks of the main metric on dev rows."""
    parts = []
    for k, task in enumerate(workspace.tasks(config)):
        examples = subset(task.load("dev"), config.limits.dev_rows)
        parts.append(partial(_dev_score, config, model, task, examples, k))
    return lambda: sum(part() for part in parts) / len(parts)


def _dev_score(
    config: RunConfig, model: TunedModel, task: Task, examples: list[Example], task_id: int
) -> float:
    sources = [model.backbone.text_tokens(one.source, config.limits.source_tokens)[0] for one in examples]
    scores, _ = evaluation.evaluate(model, task, examples, sources, task_id=task_id, generate=False)
    value = scores.metrics[task.main_metric]
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
