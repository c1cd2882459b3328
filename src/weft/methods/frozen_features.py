"""A classifier on the hidden states of the frozen model: logistic regression, or the nearest class mean."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field, RootModel

from weft.config.base import Content
from weft.errors import ArtifactError, ConfigError
from weft.evaluation.answers import Answer, chosen_by_task
from weft.evaluation.class_means import class_means, leave_one_out, unit
from weft.evaluation.linear import standard
from weft.evaluation.received import Received, received
from weft.methods.kept import check_answers, check_once, check_shapes, numbered, of_task
from weft.methods.method import FittedMethod, Saved, Setup
from weft.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

    from weft.data.batch import Tokens
    from weft.evaluation.linear import LinearHead
    from weft.models import Backbone
    from weft.models.features import Reading

AXES = {"weights": "CD", "bias": "C", "mean": "D", "scale": "D"}


class Noted(Content):
    """What is noted of a task."""

    answers: list[str]
    layer: int = Field(ge=0)
    pooling: Literal["mean", "last"]


class FeatureClassifier(FittedMethod):
    """A linear classifier on standardised states of a frozen model; what is read, and C, by cross-validation.

    Where no rows can be held out, because answers have one row each, it is the middle reading at C = 1.
    """

    head: Literal["logistic", "class_mean"] = Field(
        "logistic", description="logistic regression, or the class whose mean is nearest (cosine)"
    )
    keeps: ClassVar[Literal["arrays"]] = "arrays"
    noted: ClassVar[type[BaseModel]] = RootModel[dict[str, Noted]]
    closed_only: ClassVar[bool] = True
    only_reads: ClassVar[bool] = True

    @abstractmethod
    def model(self, setup: Setup) -> "Backbone":
        """The frozen model that reads."""

    @abstractmethod
    def readings(self, backbone: "Backbone") -> "list[Reading]":
        """What to choose from, in the order in which the first of equal ones wins."""

    def fit(self, setup: Setup) -> Saved:
        """A reading of the model and a classifier for each task."""
        import torch

        backbone = self.model(setup)
        readings = self.readings(backbone)
        tensors: dict[str, Tensor] = {}
        notes: dict[str, dict[str, Any]] = {}
        size = 0
        for k, (task, rows) in enumerate(zip(setup.tasks, setup.rows, strict=True)):
            limit = backbone.most_tokens(setup.source_tokens[k])
            texts = [backbone.text_tokens(row.source, limit)[0] for row in rows]
            targets = [row.target for row in rows]
            reader, notes[task.name] = self._fitted(backbone, texts, targets, readings)
            tensors |= {f"{k}.{name}": torch.from_numpy(value) for name, value in reader.arrays().items()}
            size += reader.numbers
        return Saved(tensors, notes, size)

    def _fitted(
        self,
        backbone: "Backbone",
        texts: "Sequence[Tokens]",
        targets: Sequence[str],
        readings: "Sequence[Reading]",
    ) -> "tuple[Reader, dict[str, Any]]":
        """One task's reader and notes. All readings of many rows fill no memory: a part of them chooses."""
        from weft.evaluation.linear import choice_rows, fit_head
        from weft.models.features import features

        part = choice_rows(targets)
        found = features(backbone, [texts[i] for i in part], readings)
        reading, strength, score = self._choose(found, [targets[i] for i in part])
        notes = {"layer": reading[0], "pooling": reading[1], "C": strength, "validated": score}
        if len(part) < len(texts):
            found = features(backbone, texts, [reading])
            notes["chosen_on"] = len(part)
        x, mean, scale = standard(found[reading])
        head = class_means(x, targets) if strength is None else fit_head(x, targets, strength)
        reader = Reader(reading, mean, scale, head, self.head == "class_mean")
        return reader, {"answers": head.answers, **notes}

    def _choose(
        self, found: "Mapping[Reading, Any]", targets: Sequence[str]
    ) -> "tuple[Reading, float | None, float | None]":
        """The reading with the best accuracy on held-out rows (at C = 1), its best C, and the score then."""
        from weft.evaluation.linear import best_of, best_strength, cross_validated

        def score(one: "Reading") -> float | None:
            x, _, _ = standard(found[one])
            return cross_validated(x, targets, 1.0) if self.head == "logistic" else leave_one_out(x, targets)

        if self.head == "class_mean":
            reading, best = best_of(found, score, middle(found))
            return reading, None, best
        reading = best_of(found, score, middle(found))[0] if len(found) > 1 else middle(found)
        return reading, *best_strength(standard(found[reading])[0], targets)

    def restore(self, setup: Setup, saved: Saved) -> "FeatureClassifiers":
        """The classifiers that a run kept, on the frozen model."""
        from weft.evaluation.linear import LinearHead

        backbone = self.model(setup)
        check_kept(setup, saved, backbone)
        readers = []
        for k, task in enumerate(setup.tasks):
            kept = {
                name: saved.tensors[f"{k}.{name}"].numpy() for name in ("weights", "bias", "mean", "scale")
            }
            notes = saved.notes[task.name]
            head = LinearHead(kept["weights"], kept["bias"], tuple(notes["answers"]))
            reading = (notes["layer"], notes["pooling"])
            readers.append(Reader(reading, kept["mean"], kept["scale"], head, self.head == "class_mean"))
        limits = tuple(map(backbone.most_tokens, setup.source_tokens))
        return FeatureClassifiers(backbone, setup.tasks, limits, tuple(readers))


class FrozenFeatures(FeatureClassifier):
    """Mean or last hidden states of a layer of the base model."""

    name: Literal["frozen_features"] = "frozen_features"
    layers: tuple[int, ...] = Field(
        (), description="layers to choose from, 0 for the embeddings; none: all of them"
    )
    poolings: tuple[Literal["mean", "last"], ...] = Field(
        ("mean", "last"),
        min_length=1,
        description="what to choose from: the mean of a text's tokens, the last",
    )

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "frozen features + LR" if self.head == "logistic" else "frozen features, class mean"

    def model(self, setup: Setup) -> "Backbone":
        """The base model."""
        return setup.backbone

    def check(self, setup: Setup) -> None:
        """Refuse layers that the model does not have.

        Raises:
            ConfigError: naming the first.
        """
        self.readings(setup.backbone)

    def readings(self, backbone: "Backbone") -> "list[Reading]":
        """Layers and poolings as configured."""
        depth = backbone.depths[0] + 1
        check_layers(self.layers, depth)
        return [(layer, pooling) for pooling in self.poolings for layer in self.layers or range(depth)]


@dataclass(frozen=True)
class Reader:
    """How a task reads the model's states: a layer pooled, standardised, and a linear head.

    Attributes:
        reading: layer and pooling.
        mean: of the training rows' features `[D]`.
        scale: by which they were divided `[D]`.
        head: on what is left.
        unit: whether it is on features of length 1: class means.
    """

    reading: "Reading"
    mean: Any
    scale: Any
    head: "LinearHead"
    unit: bool

    @property
    def numbers(self) -> int:
        """How many numbers were computed from the rows: the head's free ones, mean and scale."""
        from weft.evaluation.linear import fitted_numbers

        head = self.head.weights.size if self.unit else fitted_numbers(self.head)
        return int(head + self.mean.size + self.scale.size)

    def arrays(self) -> dict[str, Any]:
        """What a run keeps of it."""
        return {
            "weights": self.head.weights,
            "bias": self.head.bias,
            "mean": self.mean,
            "scale": self.scale,
        }

    def shares(self, features: Any, choices: Sequence[str]) -> Any:
        """Probability of each choice `[N, C]` from the model's features `[N, D]`."""
        with np.errstate(over="ignore"):  # `chosen` refuses what is no number
            x = (features - self.mean) / self.scale
        return self.head.shares(unit(x) if self.unit else x, choices)


@dataclass(frozen=True)
class FeatureClassifiers:
    """A reader for each task, on one frozen model."""

    backbone: "Backbone"
    tasks: tuple[Task, ...]
    source_tokens: tuple[int, ...]
    readers: tuple[Reader, ...]

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """See `Answerer`; a text that several tasks ask for is read once."""
        from weft.evaluation.answering import texts_tokens
        from weft.models.features import features

        sources = texts_tokens(self.backbone, texts, [self.source_tokens[k] for k in task_ids])
        every: list[Tokens] = list(dict.fromkeys(sources))
        readings = dict.fromkeys(self.readers[k].reading for k in task_ids)
        found = features(self.backbone, every, readings, batch_size=batch_size)
        place = {source: i for i, source in enumerate(every)}

        def shares(k: int, rows: list[int]) -> Any:
            x = found[self.readers[k].reading][[place[sources[i]] for i in rows]]
            return self.readers[k].shares(x, self.tasks[k].choices)

        return chosen_by_task(self.tasks, task_ids, shares)

    def received(self, text: str, fields: Sequence[str], task_id: int) -> Received:
        """See `Receives`."""
        return received(self.backbone, text, fields, self.source_tokens[task_id])


def check_kept(setup: Setup, saved: Saved, backbone: "Backbone") -> None:
    """Refuse layers, answers and numbers that do not fit the model, the tasks or each other.

    Raises:
        ArtifactError: naming the first.
    """
    sizes: dict[str, int] = {}
    depth, width = backbone.depths[0] + 1, backbone.width
    for k, task in enumerate(setup.tasks):
        notes = of_task(saved.notes, task)
        check_answers(notes["answers"], task)
        check_once("answers", notes["answers"], task)
        if notes["layer"] >= depth:
            raise ArtifactError(
                f"the run reads layer {notes['layer']} for task {task.name!r}, and the model has {depth}",
                code="A07",
            )
        sizes |= {f"C{k}": len(notes["answers"]), f"D{k}": width}
    check_shapes(saved.tensors, numbered(AXES, len(setup.tasks)), **sizes)
    for name, value in saved.tensors.items():
        if name.endswith(".scale") and not bool((value > 0).all()):
            raise ArtifactError(f"{name!r} holds values that are not above 0", code="A05")


def check_layers(layers: Sequence[int], depth: int) -> None:
    """Refuse layers that the model does not have.

    Raises:
        ConfigError: naming the first.
    """
    wrong = [layer for layer in layers if not 0 <= layer < depth]
    if wrong:
        raise ConfigError(
            f"layer {wrong[0]} does not exist; the model has layers 0 (the embeddings) to {depth - 1}",
            where="method.layers",
            fix=f"name layers from 0 to {depth - 1}",
            code="C06",
        )


def middle(readings: "Iterable[Reading]") -> "Reading":
    """What is read where no rows can speak for a layer: the mean of the middle one, if they are offered."""
    layers, poolings = (list(dict.fromkeys(part)) for part in zip(*readings, strict=True))
    return sorted(layers)[len(layers) // 2], "mean" if "mean" in poolings else poolings[0]
