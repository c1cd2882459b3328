"""Readers of tasks of a bank (`method: weft`), restored when they are asked for."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from weft.config.training import PromptConfig
from weft.errors import ArtifactError
from weft.evaluation.answers import Answerer, TextError
from weft.methods.method import Setup
from weft.methods.weft import ViewClassifiers
from weft.models import Backbone
from weft.serving.kept import Kept
from weft.serving.prompts import Asked
from weft.serving.rows import Row
from weft.tasks import Task

Encoders = Callable[[str, str], Backbone]  # name and SHA-256 of its files -> a frozen encoder


def no_encoder(name: str, noted: str) -> Backbone:
    """Where none is given.

    Raises:
        ArtifactError: always.
    """
    raise ArtifactError(
        f"the encoder {name!r} is not at hand", fix="open the bank with its models", code="A08"
    )


class ReaderHeads:
    """What answers for tasks that keep readers.

    Args:
        backbone: the base model.
        encoder: gives the frozen encoders that read beside it.
        room: tasks that are kept restored.
    """

    def __init__(self, backbone: Backbone, encoder: Encoders, room: int) -> None:
        self.backbone, self.encoder = backbone, encoder
        self._kept = Kept[Answerer](room)

    def of(self, asked: Asked, task: Task) -> Answerer:
        """What answers for a task.

        Raises:
            ArtifactError: if what the bank kept does not fit the model, or an encoder is missing.
        """
        return self._kept.get((asked.entry.name, asked.key), lambda: self._restored(asked, task))

    def answer(self, rows: Sequence[Row]) -> None:
        """Answers of rows; tasks that read alike read a text once."""
        alike: dict[Hashable, list[Row]] = defaultdict(list)
        for row in rows:
            entry = row.asked.entry
            views = isinstance(self.of(row.asked, row.ready.task), ViewClassifiers)
            alike[(entry.group, *sorted(entry.encoders.items())) if views else entry.name].append(row)
        for some in alike.values():
            heads = {row.request.task: self.of(row.asked, row.ready.task) for row in some}
            alike_heads = [one for one in heads.values() if isinstance(one, ViewClassifiers)]
            place = {name: k for k, name in enumerate(heads)}
            _tell(merged(alike_heads) if alike_heads else next(iter(heads.values())), some, place)

    def _restored(self, asked: Asked, task: Task) -> Answerer:
        entry = asked.entry
        if entry.method is None:
            raise ArtifactError(f"the bank does not say what answers for {entry.name!r}", code="A04")
        setup = Setup(
            tasks=(task,),
            rows=[],
            seed=0,
            prompt=PromptConfig(),
            source_tokens=(entry.source_tokens,),
            load_backbone=lambda: self.backbone,
            load_encoder=lambda name: self.encoder(name, entry.encoders[name]),
        )
        return entry.method.restore(setup, asked.snapshot.saved(entry))


def merged(several: Sequence[ViewClassifiers]) -> ViewClassifiers:
    """Heads of several tasks as one answerer, whose prompts and scales of one name are the same numbers."""
    first = several[0]
    prompts = {name: one for head in several for name, one in head.views.prompts.items()}
    scales = {view: one for head in several for view, one in head.views.scales.items()}
    return ViewClassifiers(
        replace(first.views, prompts=prompts, scales=scales),
        tuple(task for one in several for task in one.tasks),
        tuple(limit for one in several for limit in one.source_tokens),
        tuple(head for one in several for head in one.heads),
    )


def _tell(answerer: Answerer, rows: list[Row], place: dict[str, int]) -> None:
    """Give rows their answers; one that cannot be read fails alone."""
    while rows:
        texts, ids = [row.text for row in rows], [place[row.request.task] for row in rows]
        try:
            answers = answerer.answer(texts, ids)
        except TextError as fault:
            rows[fault.number].fail(fault)
            rows = [row for i, row in enumerate(rows) if i != fault.number]
        else:
            for row, answer in zip(rows, answers, strict=True):
                row.answer(answer)
            return
