"""Where training starts: fresh prompts, and prompts, teachers and banks of finished runs."""

import json

import torch
from torch import Tensor

from weft import methods, runs
from weft.backbone import Backbone
from weft.config import AdaptRun, EvaluateRun, RunConfig, SourceRun
from weft.data import EncodedTask
from weft.errors import ArtifactError, ConfigError
from weft.methods import full, mpt, prompt_tuning
from weft.model import TunedModel
from weft.prompts import PromptBank, SoftPrompts
from weft.runs import Run
from weft.tasks import Task
from weft.workspace import Workspace


def load(run: Run, workspace: Workspace) -> tuple[TunedModel, list[Task]]:
    """The tuned model of a finished run, and its tasks, ready to answer.

    Raises:
        ArtifactError: if the run holds no prompts, or was trained on another base model.
    """
    config = run.config()
    if isinstance(config, EvaluateRun):
        raise ArtifactError(
            "an evaluation holds no prompts", where=str(run.path), fix="name the run it scored"
        )
    trained_on = json.loads((run.path / "env.json").read_text("utf-8"))["base_hash"]
    if trained_on != workspace.base(config).hash:
        raise ArtifactError(
            f"the run was trained on another base model (hash {trained_on[:12]}…, "
            f"this is {workspace.base(config).hash[:12]}…)",
            where=str(run.path),
            fix="install the same base model (see env.json), or train again on this one",
            code="A08",
        )
    weights_change = isinstance(config, AdaptRun) and config.method.name == "full"
    backbone = workspace.backbone(config, fresh=weights_change)
    tasks = workspace.tasks(config)
    return methods.restore(backbone, run.tensors(), names_of(tasks)), tasks


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


def _prompt_of(run_name: str, task: str, config: RunConfig, workspace: Workspace) -> Tensor:
    """One task's prompt `[P, D]` of a finished run, checked against the run that wants it."""
    run = runs.find(workspace.root, run_name)
    model, _ = load(run, workspace)
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
        words = tuple(word for task in config.tasks for word in (task.labels or {}).values())
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
            picks, record = _picks(method.start, known, backbone, tasks, train)
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
                method.start, dict(zip(bank.tasks, every, strict=True)), backbone, tasks, train
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
    start: str, known: dict[str, Tensor], backbone: Backbone, tasks: list[Task], train: list[EncodedTask]
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
        methods.nearest(backbone, known, rows.rows, [backbone.answer_tokens(word) for word in task.choices])
        for task, rows in zip(tasks, train, strict=True)
    ]
    record: Starts = {
        task.name: {"from": pick, "losses": losses} for task, (pick, losses) in zip(tasks, found, strict=True)
    }
    return [pick for pick, _ in found], record


def _source_bank(config: AdaptRun, workspace: Workspace) -> PromptBank:
    if config.source is None:
        raise ConfigError(
            "MPT needs the run of a source stage", where="source", fix="run 'weft source' first", code="C12"
        )
    model, _ = load(runs.find(workspace.root, config.source), workspace)
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
