"""Training steps with weights that are laid out once, against the library's products, both in float32."""

from benchmarks import inputs, measure, ours
from benchmarks.goals import Result, Settings
from benchmarks.pocket_step import drawn

BATCH, LENGTH, TEXT = 12, 6, 17  # as in the demo


def run(settings: Settings) -> list[Result]:
    """Seconds of steps of the demo's size on both base models, prompts where they stand by default."""
    return [_steps(name, settings) for name in ("pocket", "smollm2")]


def _steps(name: str, settings: Settings) -> Result:
    size, steps = (2, 1) if settings.quick else (BATCH, 4)
    arms = {}
    for products in ("library", "packed"):
        backbone = inputs.load(name, settings, length=LENGTH, dtype="float32", products=products)
        batches = [drawn(backbone, size, seed, TEXT) for seed in range(steps)]
        model = ours.prompts(backbone, LENGTH, 1)
        arms[products] = lambda _, model=model, batches=batches: ours.steps(model, batches)
    seconds, _ = measure.interleave(arms, settings.rounds)
    weights = sum(value.nbytes for value in backbone.lm.parameters())
    text = (
        f"float32, batch {size}, prompt {LENGTH}, texts of {TEXT} tokens, {steps} steps a round; packed "
        f"keeps two more layouts of the products' weights (the whole model has {weights / 1e6:.0f} MB)"
    )
    ratios = measure.ratios(seconds, "library", "packed")
    return Result(f"{name} step, library / packed", ratios, text, seconds)
