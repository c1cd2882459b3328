"""weft's own method: many frozen readings of a text under the source prompts, each with a small reader."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from weft.evaluation.answers import Answer, chosen
from weft.methods.method import FittedMethod, Need, Saved, Setup
from weft.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

    from weft.data.batch import Tokens
    from weft.evaluation.readers import Reader
    from weft.models import Backbone

SHARED = "P*"  # name of the shared prompt among the source tasks' prompts
PROMPTED = (0.67, 0.84, 0.97)  # of the depth: layers whose answer state is read under each prompt
PLAIN = (0.17, 0.34, 0.5, 0.67, 0.84)  # of the depth: layers whose mean state is read without one
PROMPT = "prompt."  # before the names of prompts among the tensors
ARRAYS = ("weights", "bias", "mean", "scale", "weight")
View = tuple[str, int]  # a prompt's name, or none for the bare text, and a layer


class Weft(FittedMethod):
    """Readers of the text under every source prompt and under P*, weighted by cross-validation on the rows."""

    name: Literal["weft"] = "weft"
    strength: float = Field(0.01, gt=0, description="C of each reader's regression")
    sharpness: float = Field(10.0, ge=0, description="weight of a reader: exp(-sharpness * its held-out loss)")
    keeps: ClassVar[Literal["arrays"]] = "arrays"
    closed_only: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Need]:
        """The bank of the source stage and the teachers."""
        return frozenset({"source", "teachers"})

    def fit(self, setup: Setup) -> Saved:
        """Readers for each task, and the prompts they read under."""
        from weft.evaluation.readers import fit_readers

        reading = Reading(setup.backbone, {**setup.teachers, SHARED: setup.source.shared.detach()})
        tensors, notes, size = {f"{PROMPT}{name}": one for name, one in reading.prompts.items()}, {}, 0
        for k, (task, rows) in enumerate(zip(setup.tasks, setup.rows, strict=True)):
            texts = [setup.backbone.text_tokens(row.source, setup.source_tokens)[0] for row in rows]
            views, targets = reading.views(texts), [row.target for row in rows]
            readers = fit_readers(views, targets, strength=self.strength, sharpness=self.sharpness)
            kept, notes[task.name] = stored(readers)
            tensors |= {f"{k}.{name}": value for name, value in kept.items()}
            size += sum(value.numel() for value in kept.values())
        return Saved(tensors, notes, size)

    def restore(self, setup: Setup, saved: Saved) -> "WeightedReaders":
        """The readers that a run kept, on the frozen model."""
        prompts = {
            name.removeprefix(PROMPT): value for name, value in saved.tensors.items() if name.startswith(PROMPT)
        }
        readers = tuple(
            restored({name: saved.tensors[f"{k}.{name}"].numpy() for name in ARRAYS}, saved.notes[task.name])
            for k, task in enumerate(setup.tasks)
        )
        return WeightedReaders(Reading(setup.backbone, prompts), setup.tasks, setup.source_tokens, readers)


@dataclass(frozen=True)
class Reading:
    """What a frozen model makes of a text: the state before the answer under each prompt, and plain means.

    Attributes:
        backbone: the model.
        prompts: the source tasks' and the shared one, by name.
    """

    backbone: "Backbone"
    prompts: "Mapping[str, Tensor]"

    def views(self, texts: "Sequence[Tokens]", batch_size: int = 32) -> dict[View, Any]:
        """Vectors `[N, D]` of texts for each view."""
        from weft.models.features import features, prompted_features

        plain = [(layer, "mean") for layer in spread(PLAIN, self.backbone.depths[0])]
        layers = spread(PROMPTED, self.backbone.depths[-1])
        means = features(self.backbone, texts, plain, batch_size=batch_size)
        states = prompted_features(self.backbone, texts, self.prompts, layers, batch_size=batch_size)
        return {("", layer): x for (layer, _), x in means.items()} | states


def spread(shares: Sequence[float], depth: int) -> list[int]:
    """Layers at shares of a depth, each once, from 1 for the first block's output."""
    return sorted({max(1, round(share * depth)) for share in shares})


def stored(readers: "Mapping[View, Reader]") -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Readers as arrays with one row a view, and what is no number."""
    import torch

    every = list(readers.values())
    arrays = {
        "weights": [one.head.weights for one in every],
        "bias": [one.head.bias for one in every],
        "mean": [one.mean for one in every],
        "scale": [one.scale for one in every],
        "weight": [np.float32(one.weight) for one in every],
    }
    notes = {"answers": every[0].head.answers, "views": [list(view) for view in readers], "losses": [one.loss for one in every]}
    return {name: torch.from_numpy(np.stack(value)) for name, value in arrays.items()}, notes


def restored(arrays: Mapping[str, Any], notes: Mapping[str, Any]) -> "dict[View, Reader]":
    """Readers by view, from what `stored` made."""
    from weft.evaluation.linear import LinearHead
    from weft.evaluation.readers import Reader

    answers = tuple(notes["answers"])
    rows = zip(*(arrays[name] for name in ARRAYS), notes["views"], notes["losses"], strict=True)
    return {
        (str(view[0]), int(view[1])): Reader(mean, scale, LinearHead(weights, bias, answers), loss, float(weight))
        for weights, bias, mean, scale, weight, view, loss in rows
    }


@dataclass(frozen=True)
class WeightedReaders:
    """Readers of each task on one reading of the texts."""

    reading: Reading
    tasks: tuple[Task, ...]
    source_tokens: int
    readers: "tuple[dict[View, Reader], ...]"

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """See `Answerer`; a text that several tasks ask for is read once."""
        from weft.evaluation.answering import text_tokens
        from weft.evaluation.readers import mixed

        sources = [text_tokens(self.reading.backbone, i, text, self.source_tokens) for i, text in enumerate(texts)]
        every = list(dict.fromkeys(sources))
        place = {source: i for i, source in enumerate(every)}
        views = self.reading.views(every, batch_size=batch_size)
        answers: dict[int, Answer] = {}
        for k in sorted(set(task_ids)):
            rows = [i for i, one in enumerate(task_ids) if one == k]
            at, readers, choices = [place[sources[i]] for i in rows], self.readers[k], self.tasks[k].choices
            logs = [reader.log_shares(views[view][at], choices) for view, reader in readers.items()]
            shares = mixed(logs, [reader.weight for reader in readers.values()]).tolist()
            answers |= {i: chosen(self.tasks[k], one) for i, one in zip(rows, shares, strict=True)}
        return [answers[i] for i in range(len(texts))]
