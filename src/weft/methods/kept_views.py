"""What a run of `method: weft` keeps: a head in few bits for each task, its views, and what all tasks share.

Names of tensors: `K.codes`, `K.steps` and `K.bias` of task number K; `prompt.NAME`; `gain.VIEW` of a view
whose columns have a scale that comes with weft.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from weft.config.base import Content
from weft.errors import ArtifactError
from weft.methods.kept import check_answers, check_once, check_shapes, of_task
from weft.methods.method import Saved, Setup

if TYPE_CHECKING:
    from torch import Tensor

    from weft.evaluation.few_bits import Part
    from weft.evaluation.views import View, Views

PROMPT = "prompt."
GAIN = "gain."  # what each column is multiplied by: 1 / scale, since a file holds no infinity


class NotedView(Content):
    """A view that a task reads, with what `View` says of it, and its weight."""

    encoder: str
    prompt: str
    layer: int
    compares: str = ""
    weight: float


class Noted(Content):
    """What is noted of a task."""

    answers: list[str] = Field(min_length=1)
    views: list[NotedView] = Field(min_length=1)


def views_of(notes: Mapping[str, Any]) -> "tuple[View, ...]":
    """The views that a task reads."""
    from weft.evaluation.views import View

    noted = [NotedView(**view) for view in notes["views"]]
    return tuple(View(one.encoder, one.prompt, one.layer, one.compares) for one in noted)


def shared_tensors(views: "Views", used: "Collection[View]") -> "dict[str, Tensor]":
    """Prompts and gains of the views that tasks use."""
    import torch

    under = {view.prompt for view in used}
    prompts = {f"{PROMPT}{name}": one for name, one in views.prompts.items() if name in under}
    known = [(view, scale) for view, scale in views.scales.items() if view in used]
    return prompts | {f"{GAIN}{_words(view)}": torch.from_numpy(_inverse(scale)) for view, scale in known}


def prompts_of(saved: Saved) -> "dict[str, Tensor]":
    """The prompts of a run by name."""
    return _named(saved, PROMPT)


def scales_of(saved: Saved) -> dict[tuple[str, str, int], Any]:
    """The scales of a run by encoder, prompt and layer.

    Raises:
        ArtifactError: for one of no view.
    """
    return {_place(words): _inverse(gain.numpy()) for words, gain in _named(saved, GAIN).items()}


def _named(saved: Saved, kind: str) -> "dict[str, Tensor]":
    """Tensors that all tasks share, by what stands behind the beginning of their names."""
    return {name.removeprefix(kind): one for name, one in saved.tensors.items() if name.startswith(kind)}


def _inverse(scale: Any) -> Any:
    """Of a scale the gain, and the other way round; infinity is 0 there."""
    with np.errstate(divide="ignore"):
        return np.float32(1) / scale


def _words(view: "View") -> str:
    """A view of whole texts as part of a name."""
    return json.dumps(view[:3])


def _place(words: str) -> tuple[str, str, int]:
    """Encoder, prompt and layer of a view, as `_words` wrote them.

    Raises:
        ArtifactError: if they are none.
    """
    try:
        encoder, prompt, layer = json.loads(words)
        return str(encoder), str(prompt), int(layer)
    except (TypeError, ValueError):
        raise ArtifactError(f"the run kept the scale of no view, {words[:40]!r}", code="A05") from None


def check_kept(setup: Setup, saved: Saved, views: "Views", bits: int) -> "list[list[Part]]":
    """How the columns of each task's views are kept.

    Raises:
        ArtifactError: if views, answers or numbers do not fit the models, the tasks or each other; naming
            the first.
    """
    from weft.evaluation.view_heads import field_views, parts_of

    axes: dict[str, Sequence[str]] = {f"{PROMPT}{name}": "PD" for name in views.prompts}
    sizes = {"D": setup.backbone.width}
    for view, scale in views.scales.items():
        if not views.knows(view) or not bool((scale > 0).all()):
            raise ArtifactError(f"the scale of view {tuple(view[:3])} does not fit the models", code="A07")
        axes[f"{GAIN}{_words(view)}"] = [_words(view)]
        sizes[_words(view)] = views.width(view)
    parts = []
    for k, task in enumerate(setup.tasks):
        notes = of_task(saved.notes, task)
        check_answers(notes["answers"], task)
        check_once("answers", notes["answers"], task)
        kept = views_of(notes)
        check_once("views", [" ".join(map(str, view)) for view in kept], task)
        fields = field_views(views, task.template)
        if unknown := [view for view in kept if not (views.knows(view) or view in fields.names)]:
            raise ArtifactError(
                f"the run reads {tuple(unknown[0])} for task {task.name!r}, which is not there", code="A07"
            )
        parts.append(parts_of(views, fields, kept, bits))
        axes |= {f"{k}.codes": [f"C{k}", f"B{k}"], f"{k}.steps": [f"C{k}", f"V{k}"], f"{k}.bias": [f"C{k}"]}
        sizes |= {f"C{k}": len(notes["answers"]), f"V{k}": len(kept)}
        sizes[f"B{k}"] = sum(part.size for part in parts[k])
    check_shapes(saved.tensors, axes, **sizes)
    return parts


def uses(notes: Mapping[str, Any], name: str) -> bool:
    """Whether a task, of which this is noted, reads with the shared prompt or scale of this name."""
    views = views_of(notes)
    prompts = {f"{PROMPT}{view.prompt}" for view in views if view.prompt}
    return name in prompts | {f"{GAIN}{_words(view)}" for view in views}
