"""A training step of pocket against one of smollm2, both with the prompt before texts of 40 tokens."""

import random

from benchmarks import inputs, measure, ours
from benchmarks.goals import Result, Settings
from weft.data.batch import Encoded
from weft.models import Backbone

BATCH, LENGTH, TEXT = 16, 20, 40


def run(settings: Settings) -> list[Result]:
    """Seconds of steps of one size on both; text tokens are drawn, answers are one word and its end."""
    size, steps = (2, 1) if settings.quick else (BATCH, 4)
    arms = {}
    for name in ("smollm2", "pocket"):
        backbone = inputs.load(name, settings, length=LENGTH, position="prefix")
        batches = [drawn(backbone, size, seed) for seed in range(steps)]
        model = ours.prompts(backbone, LENGTH, 1)
        arms[name] = lambda _, model=model, batches=batches: ours.steps(model, batches)
    seconds, _ = measure.interleave(arms, settings.rounds)
    counted = [measure.flops(lambda name=name: arms[name](0)) / steps / 1e9 for name in arms]
    text = (
        f"batch {size}, prompt {LENGTH}, texts of {TEXT} tokens, {steps} steps a round; "
        f"{counted[0]:.0f} and {counted[1]:.0f} GFLOP a step"
    )
    return [Result("pocket-step", measure.ratios(seconds, "smollm2", "pocket"), text, seconds)]


def drawn(backbone: Backbone, size: int, seed: int, text: int = TEXT) -> list[Encoded]:
    """Rows of one length, of tokens that stand for words."""
    draw = random.Random(seed)
    words = range(1000, len(backbone.embeddings))
    answer = backbone.answer_tokens("yes")
    return [Encoded(tuple(draw.choices(words, k=text)), answer) for _ in range(size)]
