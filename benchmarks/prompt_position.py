"""Prompt before or after the text on smollm2: dev accuracy and seconds on the demo's source tasks.

    .venv/bin/python benchmarks/prompt_position.py

Same rows, steps, rates and seeds for both; the model is loaded once for each place. Prints one line a run,
then medians and their ratio. Results: docs/decisions/0006-after-the-text.md.
"""

import statistics
import time
from pathlib import Path

import torch

from weft.config.model import BaseConfig
from weft.config.training import OptimConfig, PromptConfig
from weft.data.encoding import encode_task
from weft.data.sampling import EpochBatches
from weft.evaluation import answering
from weft.losses.objective import lm_loss
from weft.models import Backbone, base_folder, load_backbone, probe
from weft.models.fresh_prompt import fresh_prompt
from weft.models.tuned import with_prompts
from weft.tasks import find_specs, from_spec
from weft.training.loop import fit

DEMO = Path(__file__).parents[1] / "demo" / "tasks"
TASKS, SEEDS, LENGTH = ("topic", "question"), (0, 1), 6
OPTIM = OptimConfig(lr={"prompt": 0.08}, steps=20, batch_size=16)


def train(backbone: Backbone, name: str, seed: int) -> tuple[float, float]:
    """Dev accuracy in percent, and seconds of training."""
    task = from_spec(find_specs([DEMO])[name])
    rows = encode_task(name, task.load("train"), backbone, 128)
    start = fresh_prompt(backbone, PromptConfig(length=LENGTH), seed=seed)
    model = with_prompts(backbone, start[None], (name,))
    clock = time.monotonic()
    fit(model, EpochBatches((rows,), OPTIM.batch_size, seed), lm_loss, OPTIM)
    seconds = time.monotonic() - clock
    dev = task.load("dev")
    sources = [backbone.text_tokens(one.source)[0] for one in dev]
    scores, _ = answering.evaluate(model, task, dev, sources, generate=False)
    return scores.metrics["accuracy"] or 0.0, seconds


def main() -> None:
    """Train every task and seed in both places, in turn."""
    dtype = probe(torch.device("cpu")).dtype
    folder = base_folder.resolve(BaseConfig())
    places = {place: load_backbone(folder, dtype=dtype, position=place) for place in ("prefix", "suffix")}
    found: dict[str, list[tuple[float, float]]] = {place: [] for place in places}
    for name in TASKS:
        for seed in SEEDS:
            for place, backbone in places.items():
                found[place].append(train(backbone, name, seed))
                accuracy, seconds = found[place][-1]
                print(
                    f"{name:10} seed {seed} {place}: dev accuracy {accuracy:.1f}, {seconds:.1f} s", flush=True
                )
    for place, runs in found.items():
        accuracy = statistics.mean(run[0] for run in runs)
        print(
            f"{place}: mean accuracy {accuracy:.1f}, median {statistics.median(run[1] for run in runs):.1f} s"
        )
    ratios = [one[1] / two[1] for one, two in zip(found["prefix"], found["suffix"], strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"prefix / suffix seconds, pair by pair: median {statistics.median(ratios):.2f}, {spread}")


if __name__ == "__main__":
    main()
