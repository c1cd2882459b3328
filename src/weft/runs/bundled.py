"""Finished source stages that come with weft, so that a task can start from one at once. Loads without torch.

They are ordinary sealed runs, each with its configuration: `bundled_runs/MODEL/RUN`. Beside them lie scales
of the columns of their views.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.config.training import PromptConfig
from weft.errors import ConfigError
from weft.runs.config import SourceRun
from weft.runs.folder import Run

FOLDER = Path(__file__).with_name("bundled_runs")
NAME = "bundled"  # as the `source` of a configuration
SCALES = "scales.safetensors"  # beside a model's runs, made by recipes/sources/scales.py
Place = tuple[str, str, int]  # encoder, prompt and layer of a view


def start(model: str) -> tuple[str, dict[str, str]]:
    """The source run for a base model, and its teachers by task.

    Args:
        model: the name that weft knows it by.

    Raises:
        ConfigError: if there is none.
    """
    run = _run(model)
    return run.id, dict(_config(run).teachers)


def prompt(model: str) -> PromptConfig:
    """Length and place of its prompts, which whatever starts from them must have.

    Raises:
        ConfigError: if there is none.
    """
    return _config(_run(model)).prompt


def _config(run: Run) -> SourceRun:
    config = run.config()
    assert isinstance(config, SourceRun)
    return config


def _run(model: str) -> Run:
    for path in sorted((FOLDER / model).glob("source-*")) if model in known() else ():
        return Run(path)
    raise ConfigError(
        f"no source stage comes with weft for the base model {model!r}",
        where="source",
        fix=f"there is one for {', '.join(known()) or 'none'}; or run 'weft source', or name sources",
        code="C12",
    )


def scales(models: Mapping[str, str], source: str | None) -> dict[Place, Any]:
    """Deviation of the columns `[D]` of views that weft knows, over texts of the bundled source tasks.

    Args:
        models: hash of the base model, under an empty name, and of encoders by name.
        source: the source run whose prompts are read under; of another than that which comes with weft
            nothing is known.
    """
    found: dict[Place, Any] = {}
    for path in sorted(FOLDER.glob(f"*/{SCALES}")):
        found |= _scales(path, models, source)
    return found


def _scales(path: Path, models: Mapping[str, str], source: str | None) -> dict[Place, Any]:
    """Those of one file that are of the models, bit for bit."""
    from safetensors import safe_open

    found: dict[Place, Any] = {}
    with safe_open(path, "numpy") as file:
        facts = {name: json.loads(value) for name, value in file.metadata().items()}
        for name in file.keys():  # noqa: SIM118 - no mapping
            reader, prompt, layer = json.loads(name)
            if not prompt or source in facts["sources"]:
                same = [one for one, digest in models.items() if digest == facts["models"][reader]]
                found |= {(one, prompt, layer): file.get_tensor(name) for one in same}
    return found


def known() -> list[str]:
    """The base models that have one."""
    return sorted(path.name for path in FOLDER.glob("*") if path.is_dir())


def ships(run: Run) -> bool:
    """Whether a run comes with weft; the rows of its tasks do not."""
    return FOLDER in run.path.parents


def places(name: str) -> list[Path]:
    """Where a run of this id may lie."""
    return [FOLDER / model / name for model in known()]
