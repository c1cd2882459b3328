"""Whether a model reads embeddings that it is given as it reads tokens: all prompts stand on that."""

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from weft.data.batch import Tokens
from weft.errors import UnsupportedError
from weft.models.backbone import Backbone

TOKENS = 6  # of the text that is read in both ways
APART = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # largest difference of logits, as a share of the largest


@torch.no_grad()
def check_embeddings(backbone: Backbone) -> None:
    """Refuse a model whose answers to a text's embeddings are not its answers to the text.

    That may be one that scales or adds to embeddings elsewhere than in their layer, changes its logits behind
    the output layer, or needs token ids beside them.

    Raises:
        UnsupportedError: with the difference.
    """
    special = backbone.special_ids
    known = list(islice((token for token in range(len(backbone.embeddings)) if token not in special), TOKENS))
    with backbone.mode(dropout=False):
        ours = _from_embeddings(backbone, tuple(known)).float()
        theirs = _from_tokens(backbone, known).float()
    apart = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-9))
    if not apart <= APART[torch.bfloat16 if backbone.rounds else backbone.embeddings.dtype]:
        raise UnsupportedError(
            f"models of type {backbone.lm.config.model_type!r} do not read embeddings as they read tokens "
            f"(logits differ by {apart:.1%} of the largest), so no prompt of theirs can be trained",
            where=backbone.name,
            fix="use a model of another family",
            code="C08",
        )


def _from_embeddings(backbone: Backbone, tokens: Tokens) -> Tensor:
    """Logits of the first answer token, as weft asks for them."""
    labels = torch.zeros(1, 1, dtype=torch.long, device=backbone.device)  # predicted, never read
    return backbone.forward(backbone.read([tokens]), None, labels).logits[0, 0]


def _from_tokens(backbone: Backbone, tokens: list[int]) -> Tensor:
    """The same as the library gives them."""
    asked: dict[str, Any] = {"input_ids": torch.tensor([tokens], device=backbone.device)}
    if backbone.lm.config.is_encoder_decoder:
        start = backbone.start_token
        asked["decoder_input_ids"] = torch.tensor([[start]], device=backbone.device)
    logits: Tensor = backbone.lm(**asked, use_cache=False).logits
    return logits[0, -1]
