"""Where training starts: fresh prompts, and prompts, teachers and banks of finished runs."""

import torch
from torch import Tensor

from weft import methods, runs, storage
from weft.config.task import TaskSpec
from weft.data.encoding import EncodedTask
from weft.errors import ArtifactError, ConfigError
from weft.methods import full, mpt, prompt_tuning
from weft.models import Backbone
from weft.models.tuned import STOP_NORM, TunedModel
from weft.prompts.bank import PromptBank, SoftPrompts
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, RunConfig, SourceRun
from weft.runs.folder import Run
from weft.runs.tensor_file import answer_words, text_form
from weft.runs.workspace import Workspace
from weft.tasks import Task


def load(run: Run, workspace: Workspace, wanted_by: AnyRun | None = None) -> tuple[TunedModel, list[Task]]:
    """The tuned model of a finished run, and its tasks, ready to answer.

    Args:
        run: the run that holds the prompts.
        workspace: gives the base model.
        wanted_by: the run that wants them; none: the base model and tasks are the run's own.

    Raises:
        ArtifactError: if the run holds no prompts, or they were trained on another base model or, for a
            task of the same name, on other texts.
    """
    config = run.config()
    if isinstance(config, EvaluateRun):
        raise ArtifactError(
            "an evaluation holds no prompts", where=str(run.path), fix="name the run it scored"
        )
    check_fit(run, wanted_by, workspace)
    weights_change = isinstance(config, AdaptRun) and config.method.name == "full"
    backbone = workspace.backbone(wanted_by or config, fresh=weights_change, like=run.env())
    tasks = workspace.tasks(config)
    model = methods.restore(backbone, run.tensors(), names_of(tasks))
    _check_size(model, run)
    return model, tasks


def check_fit(run: Run, wanted_by: AnyRun | None, workspace: Workspace) -> None:
    """Refuse prompts that were trained on another model, at another place or on other texts.

    Raises:
        ArtifactError: with both sides; code A08, A09, A07 for answering, C13, C14, C15 for further training.
    """
    wanted, trains = wanted_by or run.config(), isinstance(wanted_by, SourceRun | AdaptRun)
    for what, code, theirs, ours in _base_facts(run, wanted, workspace):
        if theirs != ours:
            raise ArtifactError(
                f"the run was trained on another {what}: {str(theirs)[:12]}, and here it is {str(ours)[:12]}",
                where=str(run.path),
                fix="use the base model and prompt.position of the run (env.json), or train again on these",
                code=code[trains],
            )
    trained = {task.name: task for task in run.config().tasks}
    for task in wanted.tasks:
        if task.name in trained:
            _check_text(trained[task.name], task, run)


def _base_facts(
    run: Run, wanted_by: AnyRun, workspace: Workspace
) -> list[tuple[str, tuple[str, str], object, object]]:
    """What was so in training and must be so again: name, codes, value then, value here."""
    env, base = run.env(), workspace.base(wanted_by)
    return [
        ("tokenizer (hash)", ("A09", "C14"), env.get("tokenizer_hash"), base.tokenizer_hash),
        ("base model (hash of embeddings)", ("A08", "C13"), env.get("embedding_hash"), base.embedding_hash),
        ("base model (hash of files)", ("A08", "C13"), env.get("base_hash"), base.hash),
        ("prompt position", ("A07", "C15"), env.get("position"), workspace.position(wanted_by)),
    ]


def _check_text(trained: TaskSpec, wanted: TaskSpec, run: Run) -> None:
    """Refuse a prompt for a task that is put into words in another way than it was in training."""
    for what, view in (("text format", text_form), ("answer words", answer_words)):
        if view(trained) != view(wanted):
            raise ArtifactError(
                f"the run was trained with another {what} of task {wanted.name!r}: "
                f"{view(trained)}, and here it is {view(wanted)}",
                where=str(run.path),
                fix="use the task file of that run (its config.yaml), or train it again on this one",
                code="C14",
            )


@torch.no_grad()
def _check_size(model: TunedModel, run: Run) -> None:
    """Refuse prompts so large that training would have stopped."""
    if model.prompts is None:
        return
    prompts = model.prompts(torch.arange(len(model.tasks), device=model.backbone.device))
    ratio = float(prompts.pow(2).mean().sqrt()) / model.backbone.scale
    if not ratio <= STOP_NORM:
        raise ArtifactError(
            f"the prompts' entries are {ratio:,.0f} times the size of embeddings; at most {STOP_NORM:,.0f} "
            "are read",
            where=str(run.path),
            fix="delete the run and train again with a lower optim.lr",
            code="A06",
        )


def names_of(tasks: list[Task]) -> tuple[str, ...]:
    """The tasks' names, in the order of the task ids."""
    return tuple(task.name for task in tasks)


def fresh(config: RunConfig, backbone: Backbone, task: Task) -> Tensor:
    """A prompt `[P, D]` for one task, as the run's configuration says."""
    return prompt_tuning.fresh_prompt(backbone, config.prompt, seed=config.seed, choices=task.choices)


def teacher_of(config: SourceRun, backbone: Backbone, workspace: Workspace) -> TunedModel:
    """The teachers of all tasks of the run as one model, in the run's order."""
    names = [task.name for task in config.tasks]
    missing = [name for name in names if name not in config.teachers]
    if missing:
        raise ConfigError(
            f"task {missing[0]!r} has no teacher",
            where="teachers",
            fix="run 'weft teachers' for it",
            code="C12",
        )
    prompts = [_prompt_of(config.teachers[name], name, config, workspace) for name in names]
    module = SoftPrompts(torch.stack(prompts), tuple(names)).to(backbone.device)
    return TunedModel(backbone, module, {}, tuple(names))


def _prompt_of(run_name: str, task: str, config: SourceRun | AdaptRun, workspace: Workspace) -> Tensor:
    """One task's prompt `[P, D]` of a finished run, checked against the run that wants it."""
    run = runs.find(workspace.root, run_name)
    model, _ = load(run, workspace, config)
    if model.prompts is None or task not in model.tasks:
        raise ArtifactError(f"the run has no prompt for {task!r}", where=str(run.path), code="C12")
    prompt: Tensor = model.prompts(torch.tensor([model.tasks.index(task)], device=model.backbone.device))[
        0
    ].detach()
    if len(prompt) != config.prompt.length:
        raise ArtifactError(
            f"the teacher's prompt has {len(prompt)} tokens, this run's has {config.prompt.length}",
            where=str(run.path),
            fix="train the teacher with the same prompt.length",
            code="C15",
        )
    return prompt


def shared_start(config: SourceRun, backbone: Backbone, teacher: TunedModel | None) -> Tensor:
    """Where P* starts: as a teacher does, or at the mean of the teachers."""
    if config.prompt.init != "teachers":
        words = tuple(word for task in config.tasks for word in (task.written().labels or {}).values())
        return prompt_tuning.fresh_prompt(backbone, config.prompt, seed=config.seed, choices=words)
    if teacher is None or not isinstance(teacher.prompts, SoftPrompts):
        raise ConfigError("P* cannot start at the teachers' mean without teachers", where="prompt.init")
    return teacher.prompts.prompts.detach().mean(0)


Starts = dict[str, dict[str, object]]  # task -> where its prompt started, and the loss of every candidate


def build(
    config: AdaptRun, backbone: Backbone, tasks: list[Task], train: list[EncodedTask], workspace: Workspace
) -> tuple[TunedModel, Starts]:
    """The model a method trains, and a record of where each task started."""
    method, names, dropout = config.method, names_of(tasks), config.base.dropout
    if method.name == "full":
        return full.build(backbone, names, dropout=dropout), {name: {"from": "base model"} for name in names}
    if method.name == "prompt_tuning":
        if method.start == "fresh":
            prompts, record = (
                [fresh(config, backbone, task) for task in tasks],
                _from(names, ["fresh"] * len(names)),
            )
        else:
            known = {name: _prompt_of(run, name, config, workspace) for name, run in config.teachers.items()}
            picks, record = _picks(method.start, known, backbone, tasks, train, workspace)
            prompts = [known[name] for name in picks]
        return prompt_tuning.build(backbone, torch.stack(prompts), names, dropout=dropout), record
    if method.name == "mpt":
        bank = _source_bank(config, workspace)
        if method.start == "mean":
            picks, record = ["mean"], _from(names, ["mean"] * len(names))
        else:
            with torch.no_grad():
                every = bank(torch.arange(len(bank.tasks), device=backbone.device))
            picks, record = _picks(
                method.start, dict(zip(bank.tasks, every, strict=True)), backbone, tasks, train, workspace
            )
        return mpt.build(
            backbone, mpt.target_bank(bank, picks, names), train=method.train, dropout=dropout
        ), record
    raise ConfigError(
        f"{method.name!r} trains nothing", where="method.name", fix="evaluate it without adapting"
    )


def _from(names: tuple[str, ...], picks: list[str]) -> Starts:
    return {name: {"from": pick} for name, pick in zip(names, picks, strict=True)}


def _picks(
    start: str,
    known: dict[str, Tensor],
    backbone: Backbone,
    tasks: list[Task],
    train: list[EncodedTask],
    workspace: Workspace,
) -> tuple[list[str], Starts]:
    """For each task the named prompt, or the one nearest to its training rows."""
    if start != "nearest" and start not in known:
        raise ConfigError(
            f"there is no prompt {start!r} to start from; known: {', '.join(known) or 'none'}",
            where="method.start",
        )
    if start != "nearest":
        return [start] * len(tasks), _from(names_of(tasks), [start] * len(tasks))
    found = [
        _nearest(known, backbone, task, rows, workspace) for task, rows in zip(tasks, train, strict=True)
    ]
    record: Starts = {
        task.name: {"from": pick, "losses": losses} for task, (pick, losses) in zip(tasks, found, strict=True)
    }
    return [pick for pick, _ in found], record


def _nearest(
    known: dict[str, Tensor], backbone: Backbone, task: Task, rows: EncodedTask, workspace: Workspace
) -> tuple[str, dict[str, float]]:
    """The prompt nearest to a task's rows, with every loss; methods that ask the same are answered once."""
    prompts = torch.stack(list(known.values())).cpu().numpy().tobytes()
    key = storage.sha256_bytes(
        prompts
        + repr((backbone.base_hash, str(backbone.embeddings.dtype), list(known), rows, task.choices)).encode()
    )
    if key not in workspace.nearest:
        choices = [backbone.answer_tokens(word) for word in task.choices]
        workspace.nearest[key] = methods.nearest(backbone, known, rows.rows, choices)
    return workspace.nearest[key]


def _source_bank(config: AdaptRun, workspace: Workspace) -> PromptBank:
    if config.source is None:
        raise ConfigError(
            "MPT needs the run of a source stage", where="source", fix="run 'weft source' first", code="C12"
        )
    model, _ = load(runs.find(workspace.root, config.source), workspace, config)
    if not isinstance(model.prompts, PromptBank):
        raise ArtifactError(f"{config.source!r} is no source stage: it holds no bank", code="C12")
    if len(model.prompts.shared) != config.prompt.length:
        raise ArtifactError(
            f"the source prompt has {len(model.prompts.shared)} tokens, this one {config.prompt.length}",
            where=config.source,
            fix="set prompt.length as in the source run",
            code="C15",
        )
    return model.prompts
