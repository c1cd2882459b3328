"""Finished source stages that come with weft, so that a task can start from one at once. Loads without torch.

They are ordinary sealed runs, each with its configuration: `bundled_runs/MODEL/RUN`.
"""

from pathlib import Path

from weft.config.training import PromptConfig
from weft.errors import ConfigError
from weft.runs.config import SourceRun
from weft.runs.folder import Run

FOLDER = Path(__file__).with_name("bundled_runs")
NAME = "bundled"  # as the `source` of a configuration


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


def known() -> list[str]:
    """The base models that have one."""
    return sorted(path.name for path in FOLDER.glob("*") if path.is_dir())


def ships(run: Run) -> bool:
    """Whether a run comes with weft; the rows of its tasks do not."""
    return FOLDER in run.path.parents


def places(name: str) -> list[Path]:
    """Where a run of this id may lie."""
    return [FOLDER / model / name for model in known()]
