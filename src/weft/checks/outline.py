"""Whether the files of base model and encoders make models, and whether methods can work on them.

Models are made without their numbers: headers of files are read, and no weights.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from weft.checks.base_model import starts_fresh
from weft.checks.findings import Findings
from weft.checks.used_rows import drawn
from weft.methods import FittedMethod, Method
from weft.models import Backbone, load_tokenizer, outline_backbone
from weft.models.base_folder import BaseFolder
from weft.runs import parents
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun
from weft.runs.workspace import Workspace


def check_outline(
    configs: Sequence[AnyRun], base: BaseFolder, tokenizer: Any, workspace: Workspace, found: Findings
) -> None:
    """What a loading would refuse (A04, A09, C24), and what methods refuse of the model (C06 to C08)."""
    outline = found.attempt(lambda: outline_backbone(base, tokenizer, workspace.position(configs[0])))
    for name in dict.fromkeys(name for config in configs for name in _encoders(config)):
        found.attempt(partial(_encoder, name, workspace))
    if outline is None:
        return
    for config in configs:
        method = _method(config)
        if method is not None and (method.only_reads or not outline.only_reads):
            found.attempt(partial(_check_method, config, method, outline, workspace))


def _method(config: AnyRun) -> Method | None:
    return config.method if isinstance(config, EvaluateRun) else config.made_by


def _encoders(config: AnyRun) -> tuple[str, ...]:
    return config.made_by.also_reads if config.made_by is not None else ()


def _encoder(name: str, workspace: Workspace) -> Backbone:
    folder = workspace.encoders.folder(name)
    return outline_backbone(folder, load_tokenizer(folder))


def _check_method(config: AnyRun, method: Method, outline: Backbone, workspace: Workspace) -> None:
    """What the method itself refuses of the base model, of prompts and of the rows it trains on."""
    setup = parents.setup_of(config, workspace)
    setup = replace(setup, dropout=config.base.dropout, load_backbone=lambda: outline)
    if isinstance(config, AdaptRun) and isinstance(method, FittedMethod):
        pairs = ((task, task.load("train")) for task in setup.tasks)
        setup = replace(setup, rows=[drawn(config, *pair, warn=lambda fault: None) for pair in pairs])
    if starts_fresh(config) and config.prompt.init == "text":
        parents.fresh(config, outline, setup.tasks[0])
    if isinstance(config, AdaptRun | EvaluateRun):
        method.check(setup)
