"""Finished runs to share, made once, in a folder that names a person; and the hub of a test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
from hub_stub import WRITER, Hub, running
from huggingface_hub import constants, hf_api
from tiny_job import ONE_TARGET, command, write_job

from weft.runs import Run, finished

PERSON = "jane.doe"  # of whom nobody else may hear
BASE = "tiny/base"  # what the base model is called on the hub
METHODS = """\
  - label: MPT
    method: {{name: mpt}}
    optim: {{lr: {{shared: 0.1, factors: 0.1}}, steps: 2, batch_size: 6}}
  - {{label: weft, method: {{name: weft, encoders: [], worth: -1000}}}}
  - {{label: words, method: {{name: tfidf}}}}
  - {{label: in context, method: {{name: in_context}}}}
"""
EXPERIMENT = ONE_TARGET.replace("name: tiny", "name: shared").replace("seeds: [0]", "seeds: [0, 1]") + METHODS
ROWS = [{"text": text} for text in ("the good film", "the bad dog is", "a song", "not true")]


def made(factory: pytest.TempPathFactory) -> Path:
    """A finished experiment, made once for all files of tests, which leave it as it is."""
    home = factory.getbasetemp() / PERSON / "job"
    if not home.exists():
        _make(home)
    return home


def _make(home: Path) -> None:
    """The task that is adapted says its licence."""
    home.mkdir(parents=True)
    write_job(home, "t5", "prefix", EXPERIMENT)
    with (home / "tasks" / "gamma.yaml").open("a", encoding="utf-8") as file:
        file.write("licence: CC BY 4.0\n")
    assert command("run", home / "tiny.yaml", "--runs", home / "runs", "--quiet") == 0


def named(home: Path, start: str, seed: int = 0) -> Run:
    """The run whose id begins so."""
    [found] = [run for run in finished(home / "runs") if run.id.startswith(start) and f"-s{seed}-" in run.id]
    return found


def evaluation(home: Path, of: Run) -> Run:
    """The one that scored a run."""
    scored = [run for run in finished(home / "runs") if getattr(run.config(), "run", None) == of.id]
    assert len(scored) == 1
    return scored[0]


@contextmanager
def hub_of(patch: pytest.MonkeyPatch, cache: Path, token: str = WRITER) -> Iterator[Hub]:
    """A hub that the client of this process speaks to, with an empty cache."""
    with running(Hub()) as hub:
        url = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        patch.setattr(hf_api.api, "endpoint", hub.endpoint)  # which PEFT asks
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", token)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        huggingface_hub.close_session()
        try:
            yield hub
        finally:
            huggingface_hub.close_session()


def base_files(home: Path) -> dict[str, bytes]:
    """The base model as a repository has it."""
    return {path.name: path.read_bytes() for path in (home / "base").iterdir()}


def user() -> str:
    """Who runs the tests."""
    return os.environ.get("USER", "")
