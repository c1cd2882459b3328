"""Settings that cannot work together are refused when they are read, before any weights load."""

from pathlib import Path

import pytest

from weft.config.files import load_config, parse_overrides
from weft.config.task import TaskSpec
from weft.config.training import LimitsConfig, PromptConfig
from weft.data.selection import few_shot
from weft.errors import ConfigError
from weft.experiments.config import Experiment
from weft.methods.no_prompt import NoPrompt
from weft.models.base_folder import BaseFolder
from weft.runs.config import AdaptRun, EvaluateRun
from weft.runs.workspace import Workspace
from weft.tasks import Example

CONFIGS = Path(__file__).parents[1] / "configs" / "experiments"
SPEC = TaskSpec(name="a", source="{x}", target="{y}", max_target_tokens=4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("teachers.optim.lr={shared: 0.1}", r"must name what is trained \(prompt\), and names shared"),
        ("source.optim.lr={shared: 0.1}", r"must name what is trained \(factors, shared\), and names shared"),
        ("rows.4.optim.lr={prompt: 0.1}", r"must name what is trained \(factors, shared\), and names prompt"),
        ("rows.6.optim.lr={shared: 1, factors: 1}", r"\(factors\), and names factors, shared"),
        ("rows.4.method.start=sentimant", "starts from 'sentimant', which is none of"),
        ("rows.3.method.start=mean", "starts from 'mean', which is none of"),
        ("source.factors.rank=7", r"factors.rank \(7\) exceeds prompt.length \(6\)"),
        ("rows.0.optim={lr: {prompt: 1}, steps: 1}", "'majority' needs 'optim' if, and only if, it trains"),
    ],
)
def test_an_experiment_that_cannot_work(setting: str, message: str) -> None:
    """One wrong setting in the demo's file, and what is said of it."""
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "demo.yaml", Experiment, parse_overrides([setting]))


def test_rates_of_a_single_run() -> None:
    """A run's own file is held to the same rule."""
    method = {"name": "mpt", "train": "factors"}
    optim = {"lr": {"shared": 0.1}, "steps": 1}
    with pytest.raises(ValueError, match=r"must name what is trained \(factors\), and names shared"):
        AdaptRun.model_validate({"tasks": [SPEC], "method": method, "source": "x", "optim": optim})


@pytest.mark.parametrize(("text", "fits"), [(10, True), (11, False)])
def test_absolute_positions_bound_the_input(tmp_path: Path, text: int, fits: bool) -> None:
    """GPT-2 with 20 positions: 6 of prompt, 4 of answer, so at most 10 of text; the message says so."""
    folder = BaseFolder("gpt2", tmp_path, "causal", "0", "test", {"model_type": "gpt2", "n_positions": 20})
    limits = LimitsConfig(source_tokens=text)
    config = EvaluateRun(tasks=(SPEC,), prompt=PromptConfig(length=6), limits=limits, method=NoPrompt())
    if fits:
        Workspace.check_lengths(config, folder)
        return
    with pytest.raises(ConfigError, match="21 tokens, and 'gpt2' has 20 positions") as fault:
        Workspace.check_lengths(config, folder)
    assert fault.value.fix == "set limits.source_tokens to 10 or less"


def test_relative_positions_are_not_bounded(tmp_path: Path) -> None:
    """T5 has no largest position."""
    folder = BaseFolder("t5", tmp_path, "seq2seq", "0", "test", {"model_type": "t5", "n_positions": 20})
    config = EvaluateRun(tasks=(SPEC,), limits=LimitsConfig(source_tokens=999), method=NoPrompt())
    Workspace.check_lengths(config, folder)


def test_shots_of_open_answers_are_counted_in_all() -> None:
    """Open answers all differ, so shots are rows of the task; drawn by the seed."""
    examples = [Example(f"text {i}", f"answer {i}") for i in range(9)]
    picked = few_shot(examples, 4, seed=1, closed=False)
    assert len(set(picked)) == 4
    assert picked == few_shot(examples, 4, seed=1, closed=False)
    assert picked != few_shot(examples, 4, seed=2, closed=False)
