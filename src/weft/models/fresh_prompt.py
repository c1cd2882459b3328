"""A prompt to start from, in a model's own embeddings."""

import torch
from jaxtyping import Float
from torch import Tensor

from weft.config.training import PromptConfig
from weft.errors import ConfigError
from weft.models.backbone import Backbone
from weft.prompts.initial import repeated_tokens, sampled_vocabulary


def fresh_prompt(
    backbone: Backbone, prompt: PromptConfig, *, seed: int, choices: tuple[str, ...] = ()
) -> Float[Tensor, "P D"]:
    """A prompt to start from: sampled vocabulary, a text without its special tokens, or the label words.

    Args:
        backbone: gives embeddings and tokenizer.
        prompt: length and kind of start.
        seed: of the draw from the vocabulary.
        choices: label words, for `labels`.

    Raises:
        ConfigError: for a start that needs label words where there are none, or teachers.
        UnsupportedError: for a text of which no word is left.
    """
    if prompt.init == "vocabulary":
        generator = torch.Generator().manual_seed(seed)
        return backbone.embed_scale * sampled_vocabulary(
            backbone.embeddings, prompt.length, exclude=backbone.special_ids, generator=generator
        )
    if prompt.init == "text":
        textless = backbone.special_ids
        words = [token for token in backbone.codec.bare(prompt.init_text) if token not in textless]
        return backbone.embed_scale * repeated_tokens(backbone.embeddings, words, prompt.length)
    if prompt.init == "labels" and choices:
        tokens = [token for word in choices for token in backbone.answer_tokens(word)[:-1]]
        return backbone.embed_scale * repeated_tokens(backbone.embeddings, tokens, prompt.length)
    raise ConfigError(
        f"a prompt of this task cannot start from {prompt.init}",
        where="prompt.init",
        fix="labels needs a task with label words; teachers is for the source stage; vocabulary always works",
        code="C12",
    )
