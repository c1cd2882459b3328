"""weft's own method: frozen readings of a text, bare and under the source tasks' prompts, and one small head.

`docs/weft-method.md` writes it up. What a task keeps is its head on a few views; prompts and encoders are
shared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field, RootModel

from weft.config.base import Content
from weft.errors import ArtifactError
from weft.evaluation.answers import Answer, chosen_by_task
from weft.methods.kept import check_answers, check_once, check_shapes, of_task
from weft.methods.method import FittedMethod, Need, Saved, Setup
from weft.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

    from weft.evaluation.linear import LinearHead
    from weft.evaluation.views import View, Views

SHARED = "P*"  # name of the shared prompt among the source tasks' prompts
PROMPT = "prompt."  # before the names of prompts among the tensors


class NotedView(Content):
    """A view that a task reads: encoder (none: the base model), prompt (none: the bare text) and layer."""

    encoder: str
    prompt: str
    layer: int
    weight: float

    @property
    def name(self) -> "View":
        """As `Views` names it."""
        return self.encoder, self.prompt, self.layer


class Noted(Content):
    """What is noted of a task."""

    answers: list[str] = Field(min_length=1)
    views: list[NotedView] = Field(min_length=1)


def views_of(notes: Mapping[str, Any]) -> "tuple[View, ...]":
    """The views that a task reads, as `Views` names them."""
    return tuple(NotedView(**view).name for view in notes["views"])


class Weft(FittedMethod):
    """A reader of each view of the text, weighted by held-out rows; together they are one linear head."""

    name: Literal["weft"] = "weft"
    sources: bool = Field(
        True, description="read under the source tasks' prompts and P* too; needs their runs"
    )
    encoders: tuple[str, ...] = Field(
        ("minilm",), description="frozen encoders that read beside the base model: names, folders or hub ids"
    )
    strength: float = Field(0.01, gt=0, description="C of each reader's regression")
    sharpness: float = Field(10.0, ge=0, description="a reader weighs exp(-sharpness * its held-out loss)")
    views: int = Field(8, gt=0, description="how many views a task keeps, those with the largest weights")
    keeps: ClassVar[Literal["arrays"]] = "arrays"
    noted: ClassVar[type[BaseModel]] = RootModel[dict[str, Noted]]
    closed_only: ClassVar[bool] = True
    only_reads: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Need]:
        """The bank of the source stage and the teachers, if it reads under them."""
        return frozenset({"source", "teachers"}) if self.sources else frozenset()

    @property
    def also_reads(self) -> tuple[str, ...]:
        """The encoders."""
        return self.encoders

    def fit(self, setup: Setup) -> Saved:
        """A head for each task, and the prompts under which it reads."""
        import torch

        from weft.evaluation.linear import fitted_numbers

        prompts = {**setup.teachers, SHARED: setup.source.shared.detach()} if self.sources else {}
        views = self._views(setup, prompts)
        tensors: dict[str, Tensor] = {}
        notes, used, size = {}, set[str](), 0
        for k, (task, rows) in enumerate(zip(setup.tasks, setup.rows, strict=True)):
            texts, targets = [row.source for row in rows], [row.target for row in rows]
            head, shares = self._fitted(views, texts, targets, setup.source_tokens)
            tensors |= {
                f"{k}.weights": torch.from_numpy(head.weights),
                f"{k}.bias": torch.from_numpy(head.bias),
            }
            notes[task.name] = {
                "answers": head.answers,
                "views": [
                    NotedView(encoder=view[0], prompt=view[1], layer=view[2], weight=share).model_dump()
                    for view, share in shares.items()
                ],
            }
            used |= {prompt for _, prompt, _ in shares}
            size += fitted_numbers(head)
        tensors |= {f"{PROMPT}{name}": one for name, one in prompts.items() if name in used}
        return Saved(tensors, notes, size)

    def _fitted(
        self, views: "Views", texts: Sequence[str], targets: Sequence[str], limit: int
    ) -> "tuple[LinearHead, dict[View, float]]":
        """A head on the views that are kept, and their weights. All views of many rows fill no memory."""
        from weft.evaluation.linear import choice_rows
        from weft.evaluation.readers import fit_reader, mixture

        part = choice_rows(targets)
        read = views.read([texts[i] for i in part], limit)
        kept, factor = self._weights(read, [targets[i] for i in part])
        if len(part) < len(texts):
            read = views.read(texts, limit, kept)
        heads = {view: fit_reader(read[view], targets, self.strength) for view in kept}
        return mixture(heads, kept, factor), kept

    def _weights(
        self, read: "Mapping[View, Any]", targets: Sequence[str]
    ) -> "tuple[dict[View, float], float]":
        """The weights of the views that are kept, and how sure their mixture may be."""
        from weft.evaluation.readers import confidence, heaviest, hold_out, mixed, weights

        held = {view: hold_out(x, targets, self.strength) for view, x in read.items()}
        shares = weights([one.loss for one in held.values()], self.sharpness).tolist()
        kept = heaviest(dict(zip(held, shares, strict=True)), self.views)
        return kept, confidence(mixed([held[view] for view in kept], list(kept.values())))

    def _views(self, setup: Setup, prompts: "Mapping[str, Tensor]") -> "Views":
        from weft.evaluation.views import Views

        encoders = {name: setup.load_encoder(name) for name in self.encoders}
        return Views(setup.backbone, prompts, encoders)

    def restore(self, setup: Setup, saved: Saved) -> "ViewClassifiers":
        """The heads that a run kept, on the frozen models."""
        from weft.evaluation.linear import LinearHead

        prompts = {
            name.removeprefix(PROMPT): one for name, one in saved.tensors.items() if name.startswith(PROMPT)
        }
        views = self._views(setup, prompts)
        check_kept(setup, saved, views)
        heads = []
        for k, task in enumerate(setup.tasks):
            notes = saved.notes[task.name]
            parts = [saved.tensors[f"{k}.{name}"].numpy() for name in ("weights", "bias")]
            heads.append((views_of(notes), LinearHead(parts[0], parts[1], tuple(notes["answers"]))))
        return ViewClassifiers(views, setup.tasks, setup.source_tokens, tuple(heads))


@dataclass(frozen=True)
class ViewClassifiers:
    """A head for each task on its views, on one reading of the texts."""

    views: "Views"
    tasks: tuple[Task, ...]
    source_tokens: int
    heads: "tuple[tuple[tuple[View, ...], LinearHead], ...]"

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """See `Answerer`; a text that several tasks ask for is read once, in the views that any keeps."""
        every = list(dict.fromkeys(texts))
        place = {text: i for i, text in enumerate(every)}
        wanted = {view for k in task_ids for view in self.heads[k][0]}
        read = self.views.read(every, self.source_tokens, wanted, batch_size=batch_size)

        def shares(k: int, rows: list[int]) -> Any:
            views, head = self.heads[k]
            places = [place[texts[i]] for i in rows]
            return head.shares(
                np.concatenate([read[view][places] for view in views], 1), self.tasks[k].choices
            )

        return chosen_by_task(self.tasks, task_ids, shares)


def check_kept(setup: Setup, saved: Saved, views: "Views") -> None:
    """Refuse views, answers and numbers that do not fit the models, the tasks or each other.

    Raises:
        ArtifactError: naming the first.
    """
    axes: dict[str, Sequence[str]] = {f"{PROMPT}{name}": "PD" for name in views.prompts}
    sizes = {"D": setup.backbone.width}
    there = set(views.names)
    for k, task in enumerate(setup.tasks):
        notes = of_task(saved.notes, task)
        check_answers(notes["answers"], task)
        check_once("answers", notes["answers"], task)
        kept = views_of(notes)
        check_once("views", [" ".join(map(str, view)) for view in kept], task)
        if unknown := [view for view in kept if view not in there]:
            raise ArtifactError(
                f"the run reads {unknown[0]} for task {task.name!r}, which is not there", code="A07"
            )
        axes |= {f"{k}.weights": [f"C{k}", f"F{k}"], f"{k}.bias": [f"C{k}"]}
        sizes |= {f"C{k}": len(notes["answers"]), f"F{k}": sum(views.width(view) for view in kept)}
    check_shapes(saved.tensors, axes, **sizes)
