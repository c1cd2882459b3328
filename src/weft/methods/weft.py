"""weft's own method: frozen readings of a text, bare and under the source tasks' prompts, and one small head.

`docs/weft-method.md` writes it up. What a task keeps is its head on a few views; prompts and encoders are
shared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field, PositiveFloat, RootModel

from weft.evaluation.answers import Answer, chosen_by_task
from weft.evaluation.received import Received
from weft.methods.kept_views import (
    Noted,
    NotedView,
    check_kept,
    prompts_of,
    scales_of,
    shared_tensors,
    views_of,
)
from weft.methods.method import FittedMethod, Need, Saved, Setup
from weft.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

    from weft.evaluation.fields import FieldViews
    from weft.evaluation.linear import LinearHead
    from weft.evaluation.readers import HeldOut
    from weft.evaluation.view_heads import TaskRows
    from weft.evaluation.views import Cut, View, Views

AHEAD = 500  # rows that are read bare at once; of more, those that choose come first, and views decide
SHARED = "P*"  # name of the shared prompt among the source tasks' prompts


class Weft(FittedMethod):
    """One linear head on the views of the text that held-out rows prefer, each as long as it is worth."""

    name: Literal["weft"] = "weft"
    sources: bool = Field(
        True, description="read under the source tasks' prompts and P* too; needs their runs"
    )
    encoders: tuple[str, ...] = Field(
        ("minilm",), description="frozen encoders that read beside the base model: names, folders or hub ids"
    )
    opens: bool = Field(True, description="the first word's state too, where a text is one field")
    compare: bool = Field(True, description="where a text has two or three fields, they are compared as well")
    words: bool = Field(True, description="texts are held against the words of the answers too")
    strength: float = Field(
        0.01, gt=0, description="C of a reader's regression on as many columns as its model"
    )
    strengths: tuple[PositiveFloat, ...] = Field(
        (1.0, 0.25, 4.0),
        min_length=1,
        description="multiples of it for the head on all kept views, of which held-out rows choose one",
    )
    sharpness: float = Field(
        10.0, ge=0, description="a view weighs exp(-sharpness * its reader's held-out loss)"
    )
    views: int = Field(8, gt=0, description="how many views a task keeps, those with the largest weights")
    prompts: int = Field(
        2, gt=0, description="under how many prompts a task reads at most, those whose views weigh most"
    )
    worth: float = Field(
        0.02,
        description="views under prompts are kept if they lower the held-out loss more (nats); -1000: always",
    )
    looks: int = Field(
        32,
        gt=0,
        description="rows that choose these views, of few answers eight of each; all rows weigh them",
    )
    bits: Literal[1, 2, 4, 8] = Field(
        4, description="of a weight that is kept, on views whose scale comes with weft; 8 on others"
    )
    held: int = Field(
        256, gt=0, description="rows that are held out in turn, by whole folds, to weigh the views"
    )
    fits: int = Field(
        20_000, gt=0, description="rows that are fitted at most; of more, each answer keeps its share"
    )
    keeps: ClassVar[Literal["arrays"]] = "arrays"
    noted: ClassVar[type[BaseModel]] = RootModel[dict[str, Noted]]
    closed_only: ClassVar[bool] = True
    only_reads: ClassVar[bool] = True
    apart: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Need]:
        """The bank of the source stage and the teachers, if it reads under them."""
        return frozenset({"source", "teachers"}) if self.sources else frozenset()

    @property
    def also_reads(self) -> tuple[str, ...]:
        """The encoders."""
        return self.encoders

    def field_readers(self, fields: int) -> tuple[str, ...]:
        """The models that read the fields of a text apart, of so many; "" is the base model."""
        from weft.evaluation.fields import MOST

        if fields == 1:
            return self.encoders if self.opens else ()
        return (self.encoders or ("",)) if self.compare and fields <= MOST else ()

    def renamed(self, name: Callable[[str], str]) -> "Weft":
        """See `Method`."""
        return self.model_copy(update={"encoders": tuple(map(name, self.encoders))})

    def fit(self, setup: Setup) -> Saved:
        """A head for each task, the prompts under which it reads, and scales of its views."""
        import torch

        from weft.evaluation.few_bits import FewBits
        from weft.evaluation.linear import choice_rows, fitted_numbers
        from weft.evaluation.view_heads import TaskRows, field_views, parts_of
        from weft.evaluation.views import View

        prompts = {**setup.teachers, SHARED: setup.source.shared.detach()} if self.sources else {}
        views = self._views(setup, prompts, setup.load_scales())
        tensors: dict[str, Tensor] = {}
        notes, used, size = {}, set[View](), 0
        for k, (task, rows) in enumerate(zip(setup.tasks, setup.rows, strict=True)):
            fitted = [rows[i] for i in choice_rows([row.target for row in rows], self.fits)]
            fields = field_views(views, task.template, opens=self.opens, compares=self.compare)
            read = TaskRows.of(fitted, views, fields, setup.source_tokens[k])
            head, shares, means = self._fitted(read)
            kept = FewBits.of(head, parts_of(views, fields, list(shares), self.bits), means)
            tensors |= {f"{k}.{name}": torch.from_numpy(value) for name, value in vars(kept).items()}
            noted = [NotedView(**view._asdict(), weight=share) for view, share in shares.items()]
            notes[task.name] = {"answers": head.answers, "views": [view.model_dump() for view in noted]}
            used |= set(shares)
            size += fitted_numbers(head)
        return Saved(tensors | shared_tensors(views, used), notes, size)

    def _fitted(self, rows: "TaskRows") -> "tuple[LinearHead, dict[View, float], Any]":
        """A head on the views that are kept; see `TaskRows.head`. All views of many rows fill no memory."""
        from weft.evaluation.linear import choice_rows
        from weft.evaluation.readers import best_views, first_rows

        few, some = first_rows(rows.texts, rows.targets, self.looks), choice_rows(rows.targets)
        rows.views.read_ahead([rows.texts[i] for i in some[:AHEAD]], rows.limit)
        held = rows.held_out(few, self.strength)
        kept = self._kept(held)
        if len(few) < len(some):
            held = rows.held_out(some, self.strength, kept, self.held)
            kept = best_views(held, list(kept), self.sharpness, self.views)
        strengths = [self.strength * times for times in self.strengths]
        return rows.head(some, kept, strengths, self.held, words=self.words)

    def _kept(self, held: "Mapping[View, HeldOut]") -> "dict[View, float]":
        """The heaviest views with their weights: of bare texts, and under the few prompts that weigh most.

        Views under prompts are kept where held-out rows are the better answered with them: where no source
        task is like the task, they add noise. Each prompt costs a reading of every text.
        """
        from weft.evaluation.readers import best_views, weighed
        from weft.evaluation.views import heaviest_prompts

        every = best_views(held, list(held), self.sharpness, self.views)
        few = {"", *heaviest_prompts(every, self.prompts)}
        kept, loss = weighed(held, [view for view in held if view.prompt in few], self.sharpness, self.views)
        bare = [view for view in held if not view.prompt]
        alone, other = weighed(held, bare, self.sharpness, self.views)
        return alone if other <= loss + self.worth else kept

    def _views(
        self, setup: Setup, prompts: "Mapping[str, Tensor]", scales: "Mapping[tuple[str, str, int], Any]"
    ) -> "Views":
        """The frozen models, and scales of their views by encoder, prompt and layer."""
        from weft.evaluation.views import View, Views

        encoders = {name: setup.load_encoder(name) for name in self.encoders}
        known = {View(*place): scale for place, scale in scales.items()}
        return Views(setup.backbone, prompts, encoders, known)

    def restore(self, setup: Setup, saved: Saved) -> "ViewClassifiers":
        """The heads that a run kept, on the frozen models."""
        from weft.evaluation.few_bits import FewBits

        views = self._views(setup, prompts_of(saved), scales_of(saved))
        parts = check_kept(setup, saved, views, self.bits)
        heads = []
        for k, task in enumerate(setup.tasks):
            notes = saved.notes[task.name]
            kept = FewBits(*(saved.tensors[f"{k}.{name}"].numpy() for name in ("codes", "steps", "bias")))
            heads.append((views_of(notes), kept.head(parts[k], notes["answers"])))
        return ViewClassifiers(views, setup.tasks, setup.source_tokens, tuple(heads))


@dataclass(frozen=True)
class ViewClassifiers:
    """A head for each task on its views, on one reading of the texts."""

    views: "Views"
    tasks: tuple[Task, ...]
    source_tokens: tuple[int, ...]
    heads: "tuple[tuple[tuple[View, ...], LinearHead], ...]"

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """See `Answerer`; a text that several tasks read as far is read once, in the views that any keeps."""
        from weft.evaluation.view_heads import field_views
        from weft.evaluation.views import read_once

        wanted = {view for k in task_ids for view in self.heads[k][0]}

        def read(some: "list[Cut]", models: "Views | FieldViews" = self.views) -> "dict[View, Any]":
            each, limits = [text for text, _ in some], [limit for _, limit in some]
            return models.read(each, limits, wanted, batch_size=batch_size)

        every = {i: (texts[i], self.source_tokens[k]) for i, k in enumerate(task_ids)}

        def of(form: str) -> "dict[int, Cut]":
            return {i: one for i, one in every.items() if self.tasks[task_ids[i]].template == form}

        whole = read_once(every, read)
        forms = {self.tasks[k].template for k in task_ids if any(view.apart for view in self.heads[k][0])}
        apart = {
            form: read_once(of(form), partial(read, models=field_views(self.views, form))) for form in forms
        }

        def shares(k: int, rows: list[int]) -> Any:
            views, head = self.heads[k]
            parts = []
            for view in views:
                places, read = apart[self.tasks[k].template] if view.apart else whole
                parts.append(read[view][[places[i] for i in rows]])
            return head.shares(np.concatenate(parts, 1), self.tasks[k].choices)

        return chosen_by_task(self.tasks, task_ids, shares)

    def received(self, text: str, fields: Sequence[str], task_id: int) -> Received:
        """See `Receives`: of every model that the task's views read, whole or field by field."""
        return self.views.received(self.heads[task_id][0], text, fields, self.source_tokens[task_id])
