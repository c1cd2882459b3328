"""Features of texts from a frozen model's hidden states: a mean over a text's tokens, or its last one."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from weft.data.batch import Tokens, by_length
from weft.models.backbone import Backbone, TextState

Pooling = Literal["mean", "last"]
_Batches = Iterator[tuple[Sequence[int], Sequence[Tensor], Tensor]]  # places, layers' states, mask
Reading = tuple[int, Pooling]  # layer, from 0 for the embeddings, and how its states become one vector
Prompted = tuple[str, int]  # a prompt's name, and a layer, from 1 for the first block's output


@torch.no_grad()
def features(
    backbone: Backbone,
    sources: Sequence[Tokens],
    readings: Iterable[Reading],
    *,
    batch_size: int = 32,
    prompts_follow: bool = False,
) -> dict[Reading, NDArray[np.float32]]:
    """Vectors `[N, D]` of texts for each reading; a text is read once, or not at all where that is kept.

    Args:
        backbone: the frozen model.
        sources: texts as tokens.
        readings: layers and poolings.
        batch_size: rows read at once, of like length; it changes no number but for rounding.
        prompts_follow: the same texts are read under prompts next: where the model keeps texts, that is
            made on the way.
    """
    wanted = list(readings)
    found = {one: np.empty((len(sources), backbone.width), np.float32) for one in wanted}
    missing = backbone.kept.fill(found, sources)
    deepest = max((layer for layer, _ in wanted), default=0)
    some = [sources[i] for i in missing]
    keep = prompts_follow and backbone.keeps_texts
    read = _kept(backbone, some, deepest) if keep else _alone(backbone, some, deepest, batch_size)
    for batch, layers, mask in read:
        for layer, pooling in wanted:
            vectors = pooled(layers[layer].float(), mask, pooling)
            found[layer, pooling][[missing[i] for i in batch]] = vectors.cpu().numpy()
    backbone.kept.keep(found, sources, missing)
    return found


def _alone(backbone: Backbone, sources: Sequence[Tokens], deepest: int, batch_size: int) -> _Batches:
    """Texts in batches, and nothing is kept."""
    for batch in by_length(sources, batch_size):
        state = backbone.read([sources[i] for i in batch])
        with backbone.mode(dropout=False):
            yield batch, backbone.text_states(state, deepest), state.mask


def _kept(backbone: Backbone, sources: Sequence[Tokens], deepest: int) -> _Batches:
    """Texts one by one, as what keeps them reads them."""
    places: dict[Tokens, list[int]] = defaultdict(list)
    for i, source in enumerate(sources):
        places[source].append(i)
    for source, states in backbone.prepare_states(places, deepest):
        mask = torch.ones(1, len(source), dtype=torch.long, device=backbone.device)
        yield places[source], [layer[None] for layer in states], mask


@torch.no_grad()
def token_states(
    backbone: Backbone, sources: Sequence[Tokens], layers: Sequence[int], *, batch_size: int = 32
) -> dict[Tokens, NDArray[np.float32]]:
    """Each text's states `[L, S, D]` at some layers, of its own tokens in their order.

    Args:
        backbone: the frozen model.
        sources: different texts, as tokens.
        layers: from 0 for the embeddings.
        batch_size: rows read at once, of like length; it changes no number but for rounding.
    """
    found = {}
    for batch, states, mask in _alone(backbone, sources, max(layers), batch_size):
        own = torch.stack([states[layer].float() for layer in layers], 1).cpu().numpy()
        for row, i in enumerate(batch):
            found[sources[i]] = own[row][:, mask[row].bool().cpu().numpy()]
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
    shape = (len(sources), backbone.width)
    found = {(name, layer): np.empty(shape, np.float32) for name in prompts for layer in layers}
    kept = {
        name: {(_digest(prompt), layer): found[name, layer] for layer in layers}
        for name, prompt in prompts.items()
    }
    alike: dict[tuple[int, ...], list[str]] = defaultdict(list)  # prompts by the texts that they have not met
    for name in prompts:
        alike[tuple(backbone.kept.fill(kept[name], sources))].append(name)
    backbone.prepare(sources[i] for i in sorted(set(chain.from_iterable(alike))))
    for missing, names in alike.items():
        for batch in by_length([sources[i] for i in missing], batch_size):
            places = [missing[i] for i in batch]
            state = backbone.read([sources[i] for i in places])
            for name, states in zip(
                names, _answer_states(backbone, state, prompts, names, layers), strict=True
            ):
                for layer, vectors in zip(layers, states, strict=True):
                    found[name, layer][places] = vectors
        for name in names:
            backbone.kept.keep(kept[name], sources, missing)
    return found


def _digest(prompt: Tensor) -> bytes:
    """Names a prompt by its numbers: those of one name are not the same in every run."""
    return hashlib.sha256(prompt.float().cpu().numpy().tobytes()).digest()


def _answer_states(
    backbone: Backbone,
    state: TextState,
    prompts: Mapping[str, Float[Tensor, "P D"]],
    names: Sequence[str],
    layers: Sequence[int],
) -> NDArray[np.float32]:
    """States at the last position before an answer under some of the prompts, `[K, L, B, D]`."""
    some = torch.stack([prompts[name].to(backbone.device) for name in names])
    with backbone.mode(dropout=False):
        states = backbone.answer_states(state, some, layers)
    return torch.stack(states, 2).float().permute(1, 2, 0, 3).cpu().numpy()
