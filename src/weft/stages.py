"""The paper's story, one function a stage: teachers, source, adapt, evaluate. Read this file first.

    teachers   one plain soft prompt for each source task, on a frozen model
    source     the teachers distilled into one shared prompt with task factors
    adapt      a method trained on target tasks, from the shared prompt or from elsewhere
    evaluate   answers and scores of a run on rows that nothing was chosen on

The first three say what is trained, on which rows and from where; `runner.train` trains it, several runs in
one batch if there are several. Stages talk through run folders only; a finished run is not run again.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

import torch

from weft import runs
from weft.checks import leak_checks
from weft.checks.findings import Findings
from weft.checks.used_rows import drawn
from weft.data.encoding import EncodedTask, encode_task
from weft.data.sampling import WINDOW, EpochBatches, TaskBatches, pool_size
from weft.data.selection import subset
from weft.data.token_store import TokenStore
from weft.errors import ArtifactError, DataError, WeftError
from weft.evaluation.answers import Answer, Answerer, decoded
from weft.evaluation.folds import Fitted, out_of_fold
from weft.evaluation.scores import score
from weft.losses.distillation import distillation_loss
from weft.losses.objective import lm_loss
from weft.losses.target_costs import targets_of
from weft.losses.targets import TeacherTargets
from weft.methods import FittedMethod, TrainedMethod
from weft.methods.method import Saved, Setup
from weft.models import Backbone
from weft.models.tuned import TunedModel, with_bank, with_prompts
from weft.prompts.bank import new_bank
from weft.runs import Run, answer_blocks, parents
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, RunConfig, SourceRun, TeacherRun
from weft.runs.workspace import Workspace
from weft.storage.page_store import PageStore
from weft.tasks import Example, Task
from weft.training import runner
from weft.training.runner import Prepared, TrainedRun

TARGETS, TOKENS = ".targets", ".tokens"  # of the folder of runs: what teachers said, and rows as tokens


def teachers(config: TeacherRun, workspace: Workspace) -> Prepared:
    """A plain soft prompt for each task of the run (paper: source prompts)."""
    backbone, tasks = workspace.backbone(config), workspace.tasks(config)
    train = [_encoded_rows(config, task, backbone, workspace) for task in tasks]
    prompts = torch.stack([parents.fresh(config, backbone, task) for task in tasks])
    model = with_prompts(backbone, prompts, tuple(task.name for task in tasks), dropout=config.base.dropout)
    batches = _epochs(config, train, backbone)
    return Prepared(config, model, train, batches, lm_loss)


def source(config: SourceRun, workspace: Workspace) -> Prepared:
    """One shared prompt with task factors, into which the teachers are distilled (prompt distillation)."""
    backbone, tasks = workspace.backbone(config), workspace.tasks(config)
    teacher = parents.teacher_of(config, backbone, workspace) if config.teachers else None
    train = [_encoded_rows(config, task, backbone, workspace) for task in tasks]
    shared = parents.shared_start(config, backbone, teacher)
    bank = new_bank(shared, config.factors, tuple(task.name for task in tasks), seed=config.seed)
    trains = "all" if config.factors.train else "shared"
    model = with_bank(backbone, bank, train=trains, dropout=config.base.dropout)
    batches = TaskBatches(tuple(train), config.optim.batch_size, config.seed, config.sampling)
    targets, window = _targets(config, teacher, batches, workspace)
    loss = distillation_loss(teacher, config.distill, targets)
    return Prepared(config, model, train, batches, loss, targets=targets, window=window)


def adapt(config: AdaptRun, workspace: Workspace) -> Prepared:
    """A method on the target tasks, all in one model; with several tasks, MPT shares P* among them."""
    method = config.method
    assert isinstance(method, TrainedMethod)
    setup = _setup(config, workspace)
    backbone, train = setup.backbone, setup.encoded
    model, start = method.build(setup)
    batches = _epochs(config, train, backbone)
    return Prepared(config, model, train, batches, lm_loss, start)


def fit(config: AdaptRun, workspace: Workspace) -> Run:
    """A method that is fitted to the target tasks' rows at once."""
    method = config.method
    assert isinstance(method, FittedMethod)
    setup = _setup(config, workspace)
    with workspace.open(config) as out:
        clock = time.monotonic()
        saved = method.fit(setup)
        out.save(saved)
        counts = zip(setup.tasks, setup.rows, strict=True)
        used = {task.name: {**task.accounting("train"), "train": len(some)} for task, some in counts}
        result = {"tasks": list(setup.names), "steps": 0, "best_step": 0, "dev": None}
        result |= {"rows": used, "trained_parameters": saved.parameters}
        result |= {"parameters_per_task": saved.parameters / len(setup.tasks)}
        out.write_json("result.json", result)
        out.write_json("timing.json", {"seconds": time.monotonic() - clock})
    return out


def evaluate(config: EvaluateRun, workspace: Workspace) -> Run:
    """Answer and score rows of a split: of a run, of what learns nothing, or by cross-validation."""
    with workspace.open(config) as out:
        clock = time.monotonic()
        answerer = None if config.folds else _answerer(config, workspace)
        scores, lines = {}, []
        for number, task in enumerate(workspace.tasks(config)):
            examples = subset(task.load(config.split), config.limits.rows(task.name, "test_rows"))
            if answerer is None:
                answers = _cross_validated(config, number, examples, workspace)
            else:
                answers = answer_blocks.answers(_answering(config, task, answerer), task.name, examples, out)
            scores[task.name] = asdict(score(task, examples, answers))
            pairs = zip(examples, answers, strict=True)
            lines += [answer_blocks.line(i, task, *pair) for i, pair in enumerate(pairs)]
            workspace.progress.step(len(scores) / len(config.tasks))
        out.write("predictions.jsonl", "".join(lines))
        rows = {task.name: task.accounting(config.split) for task in workspace.tasks(config)}
        leaks = leak_checks.leaks_of(config, workspace, Findings())
        result = {"scores": scores, "split": config.split, "rows": rows, "leaks": leaks}
        out.write_json("result.json", result)
        out.write_json("timing.json", {"seconds": time.monotonic() - clock})
    return out


def _answerer(config: EvaluateRun, workspace: Workspace) -> Answerer:
    """What is scored: a run, or a method that learns nothing."""
    if config.run is not None:
        return parents.load(runs.find(workspace.root, config.run), workspace, config)
    assert config.method is not None
    answerer: Answerer = config.method.restore(parents.setup_of(config, workspace), Saved())
    return answerer


def _answering(config: EvaluateRun, task: Task, answerer: Answerer) -> answer_blocks.Answering:
    """What answers rows of one task.

    Raises:
        ArtifactError: if the run has no such task.
    """
    names = [one.name for one in answerer.tasks]
    if task.name not in names:
        raise ArtifactError(f"the run has no prompt for {task.name!r}", where=str(config.run), code="C12")
    number, size = names.index(task.name), config.batch_size
    writer = decoded(answerer, config.decoding)

    def answer(examples: list[Example]) -> list[Answer]:
        texts = [one.source for one in examples]
        return writer.answer(texts, [number] * len(texts), batch_size=size, generate=config.generate)

    return answer


def _cross_validated(
    config: EvaluateRun, number: int, examples: list[Example], workspace: Workspace
) -> list[Answer]:
    """An answer for each row of one task, by the method as it was fitted to the rows of other folds."""
    own, method = config.model_copy(update={"tasks": (config.tasks[number],)}), config.method
    assert config.folds is not None
    assert method is not None
    [task] = workspace.tasks(own)
    whole = parents.training_setup(own, workspace, [examples], lambda backbone: [])

    def fitted(rows: list[Example]) -> Fitted:
        workspace.stop.check()
        setup = whole.with_rows([rows])
        saved = method.fit(setup) if isinstance(method, FittedMethod) else Saved()
        return _answering(own, task, method.restore(setup, saved))

    return out_of_fold(examples, config.folds, config.seed, fitted)


def perform(config: AnyRun, workspace: Workspace) -> Run:
    """Run a stage, unless it is finished already.

    Raises:
        WeftError: what it failed of.
    """
    [(_, outcome)] = perform_together([config], workspace)
    if isinstance(outcome, WeftError):
        raise outcome
    return outcome


def perform_together(
    configs: Sequence[AnyRun], workspace: Workspace
) -> Iterator[tuple[str, Run | WeftError]]:
    """Run stages that are not finished, those that train in one batch; a failure of one spares the others.

    Of several processes all train; the first alone fits and evaluates.

    Args:
        configs: one run of any kind; or trainings that `can_share`.
        workspace: where.

    Yields:
        Every run's id, and the run, or what it failed of, as soon as it is over.

    Raises:
        ResourceError: at once: a full disk or a folder in use would stop every other run as well.
    """
    ready: list[Prepared] = []
    group = workspace.group
    if group.size > 1:
        group.check_same("runs", [workspace.run_id(config) for config in configs])
        group.check_same("versions of packages", runs.environment()["versions"])
    for config in configs:
        run = workspace.run(config)
        if group.led(partial(_finished, run)):
            yield run.id, run
            continue
        try:
            group.every(partial(workspace.check_data, config))
            workspace.settle(config)
            if isinstance(config, EvaluateRun):
                yield run.id, group.led(partial(evaluate, config, workspace))
            elif isinstance(config, AdaptRun) and config.optim is None:
                yield run.id, group.led(partial(fit, config, workspace))
            else:
                ready.append(group.every(partial(prepare, config, workspace)))
        except WeftError as error:
            yield run.id, runner.spared(error, group)
    if ready:
        yield from runner.train(ready, workspace)
    workspace.stop.check()  # asked in the last step, which is kept now


def _finished(run: Run) -> bool:
    """Whether a run is; then what it needed only to go on is cleared away."""
    run.tidy()
    return run.done


def prepare(config: TrainedRun, workspace: Workspace) -> Prepared:
    """What a run trains."""
    if isinstance(config, TeacherRun):
        return teachers(config, workspace)
    return source(config, workspace) if isinstance(config, SourceRun) else adapt(config, workspace)


def can_share(config: AnyRun) -> bool:
    """Whether a run's rows may go through the frozen model beside those of others: it trains prompts only."""
    plain = isinstance(config, TeacherRun | AdaptRun) and config.made_by.shares_batches
    return plain and not config.base.dropout and not config.base.sharded


def step_tokens(config: AnyRun, workspace: Workspace) -> int:
    """About how many tokens of one step a run computes; texts that are kept do not count."""
    if isinstance(config, EvaluateRun) or config.optim is None:
        return 0
    texts = 0 if workspace.position(config) == "suffix" else max(config.source_tokens) // 4
    return config.optim.batch_size * (config.prompt.length + 2 + texts)


def _targets(
    config: SourceRun, teacher: TunedModel | None, batches: TaskBatches, workspace: Workspace
) -> tuple[TeacherTargets | None, int]:
    """What the teachers will say of the rows, and for how many steps it is made at once."""
    if teacher is None or not config.distill.teaches:
        return None, WINDOW
    uses = config.optim.steps * config.optim.batch_size
    return targets_of(
        teacher,
        config.distill,
        batches(0),
        batches.expected_rows(config.optim.steps),
        uses,
        lambda size: PageStore(workspace.root / TARGETS, size, workspace.progress.warn),
    )


def _epochs(config: TeacherRun | AdaptRun, train: list[EncodedTask], backbone: Backbone) -> EpochBatches:
    optim = config.optim
    assert optim is not None
    return EpochBatches(tuple(train), optim.batch_size, config.seed, pool_size(optim.length_pool, backbone))


def _setup(config: AdaptRun, workspace: Workspace) -> Setup:
    """What a method learns from: the target tasks' rows, which become tokens when they are asked for."""
    tasks = workspace.tasks(config)
    rows = [_training_rows(config, task, workspace) for task in tasks]

    def encode(backbone: Backbone) -> list[EncodedTask]:
        pairs = zip(tasks, rows, strict=True)
        return [_encoded(config, task, some, backbone, workspace) for task, some in pairs]

    return parents.training_setup(config, workspace, rows, encode)


def _training_rows(config: RunConfig, task: Task, workspace: Workspace) -> list[Example]:
    """The rows a task trains on: a capped part of a source's, a few of a target's."""

    def warn(fault: DataError) -> None:
        workspace.progress.warn(f"{fault.where}: {fault.cause}")

    rows = task.load("train")
    if not isinstance(config, AdaptRun):
        return subset(rows, config.limits.rows(task.name, "train_rows"))
    return drawn(config, task, rows, warn)


def _encoded_rows(config: RunConfig, task: Task, backbone: Backbone, workspace: Workspace) -> EncodedTask:
    """A task's training rows as tokens."""
    return _encoded(config, task, _training_rows(config, task, workspace), backbone, workspace)


def _encoded(
    config: RunConfig, task: Task, rows: list[Example], backbone: Backbone, workspace: Workspace
) -> EncodedTask:
    """Rows as tokens; those of large tasks are kept."""
    store = TokenStore(workspace.root / TOKENS)
    return encode_task(task.name, rows, backbone, config.limits.tokens(task.name), store=store)
