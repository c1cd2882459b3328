"""Settings that cannot work together are refused when they are read, before any weights load."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from weft.config.files import load_config, parse_overrides
from weft.config.task import TaskSpec
from weft.config.training import LimitsConfig, PromptConfig
from weft.data.selection import few_shot
from weft.errors import ConfigError, DataError, UnsupportedError
from weft.experiments.config import Experiment
from weft.methods.no_prompt import NoPrompt
from weft.models.base_folder import BaseFolder
from weft.runs.config import AdaptRun, EvaluateRun
from weft.runs.lengths import check_lengths
from weft.tasks import Example

CONFIGS = Path(__file__).parents[1] / "configs" / "experiments"
SPEC = TaskSpec(name="a", source="{x}", target="{y}", max_target_tokens=4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("teachers.optim.lr={shared: 0.1}", r"must name what is trained \(prompt\), and names shared"),
        ("source.optim.lr={shared: 0.1}", r"must name what is trained \(factors, shared\), and names shared"),
        ("rows.8.optim.lr={prompt: 0.1}", r"must name what is trained \(factors, shared\), and names prompt"),
        ("rows.9.optim.lr={shared: 1, factors: 1}", r"\(factors\), and names factors, shared"),
        ("rows.8.method.start=sentimant", "starts from 'sentimant', which is none of"),
        ("rows.7.method.start=mean", "starts from 'mean', which is none of"),
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
        check_lengths(config, folder)
        return
    with pytest.raises(ConfigError, match="21 tokens, and 'gpt2' has 20 positions") as fault:
        check_lengths(config, folder)
    assert fault.value.fix == "set limits.source_tokens to 10 or less"


def test_relative_positions_are_not_bounded(tmp_path: Path) -> None:
    """T5 has no largest position."""
    folder = BaseFolder("t5", tmp_path, "seq2seq", "0", "test", {"model_type": "t5", "n_positions": 20})
    config = EvaluateRun(tasks=(SPEC,), limits=LimitsConfig(source_tokens=999), method=NoPrompt())
    check_lengths(config, folder)


ROPES = {
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 20},
    "dynamic, older": {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 20},
    "dynamic, newer": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
        "max_position_embeddings": 20,
    },
    "longrope": {
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 20,
        },
        "max_position_embeddings": 40,
    },
}
SIZES = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}


def rope_folder(folder: Path, rope: str) -> BaseFolder:
    """A tiny Llama with positions of a kind, by its configuration."""
    config = {"model_type": "llama", "num_attention_heads": 2, **SIZES, **ROPES[rope]}
    return BaseFolder("llama", folder, "causal", "0", "test", config)


@pytest.mark.parametrize("rope", ROPES)
def test_positions_that_grow_with_a_batch_bound_the_input(tmp_path: Path, rope: str) -> None:
    """Up to 20 tokens are read; of more, the numbers would depend on padding, and they are refused."""
    folder = rope_folder(tmp_path, rope)
    for text in (10, 11):
        limits = LimitsConfig(source_tokens=text)
        prompt = PromptConfig(length=6)
        config = EvaluateRun(tasks=(SPEC,), prompt=prompt, limits=limits, method=NoPrompt())
        if text == 10:
            check_lengths(config, folder)
            continue
        with pytest.raises(UnsupportedError, match="21 tokens, and 'llama' scales its positions") as fault:
            check_lengths(config, folder)
        assert (fault.value.code, fault.value.exit_code) == ("C08", 2)
        assert fault.value.fix == "set limits.source_tokens to 10 or less"


@pytest.mark.parametrize("rope", ROPES)
def test_the_bound_is_where_a_text_begins_to_depend_on_those_beside_it(tmp_path: Path, rope: str) -> None:
    """In transformers: a text's hidden states beside one of 20 tokens are its own, beside 21 others."""
    folder = rope_folder(tmp_path, rope)
    torch.manual_seed(0)
    lm = LlamaForCausalLM(LlamaConfig(**folder.config, initializer_range=0.5)).eval()

    def states(longest: int) -> torch.Tensor:
        ids, mask = torch.ones(2, longest, dtype=torch.long), torch.ones(2, longest, dtype=torch.long)
        ids[0, :8], mask[0, 8:] = torch.arange(8), 0
        with torch.no_grad():
            return lm(input_ids=ids, attention_mask=mask).logits[0, :8]

    assert folder.rope_limit == 20
    assert torch.allclose(states(20), states(8), atol=1e-5)
    assert not torch.allclose(states(21), states(8), atol=1e-3)


@pytest.mark.parametrize("rope", [None, {"rope_type": "linear", "factor": 2.0}, {"rope_type": "llama3"}])
def test_positions_that_stay_as_they_are_bound_nothing(tmp_path: Path, rope: object) -> None:
    """Rotary positions without scaling, or with one that knows no batch."""
    config = {"model_type": "llama", "rope_scaling": rope, "max_position_embeddings": 20}
    assert BaseFolder("llama", tmp_path, "causal", "0", "test", config).rope_limit is None


def test_shots_of_open_answers_are_counted_in_all() -> None:
    """Open answers all differ, so shots are rows of the task; drawn by the seed."""
    examples = [Example(f"text {i}", f"answer {i}") for i in range(9)]
    picked = few_shot(examples, 4, seed=1, closed=False)
    assert len(set(picked)) == 4
    assert picked == few_shot(examples, 4, seed=1, closed=False)
    assert picked != few_shot(examples, 4, seed=2, closed=False)
    assert picked == few_shot(examples, None, 4, seed=1, closed=False)
    said: list[DataError] = []
    assert len(few_shot(examples, 16, seed=1, closed=False, warn=said.append)) == 9
    assert [fault.cause for fault in said] == ["16 rows are asked for, and there are 9: all are taken"]


def test_a_run_has_one_count_of_shots() -> None:
    """Rows per answer or rows in all; a run that names both is refused."""
    fields = {
        "tasks": [SPEC],
        "method": {"name": "prompt_tuning"},
        "optim": {"lr": {"prompt": 1}, "steps": 1},
    }
    assert AdaptRun.model_validate({**fields, "shots_total": 3}).shots_total == 3
    with pytest.raises(ValueError, match=r"shots \(2\) counts rows per answer and shots_total \(3\)"):
        AdaptRun.model_validate({**fields, "shots": 2, "shots_total": 3})
