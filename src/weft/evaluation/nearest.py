"""Which known prompt suits new rows best, before anything is trained on them."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from weft.data.batch import Encoded, Tokens, by_length, collate
from weft.losses.terms import lm_loss_sum
from weft.models import Backbone
from weft.models.tuned import TunedModel, with_prompts

ROWS = 64
PASS_ROWS = 32  # of like length, which saves padding where texts are read anew under every prompt


def nearest(
    backbone: Backbone,
    prompts: Mapping[str, Float[Tensor, "P D"]],
    rows: Sequence[Encoded],
    choices: Sequence[Tokens] = (),
) -> tuple[str, dict[str, float]]:
    """The prompt under which the rows' answers are likeliest, and the mean loss of each (nats).

    Args:
        backbone: the model.
        prompts: name -> prompt; at least one.
        rows: training rows; the first 64 are used.
        choices: answers with the end token. With them the loss is that of the right answer among the
            choices, so that a prompt is not judged by how well it knows the words; without them, the
            language-model loss of a target token.

    Returns:
        The name with the smallest loss (the first of equal ones), and every name's loss.
    """
    losses = {name: _loss(backbone, prompt, rows[:ROWS], choices) for name, prompt in prompts.items()}
    return min(losses, key=lambda name: losses[name]), losses


@torch.no_grad()
def _loss(backbone: Backbone, prompt: Tensor, rows: Sequence[Encoded], choices: Sequence[Tokens]) -> float:
    model: TunedModel = with_prompts(backbone, prompt[None], ("candidate",))
    if not choices:
        batch = collate(rows, [0] * len(rows)).to(backbone.device)
        return float(lm_loss_sum(model(batch).logits, batch.labels)) / batch.target_tokens
    size = len(rows) if backbone.keeps_texts else PASS_ROWS
    parts = by_length([row.source for row in rows], size)
    return sum(_choice_loss(model, [rows[i] for i in part], choices) for part in parts) / len(rows)


def _choice_loss(model: TunedModel, rows: Sequence[Encoded], choices: Sequence[Tokens]) -> float:
    """How unlikely rows' answers are among the choices, in sum (nats)."""
    context = model.begin([row.source for row in rows], [0] * len(rows))
    log_probs = torch.log_softmax(model.backbone.score(context, choices), -1)  # [B, C]
    right = torch.tensor([list(choices).index(row.target) for row in rows], device=log_probs.device)
    return float(-log_probs.gather(1, right[:, None]).sum())
