"""What a run starts from, and what answers from a finished one: prompts, banks and teachers of other runs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from weft import runs, storage
from weft.config.task import TaskSpec
from weft.data.encoding import EncodedTask
from weft.errors import ArtifactError, ConfigError
from weft.evaluation.answering import TunedAnswerer
from weft.evaluation.answers import Answerer
from weft.evaluation.nearest import nearest
from weft.methods.method import UNNAMED, Method, Need, Setup, nothing_found
from weft.models import Backbone
from weft.models.fresh_prompt import fresh_prompt
from weft.models.tuned import STOP_NORM, TunedModel
from weft.prompts.bank import PromptBank, SoftPrompts
from weft.runs import bundled
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, RunConfig, SourceRun, touches_weights
from weft.runs.folder import Run
from weft.runs.tensor_file import answer_words, text_form
from weft.runs.workspace import Workspace
from weft.tasks import Example, Task

FIX = "use the base model and prompt.position of the run (env.json), or train again on these"
CHAT = "chat template (hash)"
FIXES = {CHAT: "set base.chat as that run has it (its config.yaml), or train again"}
ENCODER_FIX = "name the folder with the files of training: --encoder FOLDER; or train again with these"


def load(
    run: Run, workspace: Workspace, wanted_by: AnyRun | None = None, *, to_learn: bool = False
) -> Answerer:
    """What answers from a finished run.

    Args:
        run: the run that holds the prompts, weights or numbers.
        workspace: gives the base model.
        wanted_by: the run that wants them; none: the base model and tasks are the run's own.
        to_learn: that run learns from them, on the base model as its own machine has it: no other is loaded.

    Raises:
        ArtifactError: if the run holds nothing to answer from, or it was trained on another base model or,
            for a task of the same name, on other texts.
    """
    config = workspace.config_of(run)
    if config.made_by is None:
        raise ArtifactError(
            "an evaluation holds no prompts", where=str(run.path), fix="name the run it scored"
        )
    check_fit(run, wanted_by, workspace)
    setup = setup_of(wanted_by or config, workspace, made_by=config, like=None if to_learn else run)
    answerer = _restored(run, config.made_by, setup)
    if isinstance(answerer, TunedAnswerer):
        _check_size(answerer.model, run)
    return answerer


def _restored(run: Run, method: Method, setup: Setup) -> Answerer:
    """What answers, from what a run kept.

    Raises:
        ArtifactError: if that does not fit, with the folder's place where the method cannot say one.
    """
    saved = run.saved()
    try:
        answerer: Answerer = method.restore(setup, saved)
    except ArtifactError as fault:
        where, fix = fault.where or str(run.path), fault.fix or storage.RESTORE
        raise ArtifactError(fault.cause, where=where, fix=fix, code=fault.code) from None
    return answerer


def setup_of(
    config: AnyRun, workspace: Workspace, *, made_by: AnyRun | None = None, like: Run | None = None
) -> Setup:
    """What a method is given to answer.

    Args:
        config: the run that wants answers: its base model, limits of texts and its own tasks count.
        workspace: gives models and tasks.
        made_by: the run that was trained; none: the same.
        like: its folder, for the choices that its machine made; none: as this machine's are.
    """
    own = {spec.name: spec for spec in config.tasks}
    specs = [own.get(spec.name, spec) for spec in (made_by or config).tasks]
    tasks = tuple(workspace.task(spec) for spec in specs)
    method = config.method if isinstance(config, EvaluateRun) and config.folds is None else None
    asks = method is not None and method.asks_rows
    noted = like.encoders() if like else {}
    return Setup(
        tasks=tasks,
        rows=[task.load("train") for task in tasks] if asks else [],
        seed=config.seed,
        prompt=config.prompt,
        source_tokens=tuple(config.limits.tokens(spec.name) for spec in specs),
        load_backbone=partial(
            workspace.backbone,
            config,
            fresh=touches_weights(made_by or config),
            like=like.env() if like else None,
        ),
        load_encoder=lambda name: workspace.encoder(name, config, noted.get(name)),
    )


def training_setup(
    config: AdaptRun | EvaluateRun,
    workspace: Workspace,
    rows: list[list[Example]],
    encode: Callable[[Backbone], list[EncodedTask]],
) -> Setup:
    """What a method is given to learn; all but the rows is loaded when it is first asked for.

    Args:
        config: the run's; an evaluation is a cross-validation.
        workspace: gives models, tasks and finished runs.
        rows: the training rows of each task.
        encode: makes them tokens.
    """
    assert config.method is not None
    loaders: dict[Need, Callable[[], Any]] = {
        "source": lambda: _source_bank(config, workspace),
        "teachers": lambda: {
            name: _prompt_of(run, name, config, workspace) for name, run in config.teachers.items()
        },
    }
    unnamed = loaders.keys() - config.method.needs
    loaders |= {name: partial(nothing_found, name, UNNAMED) for name in unnamed}
    setup = replace(
        setup_of(config, workspace),
        rows=rows,
        dropout=config.base.dropout,
        load_encoded=lambda: encode(setup.backbone),
        load_source=loaders["source"],
        load_teachers=loaders["teachers"],
        load_scales=lambda: bundled.scales(
            {"": workspace.base(config).hash, **workspace.encoder_hashes(config)}, config.source
        ),
        nearest=lambda prompts, number: _nearest(
            prompts, setup.backbone, setup.tasks[number], setup.encoded[number], workspace
        ),
    )
    return setup


def check_fit(run: Run, wanted_by: AnyRun | None, workspace: Workspace) -> None:
    """Refuse prompts that were trained on another model, at another place or on other texts.

    Raises:
        ArtifactError: with both sides; code A08, A09, A07 for answering, C13, C14, C15 for further training.
    """
    wanted, trains = wanted_by or workspace.config_of(run), isinstance(wanted_by, SourceRun | AdaptRun)
    for what, code, theirs, ours in _base_facts(run, wanted, workspace):
        if theirs != ours:
            raise ArtifactError(
                f"the run was trained on another {what}: {str(theirs)[:12]}, and here it is {str(ours)[:12]}",
                where=str(run.path),
                fix=ENCODER_FIX if what.startswith("encoder") else FIXES.get(what, FIX),
                code=code[trains],
            )
    trained = {task.name: task for task in run.config().tasks}
    for task in wanted.tasks:
        if task.name in trained and not bundled.ships(run):  # a user's task may have the name of one of ours
            _check_text(trained[task.name], task, run)


def _base_facts(
    run: Run, wanted_by: AnyRun, workspace: Workspace
) -> list[tuple[str, tuple[str, str], object, object]]:
    """What was so in training and must be so again: name, codes, value then, value here."""
    env, base, encoders = run.env(), workspace.base(wanted_by), run.encoders()
    return [
        ("tokenizer (hash)", ("A09", "C14"), env.get("tokenizer_hash"), base.tokenizer_hash),
        ("base model (hash of embeddings)", ("A08", "C13"), env.get("embedding_hash"), base.embedding_hash),
        ("base model (hash of files)", ("A08", "C13"), env.get("base_hash"), base.hash),
        ("prompt position", ("A07", "C15"), env.get("position"), workspace.position(wanted_by)),
        (CHAT, ("A07", "C15"), env.get("chat_hash", "none"), workspace.chat_hash(wanted_by) or "none"),
        *(
            (f"encoder {name!r} (hash of files)", ("A08", "C13"), encoders.get(name), found)
            for name, found in workspace.encoder_hashes(run.config(), encoders).items()
        ),
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
    ratio = float(model.prompts.vectors().pow(2).mean().sqrt()) / model.backbone.scale
    if not ratio <= STOP_NORM:
        raise ArtifactError(
            f"the prompts' entries are {ratio:,.0f} times the size of embeddings; at most {STOP_NORM:,.0f} "
            "are read",
            where=str(run.path),
            fix="delete the run and train again with a lower optim.lr",
            code="A06",
        )


def fresh(config: RunConfig, backbone: Backbone, task: Task) -> Tensor:
    """A prompt `[P, D]` for one task, as the run's configuration says."""
    return fresh_prompt(backbone, config.prompt, seed=config.seed, choices=task.choices)


def tuned(run: Run, workspace: Workspace, wanted_by: AnyRun | None = None) -> TunedModel:
    """The tuned model of a finished run; `wanted_by` is a run that learns from it.

    Raises:
        ArtifactError: as `load`; or if the run's method makes no tuned model.
    """
    answerer = load(run, workspace, wanted_by, to_learn=wanted_by is not None)
    if not isinstance(answerer, TunedAnswerer):
        raise ArtifactError("the run holds no prompts", where=str(run.path), code="C12")
    return answerer.model


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


def _prompt_of(
    run_name: str, task: str, config: SourceRun | AdaptRun | EvaluateRun, workspace: Workspace
) -> Tensor:
    """One task's prompt `[P, D]` of a finished run, checked against the run that wants it."""
    run = runs.find(workspace.root, run_name)
    model = tuned(run, workspace, config)
    if model.prompts is None or task not in model.tasks:
        raise ArtifactError(f"the run has no prompt for {task!r}", where=str(run.path), code="C12")
    if model.prompts.reads_texts:
        raise ArtifactError(
            f"the run's prompt for {task!r} goes with every text anew, so it cannot teach or start another",
            where=str(run.path),
            fix="name a run of 'weft teachers', or of a method with one prompt for all texts",
            code="C12",
        )
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
        words = tuple(word for task in config.tasks for word in task.written().choices)
        return fresh_prompt(backbone, config.prompt, seed=config.seed, choices=words)
    if teacher is None or not isinstance(teacher.prompts, SoftPrompts):
        raise ConfigError("P* cannot start at the teachers' mean without teachers", where="prompt.init")
    return teacher.prompts.prompts.detach().mean(0)


def _nearest(
    known: Mapping[str, Tensor], backbone: Backbone, task: Task, rows: EncodedTask, workspace: Workspace
) -> tuple[str, dict[str, float]]:
    """The prompt nearest to a task's rows, with every loss; methods that ask the same are answered once."""
    prompts = torch.stack(list(known.values())).cpu().numpy().tobytes()
    key = storage.sha256_bytes(
        prompts
        + repr((backbone.base_hash, str(backbone.embeddings.dtype), list(known), rows, task.choices)).encode()
    )
    if key not in workspace.nearest:
        choices = [backbone.answer_tokens(word) for word in task.choices]
        workspace.nearest[key] = nearest(backbone, known, rows.rows, choices)
    return workspace.nearest[key]


def _source_bank(config: AdaptRun | EvaluateRun, workspace: Workspace) -> PromptBank:
    if config.source is None:
        raise ConfigError(
            "MPT needs the run of a source stage", where="source", fix="run 'weft source' first", code="C12"
        )
    model = tuned(runs.find(workspace.root, config.source), workspace, config)
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
