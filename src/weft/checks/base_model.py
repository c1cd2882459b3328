"""Whether the base model can do what runs ask of it. Reads its configuration, and no weights."""

from collections.abc import Sequence
from functools import partial

from weft.checks.findings import Findings
from weft.errors import ConfigError, UnsupportedError
from weft.models import check_position, check_weights
from weft.models.base_folder import LAYERS, BaseFolder
from weft.runs.config import AnyRun, SourceRun, TeacherRun
from weft.runs.lengths import check_lengths
from weft.runs.sharded import check_sharded
from weft.runs.workspace import Workspace


def check_base(configs: Sequence[AnyRun], base: BaseFolder, workspace: Workspace, found: Findings) -> None:
    """Whether the base model can do what the runs ask of it: C06, C07, C08, C19, C24, layers."""
    position = found.attempt(lambda: workspace.position(configs[0]))
    if position is not None:
        found.attempt(lambda: check_position(base, position))
    for config in configs:
        found.attempt(partial(_check_init, config))
        found.attempt(partial(_check_answers, config))
        found.attempt(partial(_check_family, config, base))
        found.attempt(partial(_check_weights, config, base))
        found.attempt(partial(workspace.encoder_hashes, config))
        found.attempt(partial(check_lengths, config, base))
        if position is not None:
            found.attempt(partial(check_sharded, config, position))
        if isinstance(config, SourceRun):
            _source(config, base, found)
    _dtype(configs[0].base.dtype, found)
    if base.origin.startswith("hub ") and configs[0].base.revision is None:
        found.warn(
            ConfigError(
                f"the base model {base.name!r} is not pinned: the hub may change it",
                where="base.revision",
                fix="name a commit; the run notes the hash of what it read",
                code="C24",
            )
        )


def _check_init(config: AnyRun) -> None:
    """C12: what fresh prompts start from must be there.

    Raises:
        ConfigError: naming it.
    """
    fresh = starts_fresh(config)
    init, distils = config.prompt.init, isinstance(config, SourceRun) and bool(config.teachers)
    open_tasks = [spec.name for spec in config.tasks if not spec.labels]
    if fresh and init == "labels" and len(open_tasks) > (len(config.tasks) - 1) * (config.stage == "source"):
        raise ConfigError(
            f"prompts cannot start from label words: {open_tasks[0]!r} has open answers",
            where="prompt.init",
            fix="set vocabulary or text",
            code="C12",
        )
    if fresh and init == "teachers" and not distils:
        raise ConfigError(
            "only P* can start from the mean of teachers, and only where there are teachers",
            where="prompt.init",
            fix="set source.init: teachers in an experiment, and vocabulary here",
            code="C12",
        )


def starts_fresh(config: AnyRun) -> bool:
    """Whether a run's prompts start as its configuration says, and not from those of another run."""
    if isinstance(config, SourceRun):
        return config.prompt.init != "teachers" or not config.teachers
    return isinstance(config, TeacherRun) or getattr(config.made_by, "start", "") == "fresh"


def _check_answers(config: AnyRun) -> None:
    """C08: a classifier needs a closed set of answers.

    Raises:
        UnsupportedError: naming the task.
    """
    open_tasks = [spec.name for spec in config.tasks if not spec.labels]
    if config.made_by is not None and config.made_by.closed_only and open_tasks:
        raise UnsupportedError(
            f"{config.made_by.title} chooses among closed answers, and {open_tasks[0]!r} has open ones",
            where="method.name",
            fix="take the row out, or give the task labels",
            code="C08",
        )


def _check_family(config: AnyRun, base: BaseFolder) -> None:
    """C08: an encoder writes no answers.

    Raises:
        UnsupportedError: for a method that asks for them.
    """
    method = config.made_by or getattr(config, "method", None)
    if base.family == "encoder" and method is not None and not method.only_reads:
        raise UnsupportedError(
            f"{base.name!r} is an encoder, which writes nothing; {method.title} asks for written answers",
            where="base.model",
            fix="use a method that only reads (frozen_features, weft), or a language model",
            code="C08",
        )


def _check_weights(config: AnyRun, base: BaseFolder) -> None:
    """C08, C18: rounded weights stay frozen, and are made by a package.

    Raises:
        UnsupportedError: for a method that changes or adds weights, and as `check_weights`.
    """
    if config.base.weights != "own" and config.made_by is not None and config.made_by.touches_weights:
        raise UnsupportedError(
            f"{config.made_by.title} changes or adds weights, which are rounded here ({config.base.weights})",
            where="base.weights",
            fix="set base.weights: own, or take a method of prompts",
            code="C08",
        )
    check_weights(config.base.weights, base)


def _source(config: SourceRun, base: BaseFolder, found: Findings) -> None:
    """Rank against width, and distilled layers against those that there are."""
    if config.factors.rank > base.width:
        found.error(
            ConfigError(
                f"factors.rank ({config.factors.rank}) exceeds the width of {base.name!r} ({base.width})",
                where="source.factors.rank",
                fix=f"set it to {min(base.width, config.prompt.length)} or less",
                code="C06",
            )
        )
    depth = next((int(base.reader[name]) for name in LAYERS if base.reader.get(name)), None)
    layers = config.distill.layers
    wrong = [n for n in layers if depth is not None and n >= depth] if isinstance(layers, tuple) else []
    if wrong:
        found.error(
            ConfigError(
                f"layer {wrong[0]} does not exist in {base.name!r}",
                where="source.distill.layers",
                fix=f"the model has layers 0 to {(depth or 1) - 1}",
                code="C06",
            )
        )


def _dtype(dtype: str, found: Findings) -> None:
    """C19: try the number format on the device."""
    import torch
    from accelerate import PartialState

    if dtype == "auto":
        return
    try:
        one = torch.ones(2, 2, dtype=getattr(torch, dtype), device=PartialState().device)
        (one @ one).sum().item()
    except (RuntimeError, AssertionError) as error:
        found.error(
            UnsupportedError(
                f"this machine does not compute with {dtype} ({type(error).__name__})",
                where="base.dtype",
                fix="set base.dtype: float32, or auto",
                code="C19",
            )
        )
