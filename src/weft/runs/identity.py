"""What names a run: everything that can change a number of it. Loads without torch."""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from weft import storage
from weft.config.decoding import GREEDY
from weft.runs import tensor_file
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun

NUMERICS = 5  # raise by hand when the code changes numbers: old runs then no longer count as done
FORMAT = tensor_file.FORMAT
PLACES = {"folder", "files", "in_data_root", "hub"}  # where data lie changes no number; what they hold does
TOLD = {"benchmark", "licence"}  # keys of a task that only lists show
OPTIONAL = {"only", "group", "train_rows"}  # runs from before there were any keep their names


def identity(
    config: AnyRun,
    *,
    base_hash: str,
    data_hashes: dict[str, str],
    encoder_hashes: dict[str, str] | None = None,
    chat_hash: str | None = None,
) -> str:
    """SHA-256 of everything that can change a number of a run.

    That is its settings and seed, the content of its data (not where they lie), the base model with its
    tokenizer, its parents, and the format. The order of tasks counts, and that of labels: prompts may start
    from label words in their order, choices are compared in it, and digits are counted in it.

    Args:
        config: the run's configuration; it names its parents by their ids.
        base_hash: of the base model's weights and tokenizer files.
        data_hashes: `task/split` -> SHA-256 of its files.
        encoder_hashes: encoder that reads beside the base model -> SHA-256 of its files.
        chat_hash: SHA-256 of the chat template that texts are put into, if they are.
    """
    hashes = encoder_hashes or {}
    values = _by_hash(config, hashes).model_dump(mode="json")
    values["tasks"] = [
        {
            key: value
            for key, value in task.items()
            if key not in PLACES | TOLD and (value or key not in OPTIONAL)
        }
        for task in values["tasks"]
    ]
    for name in config.method.places if isinstance(config, AdaptRun | EvaluateRun) and config.method else ():
        del values["method"][name]
    values["limits"] = _limits(values["limits"])
    values["order"] = [list((task.labels or {}).items()) for task in config.tasks]
    values["base"] = {"hash": base_hash, "dropout": config.base.dropout, "dtype": config.base.dtype}
    if hashes:
        values["encoders"] = {_known_as(name, hashes): digest for name, digest in hashes.items()}
    if config.base.deterministic:
        values["base"]["deterministic"] = True
    if config.base.weights != "own":
        values["base"]["weights"] = config.base.weights
    if config.base.chat:
        values["base"]["chat"] = chat_hash
    if values.get("optim"):
        values["optim"].pop("micro_batch")
    if values.get("factors", {}).get("train"):  # as all were before there was a choice
        del values["factors"]["train"]
    for name in ("folds", "source", "teachers") if config.stage == "evaluate" else ():
        if not values[name]:  # of a cross-validation; runs from before there were any keep their names
            del values[name]
    if values.get("decoding") == GREEDY.model_dump(mode="json"):  # likewise
        del values["decoding"]
    for name in ("targets", "targets_mb"):  # where teachers' targets lie
        values.get("distill", {}).pop(name, None)
    versions = {"format": FORMAT, "numerics": NUMERICS}
    return storage.sha256_json({**versions, "config": values, "data": data_hashes})


def _limits(values: dict[str, Any]) -> dict[str, Any]:
    """Limits without what is not set; runs from before there were such keys keep their names."""
    own = {name: {key: cap for key, cap in one.items() if cap} for name, one in values["tasks"].items()}
    later = {"target_rows": values["target_rows"], "tasks": {name: one for name, one in own.items() if one}}
    earlier = {key: value for key, value in values.items() if key not in later}
    return earlier | {key: value for key, value in later.items() if value}


def _by_hash(config: AnyRun, hashes: Mapping[str, str]) -> AnyRun:
    """The configuration with hashes of encoders in place of folders: where they lie changes nothing."""
    method = getattr(config, "method", None)
    if method is None or not hashes:
        return config
    return config.model_copy(update={"method": method.renamed(lambda name: _known_as(name, hashes))})


def _known_as(name: str, hashes: Mapping[str, str]) -> str:
    return hashes[name] if Path(name).is_absolute() else name


def run_id(config: AnyRun, digest: str) -> str:
    """`<stage>-<what>-s<seed>-<8 hex of the identity>`."""
    names = "+".join(task.name for task in config.tasks)
    what = names if len(names) <= 40 else f"{len(config.tasks)}tasks"
    method = getattr(config, "method", None)
    label = f"{method.name.replace('_', '-')}-{what}" if method is not None else what
    return f"{config.stage}-{label}-s{config.seed}-{digest[:8]}"


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    packages = ("weft", "torch", "transformers", "numpy", "tokenizers")
    return {
        "format": FORMAT,
        "numerics": NUMERICS,
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
