"""Pairs of texts and whether they say the same, by the sentence vectors of the encoder that is borrowed.

Apart, the encoder tells texts alike (it was trained to, Apache-2.0); a text-to-text model reads both at once
and has to learn it again. Pairs are neighbours, and texts with a turn of their own wording; nothing but the
cosine says what they are, so no labelled pairs are needed.
"""

import random
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, BertModel

from weft.models.bundled import minilm_folder

SAME = 0.8  # cosine from which on a pair counts as the same
NEIGHBOURS, BATCH = 8, 256
FRAMES = {  # how a question may begin, and other ways to begin it
    "what is the best way to": ["how do i", "how can i"],
    "how many": ["what number of", "what is the number of"],
    "in what year": ["when", "what year"],
    "what year": ["in which year", "when"],
    "when did": ["in what year did", "on what date did"],
    "what is": ["what's", "can you tell me what is", "do you know what is", "what exactly is"],
    "what was": ["can you tell me what was", "what exactly was"],
    "who was": ["what person was", "do you know who was"],
    "who": ["what person", "which person"],
    "where": ["in what place", "in which place"],
    "why": ["for what reason", "what is the reason that"],
    "which": ["what"],
    "how": ["in what way"],
    "what": ["which"],
}


def pairs(texts: Sequence[str], seed: int) -> Iterator[tuple[str, str, str]]:
    """Two texts and same or different, as many of the one as of the other.

    Of those that are the same, half at least are two texts as they were found: so it is not the turned
    wording that tells.

    Args:
        texts: questions and short sentences, none twice.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    vectors = embedded(texts)
    beside = [draw.choice(row) for row in neighbours(vectors).tolist()]
    turned = [_turned(draw, text, texts[other]) for text, other in zip(texts, beside, strict=True)]
    found = _parted(texts, [texts[i] for i in beside], (vectors * vectors[beside]).sum(1))
    made = _parted(texts, turned, (vectors * embedded(turned)).sum(1))
    same = found[True] + _some(draw, made[True], len(found[True]))
    different = _some(draw, made[False], len(same) // 2)
    different += _some(draw, found[False], len(same) - len(different))
    count = min(len(same), len(different))
    for label, every in (("same", same), ("different", different)):
        yield from ((*pair, label) for pair in _some(draw, every, count))


def _parted(
    texts: Sequence[str], others: Sequence[str], cosines: Tensor
) -> dict[bool, list[tuple[str, str]]]:
    parted: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for one, other, alike in zip(texts, others, (cosines > SAME).tolist(), strict=True):
        if one != other:
            parted[alike].append((one, other))
    return parted


def _some(draw: random.Random, pairs: list[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    return draw.sample(pairs, min(most, len(pairs)))


@torch.no_grad()
def embedded(texts: Sequence[str]) -> Tensor:
    """Unit vectors `[N, D]`, the means of the encoder's states."""
    encoder = BertModel.from_pretrained(minilm_folder(), add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = torch.empty(len(texts), encoder.config.hidden_size)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        rows = tokenizer(
            [texts[i] for i in part], padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        mask = rows["attention_mask"][:, :, None]
        states = encoder(**rows).last_hidden_state
        found[part] = (states * mask).sum(1) / mask.sum(1)
    return F.normalize(found, dim=1)


def neighbours(vectors: Tensor) -> Tensor:
    """Numbers of every vector's nearest others `[N, NEIGHBOURS]`."""
    parts = []
    for start in range(0, len(vectors), 1024):
        alike = vectors[start : start + 1024] @ vectors.T
        alike[torch.arange(len(alike)), torch.arange(start, start + len(alike))] = -1
        parts.append(alike.topk(NEIGHBOURS, dim=1).indices)
    return torch.cat(parts)


def _turned(draw: random.Random, text: str, other: str) -> str:
    """A text begun in another way, or with words dropped, moved, or taken from its neighbour."""
    words, theirs = _framed(draw, text.split()), other.split()
    turn = draw.choice(("frame", "drop", "take", "move"))
    if turn == "drop":
        for _ in range(draw.randint(1, 3)):
            words.pop(draw.randrange(len(words)))
    elif turn == "take":
        for _ in range(draw.randint(1, 2)):
            words[draw.randrange(len(words))] = draw.choice(theirs)
    elif turn == "move":
        at = draw.randrange(1, len(words))
        words = words[at:] + words[:at]
    return " ".join(words)


def _framed(draw: random.Random, words: list[str]) -> list[str]:
    text = " ".join(words)
    for begin, others in FRAMES.items():
        if text.lower().startswith(f"{begin} "):
            return f"{draw.choice(others)}{text[len(begin) :]}".split()
    return words
