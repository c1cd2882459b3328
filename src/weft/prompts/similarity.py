"""How alike prompts are."""

from jaxtyping import Float
from torch import Tensor


def similarity(prompts: Float[Tensor, "K P D"]) -> Float[Tensor, "K K"]:
    """Cosine of every pair of task prompts, each taken as one long vector less the mean prompt."""
    flat = (prompts - prompts.mean(0, keepdim=True)).flatten(1)
    unit = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosines: Tensor = unit @ unit.T
    return cosines
