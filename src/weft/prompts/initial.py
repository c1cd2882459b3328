"""First values of prompts: embeddings of common words, or of a text."""

import torch
from jaxtyping import Float
from torch import Tensor

from weft.errors import UnsupportedError

COMMON_TOKENS = 5000


def sampled_vocabulary(
    embeddings: Float[Tensor, "V D"], length: int, *, exclude: set[int], generator: torch.Generator
) -> Float[Tensor, "P D"]:
    """Embeddings of `length` different tokens among the 5,000 commonest.

    Sub-word vocabularies are ordered by frequency, after single signs, so the commonest are those with the
    lowest ids that are text (`Backbone.special_ids` are not).
    """
    common = [i for i in range(len(embeddings)) if i not in exclude][:COMMON_TOKENS]
    picks = torch.randperm(len(common), generator=generator)
    chosen = [common[int(picks[i % len(common)])] for i in range(length)]
    return embeddings[torch.tensor(chosen, device=embeddings.device)].detach().clone().float()


def repeated_tokens(
    embeddings: Float[Tensor, "V D"], token_ids: list[int], length: int
) -> Float[Tensor, "P D"]:
    """Embeddings of a text's tokens, repeated or cut to the prompt's length.

    Raises:
        UnsupportedError: if the text has no token.
    """
    if not token_ids:
        raise UnsupportedError(
            "the text that should start the prompt has no token",
            where="prompt.init_text",
            fix="give another init_text",
            code="C12",
        )
    chosen = [token_ids[i % len(token_ids)] for i in range(length)]
    return embeddings[torch.tensor(chosen, device=embeddings.device)].detach().clone().float()
