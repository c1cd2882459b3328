"""Features of texts from a frozen model's hidden states: a mean over a text's tokens, or its last one."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from weft.data.batch import Tokens, by_length
from weft.models.backbone import Backbone, HiddenSpec, TextState

Pooling = Literal["mean", "last"]
Reading = tuple[int, Pooling]  # layer, from 0 for the embeddings, and how its states become one vector
Prompted = tuple[str, int]  # a prompt's name, and a layer, from 1 for the first block's output


@torch.no_grad()
def features(
    backbone: Backbone, sources: Sequence[Tokens], readings: Iterable[Reading], *, batch_size: int = 32
) -> dict[Reading, NDArray[np.float32]]:
    """Vectors `[N, D]` of texts for each reading; a text is read once, or not at all where that is kept.

    Args:
        backbone: the frozen model.
        sources: texts as tokens.
        readings: layers and poolings.
        batch_size: rows read at once, of like length; it changes no number but for rounding.
    """
    wanted = list(readings)
    found = {one: np.empty((len(sources), backbone.width), np.float32) for one in wanted}
    missing = backbone.kept.fill(found, sources)
    for batch in by_length([sources[i] for i in missing], batch_size):
        places = [missing[i] for i in batch]
        state = backbone.read([sources[i] for i in places])
        with backbone.mode(dropout=False):
            layers = backbone.text_states(state)
        for layer, pooling in wanted:
            vectors = pooled(layers[layer].float(), state.mask, pooling)
            found[layer, pooling][places] = vectors.cpu().numpy()
    backbone.kept.keep(found, sources, missing)
    return found


def pooled(
    states: Float[Tensor, "B S D"], mask: Int[Tensor, "B S"], pooling: Pooling
) -> Float[Tensor, "B D"]:
    """One vector of each text: the mean of its tokens' states, or that of the last one."""
    if pooling == "mean":
        return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * places).argmax(1)
    return states[torch.arange(len(states), device=mask.device), last]


@torch.no_grad()
def prompted_features(
    backbone: Backbone,
    sources: Sequence[Tokens],
    prompts: Mapping[str, Float[Tensor, "P D"]],
    layers: Sequence[int],
    *,
    batch_size: int = 32,
) -> dict[Prompted, NDArray[np.float32]]:
    """The state that predicts an answer's first token `[N, D]`, under each prompt and of each layer.

    Args:
        backbone: the frozen model; where it keeps texts, each is read once for all prompts.
        sources: texts as tokens.
        prompts: name -> prompt.
        layers: from 1 for the first block's output; of an encoder-decoder, of its decoder.
        batch_size: rows read at once, of like length; it changes no number but for rounding.
    """
    spec = HiddenSpec(tuple(layer - 1 for layer in layers))
    shape = (len(sources), backbone.width)
    found = {(name, layer): np.empty(shape, np.float32) for name in prompts for layer in layers}
    kept = {
        (hashlib.sha256(prompt.float().cpu().numpy().tobytes()).digest(), layer): found[name, layer]
        for name, prompt in prompts.items()
        for layer in layers
    }  # prompts of one name are not the same in every run
    missing = backbone.kept.fill(kept, sources)
    backbone.prepare([sources[i] for i in missing])
    for batch in by_length([sources[i] for i in missing], batch_size):
        places = [missing[i] for i in batch]
        state = backbone.read([sources[i] for i in places])
        for name, prompt in prompts.items():
            states = _answer_states(backbone, state, prompt, spec)
            for layer, vectors in zip(layers, states, strict=True):
                found[name, layer][places] = vectors
    backbone.kept.keep(kept, sources, missing)
    return found


def _answer_states(
    backbone: Backbone, state: TextState, prompt: Float[Tensor, "P D"], spec: HiddenSpec
) -> list[NDArray[np.float32]]:
    """Each layer's state at the last position before an answer, `[B, D]`."""
    rows = len(state.sources)
    labels = torch.zeros(rows, 1, dtype=torch.long, device=backbone.device)  # predicted, never read
    with backbone.mode(dropout=False):
        outputs = backbone.forward(state, prompt.to(backbone.device).expand(rows, -1, -1), labels, spec)
    wanted = outputs.states[-len(spec.layers) :]  # an encoder's stand before those of the decoder
    return [states.hidden[:, -1].float().cpu().numpy() for states in wanted]
