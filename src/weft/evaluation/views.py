"""Views of texts: what frozen models make of them, bare and under prompts, each as one vector a text."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from weft.data.batch import Tokens
from weft.evaluation.answering import texts_tokens
from weft.evaluation.answers import TextError
from weft.evaluation.class_means import unit
from weft.evaluation.received import Received, joined, received
from weft.models import Backbone
from weft.models.features import Reading, features, prompted_features

WORDS = "words"  # as `View.compares`
Cut = tuple[str, int]  # a text, and the most tokens that are read of it
Limit = int | Sequence[int]  # the most tokens of all texts, or of each
PROMPTED = (0.67, 0.84, 0.97)  # of the depth: layers whose answer state is read under each prompt
PLAIN = (0.17, 0.34, 0.5, 0.67, 0.84)  # of the depth: layers whose mean state is read without one


class View(NamedTuple):
    """One way to see a text.

    Attributes:
        encoder: the model that reads; none: the base model.
        prompt: under which it reads; none: the bare text.
        layer: whose states are taken.
        compares: `words`: the vector is made one long, to be held against those of the answers' words; else
            what is read of the text's fields, each alone (`fields`); none: neither.
    """

    encoder: str
    prompt: str
    layer: int
    compares: str = ""

    @property
    def apart(self) -> bool:
        """Whether the text's fields are read, and not the whole text."""
        return self.compares not in ("", WORDS)


@dataclass(frozen=True)
class Views:
    """Frozen models and the prompts under which they read.

    Attributes:
        backbone: the base model: mean states of a text at five depths, and the state before an answer at
            three depths under each prompt. Of a base that is an encoder, the mean states of every layer.
        prompts: of the source tasks, and the shared one, by name.
        encoders: that read beside it, by name: mean states of every layer.
        scales: deviation of a view's columns `[D]` over texts of other tasks, where it is known.
    """

    backbone: Backbone
    prompts: Mapping[str, Float[Tensor, "P D"]]
    encoders: Mapping[str, Backbone]
    scales: Mapping[View, Any] = field(default_factory=dict)

    @cached_property
    def names(self) -> list[View]:
        """All views, the base model's first."""
        depths = self.backbone.depths
        bare = range(depths[0] + 1) if self.backbone.only_reads else spread(PLAIN, depths[0])
        names = [View("", "", layer) for layer in bare]
        names += [
            View("", prompt, layer) for prompt in self.prompts for layer in spread(PROMPTED, depths[-1])
        ]
        for name, encoder in self.encoders.items():
            names += [View(name, "", layer) for layer in range(encoder.depths[0] + 1)]
        return names

    @cached_property
    def words(self) -> list[View]:
        """Of each encoder the last layer's mean, made one long: products with answers' words are cosines."""
        models = {**({"": self.backbone} if self.backbone.only_reads else {}), **self.encoders}
        return [View(name, "", model.depths[0], WORDS) for name, model in models.items()]

    def knows(self, view: View) -> bool:
        """Whether it can read a view: that of a run may lie at another depth than those of `names`."""
        model = self.encoders.get(view.encoder) if view.encoder else self.backbone
        if model is None or view.apart or view.prompt not in ("", *self.prompts):
            return False
        return bool(view.prompt) <= view.layer <= model.depths[-1 if view.prompt else 0]

    def beside(self, views: Iterable[View]) -> list[View]:
        """All views of `names` that the same readings give: of one model, bare or under one prompt."""
        read = {view[:2] for view in views if not view.compares}
        return [view for view in self.names if view[:2] in read]

    def width(self, view: View) -> int:
        """How many numbers a view has."""
        return (self.encoders[view.encoder] if view.encoder else self.backbone).width

    def read(
        self,
        texts: Sequence[str],
        limit: Limit,
        wanted: Collection[View] | None = None,
        *,
        batch_size: int = 32,
    ) -> dict[View, Any]:
        """Vectors `[N, D]` of texts for each view; each text is read once by each model that is asked for.

        Args:
            texts: the texts.
            limit: longest text, in each model's tokens.
            wanted: the views, of which those that it knows are read; none: all of `names`.
            batch_size: rows read at once, of like length; it changes no number but for rounding.

        Raises:
            TextError: for a text without a token.
        """
        views = self.names if wanted is None else sorted(view for view in wanted if self.knows(view))
        found: dict[View, Any] = {}
        for name in dict.fromkeys(view.encoder for view in views):
            model = self.encoders[name] if name else self.backbone
            sources = _tokens(model, texts, limit)
            own = [(view.prompt, view.layer) for view in views if view.encoder == name]
            found |= {View(name, *view): x for view, x in self._read(model, sources, own, batch_size).items()}
        plain = {view: found[view._replace(compares="")] for view in views}
        return {view: unit(x) if view.compares else x for view, x in plain.items()}

    def read_ahead(self, texts: Sequence[str], limit: Limit) -> None:
        """Read texts bare by the base model where prompts go on from that: many fill its reads, few do not.

        Args:
            texts: all that will be read, in some views or others.
            limit: longest text, in the model's tokens.
        """
        if self.prompts and self.backbone.keeps_texts and self.backbone.kept.room:
            bare: list[Reading] = [(view.layer, "mean") for view in self.names if view[:2] == ("", "")]
            features(self.backbone, _tokens(self.backbone, texts, limit), bare, prompts_follow=True)

    def received(self, views: Iterable[View], text: str, fields: Sequence[str], limit: int) -> Received:
        """What the models of some views receive of a text, whole or field by field."""
        parts = []
        for name, apart in sorted({(view.encoder, view.apart) for view in views}):
            model = self.encoders[name] if name else self.backbone
            longest = model.most_tokens(limit)
            parts += [received(model, one, fields, longest) for one in (fields if apart else (text,))]
        return joined(parts)

    def _read(
        self, model: Backbone, sources: Sequence[Tokens], views: Sequence[tuple[str, int]], batch_size: int
    ) -> dict[tuple[str, int], Any]:
        """One model's views, by prompt and layer; a prompt is read in all layers that any asks for."""
        readings: list[Reading] = [(layer, "mean") for prompt, layer in views if not prompt]
        prompts = {prompt: self.prompts[prompt] for prompt, _ in views if prompt}
        layers = sorted({layer for prompt, layer in views if prompt})
        found: dict[tuple[str, int], Any] = {}
        if readings:
            means = features(model, sources, readings, batch_size=batch_size, prompts_follow=bool(prompts))
            found = {("", layer): x for (layer, _), x in means.items()}
        if prompts:
            found |= prompted_features(model, sources, prompts, layers, batch_size=batch_size)
        return found


def cuts(texts: Sequence[str], limit: Limit) -> list[Cut]:
    """Each text with its limit."""
    limits = [limit] * len(texts) if isinstance(limit, int) else limit
    return list(zip(texts, limits, strict=True))


def _tokens(model: Backbone, texts: Sequence[str], limit: Limit) -> list[Tokens]:
    """Texts as a model reads them, each cut to its limit or to the model's own.

    Raises:
        TextError: for a text without a token.
    """
    return texts_tokens(model, texts, [model.most_tokens(most) for _, most in cuts(texts, limit)])


def heaviest_prompts(shares: Mapping[View, float], most: int) -> list[str]:
    """The prompts whose views have the largest weights together; of equal ones the first."""
    together: dict[str, float] = defaultdict(float)
    for view, share in shares.items():
        if view.prompt:
            together[view.prompt] += share
    return sorted(together, key=lambda prompt: -together[prompt])[:most]


def spread(shares: Sequence[float], depth: int) -> list[int]:
    """Layers at shares of a depth, each once, from 1 for the first block's output."""
    return sorted({max(1, round(share * depth)) for share in shares})


def read_once(
    texts: Mapping[int, Cut], read: Callable[[list[Cut]], dict[View, Any]]
) -> tuple[dict[int, int], dict[View, Any]]:
    """Each different text with its limit read once: the place of each row in what was read, and that.

    Raises:
        TextError: with the row's own number.
    """
    every = list(dict.fromkeys(texts.values()))
    try:
        found = read(every)
    except TextError as fault:
        number = next(i for i, text in texts.items() if text == every[fault.number])
        raise TextError(number, fault) from None
    place = {text: n for n, text in enumerate(every)}
    return {i: place[text] for i, text in texts.items()}, found
