"""The engine: requests for any tasks of a bank, answered by one frozen model in shared batches."""

from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from weft import bank
from weft.bank import Snapshot
from weft.models import Backbone, CausalBackbone, Context
from weft.models.choices import choice_log_probs
from weft.models.decoding import Beams
from weft.serving.base import Models
from weft.serving.groups import Group, fixed_group, group_of, together
from weft.serving.heads import Encoders, ReaderHeads, no_encoder
from weft.serving.intake import Intake
from weft.serving.loop import Loop
from weft.serving.prompts import RowPrompts
from weft.serving.requests import Request, Response
from weft.serving.rows import Row
from weft.serving.settings import EngineSettings
from weft.serving.shapes import Shape, padded


class Engine:
    """A frozen model with one generation of a bank.

    Args:
        backbone: the model that the bank's tasks were made on, with its prompts where theirs stand.
        snapshot: the generation.
        settings: bounds.
        encoder: gives encoders that read beside the model, by name and hash of their files.
    """

    def __init__(
        self,
        backbone: Backbone,
        snapshot: Snapshot,
        settings: EngineSettings | None = None,
        encoder: Encoders = no_encoder,
    ) -> None:
        self.backbone, self.snapshot, self.settings = backbone, snapshot, settings or EngineSettings()
        self.prompts = RowPrompts(backbone, self.settings.prompt_bytes)
        self.heads = ReaderHeads(backbone, encoder, self.settings.heads)
        self.intake = Intake(backbone, self.heads, self.settings.tasks)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        base: str | Path | None = None,
        encoders: Sequence[str | Path] = (),
        settings: EngineSettings | None = None,
    ) -> "Engine":
        """An engine on the newest generation of a bank.

        Args:
            path: of the bank.
            base: where its base model lies here, if not where its runs say; it must be the same.
            encoders: likewise of the encoders that read beside it.
            settings: bounds.

        Raises:
            ArtifactError: if there is no bank, or a model is another one.
        """
        return cls.of(bank.open(path).snapshot(), base=base, encoders=encoders, settings=settings)

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        *,
        base: str | Path | None = None,
        encoders: Sequence[str | Path] = (),
        settings: EngineSettings | None = None,
    ) -> "Engine":
        """An engine on a generation of a bank, with its models; see `open`."""
        settings = settings or EngineSettings()
        models = Models.of(snapshot, base, encoders)
        return cls(models.load(settings), snapshot, settings, cache(models.encoder))

    def under(self, snapshot: Snapshot) -> "Engine":
        """The same model, and what is kept of prompts and tasks, under another generation of the bank."""
        other = copy(self)
        other.snapshot = snapshot
        return other

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answers of requests, in their order; one that cannot be answered says why in its place."""
        loop = self.loop(pieces=False)
        loop.add(replace(request, id=str(i)) for i, request in enumerate(requests))
        found: dict[str, Response] = {}
        while not loop.idle:
            found |= {one.id: one for one in loop.step() if isinstance(one, Response)}
        return [replace(found[str(i)], id=request.id) for i, request in enumerate(requests)]

    def loop(self, *, pieces: bool = True) -> Loop:
        """Requests that come and go while others are answered.

        Args:
            pieces: tell what is written while it is.
        """
        return Loop(self, pieces=pieces)

    def row(self, request: Request) -> Row:
        """A request as the loop takes it: its task found, its text made and cut.

        Raises:
            WeftError: if it cannot be answered.
        """
        return self.intake.row(request, self.snapshot)

    @property
    def keeps_prompts(self) -> bool:
        """Whether keys and values of prompts are kept: they stand before the text on a causal model."""
        return isinstance(self.backbone, CausalBackbone) and not self.backbone.suffix

    def shares_text(self, rows: Sequence[Row]) -> bool:
        """Whether rows are of one text, which is read once for all of them and not copied for each."""
        one = len(rows) > 1 and len({row.source for row in rows}) == 1
        return one and self.backbone.keeps_texts and not self.settings.fixed

    def reads(self, row: Row) -> int:
        """How many tokens go through the model for a row, if what is kept is there."""
        if self.keeps_prompts:
            return len(row.source)
        return row.prompt_length + (0 if self.backbone.keeps_texts else len(row.source))

    def kind(self, row: Row) -> Hashable:
        """Rows of one kind can share a batch."""
        if row.asked.entry.kind == "readers":
            return "readers"
        if self.settings.fixed:
            alone = id(row) if isinstance(row.writing, Beams) else 0
            return alone, *padded(row, self.backbone)
        return 0 if self.backbone.mixes_prompts else row.prompt_length

    def read(self, rows: Sequence[Row], groups: Sequence[Group]) -> list[Group]:
        """Read rows, choose where answers are closed, and let those who write join the groups.

        Raises:
            WeftError: if a row cannot be read.
        """
        if rows[0].asked.entry.kind == "readers":
            for some in [[row] for row in rows] if self.settings.fixed else [rows]:
                self.heads.answer(some)
            return list(groups)
        with torch.no_grad(), self.backbone.mode(dropout=False):
            context = self._begin(rows)
            self._choose(context, rows)
            if self.settings.fixed:
                new = fixed_group(context, rows)
            else:
                new = group_of(self.backbone, context, rows)
            if new is None:
                return list(groups)
            joins = groups and self.backbone.mixes_prompts and not self.settings.fixed
            return [together(self.backbone, [*groups, new])] if joins else [*groups, new]

    def _begin(self, rows: Sequence[Row]) -> Context:
        """Texts and prompts, read."""
        asked, sources = [row.asked for row in rows], [row.source for row in rows]
        shape = Shape.of(rows, self.settings, self.backbone)
        state = shape.state(self.backbone, sources)
        if self.keeps_prompts:
            assert isinstance(self.backbone, CausalBackbone)
            kept, mask = self.prompts.keys_and_values(asked)
            return self.backbone.begin_behind(shape.kept(kept), shape.mask(mask), state)
        prompts, mask = self.prompts.stacked(asked)
        if self.shares_text(rows):
            assert isinstance(self.backbone, CausalBackbone)
            together = self.backbone.begin_together(sources[0], prompts, mask)
            if not bool(together.next.isnan().any()):  # of one prompt, it would reach others in its row
                return together
        return self.backbone.begin(replace(state, prompt_mask=shape.mask(mask)), shape.prompts(prompts))

    def _choose(self, context: Context, rows: Sequence[Row]) -> None:
        """Probabilities of closed answers."""
        closed = [i for i, row in enumerate(rows) if row.ready.tree]
        for part in [[i] for i in closed] if self.settings.fixed else [closed]:
            trees = [tree for i in part if (tree := rows[i].ready.tree)]
            for i, log_probs in zip(part, choice_log_probs(self.backbone, context, part, trees), strict=True):
                rows[i].choose(torch.softmax(log_probs.double(), -1).tolist())
