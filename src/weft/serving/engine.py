"""The engine: requests for any tasks of a bank, answered by one frozen model in shared batches."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import torch

from weft.bank import Entry, Snapshot
from weft.errors import DataError
from weft.evaluation.received import received
from weft.models import Backbone, CausalBackbone, Context
from weft.models.choice_tree import ChoiceTree
from weft.models.choices import choice_log_probs
from weft.models.decoding import Beams, Line, begun, row_seeds
from weft.serving.groups import Group, fixed_group, group_of, together
from weft.serving.kept import Kept
from weft.serving.loop import Loop
from weft.serving.prompts import Asked, RowPrompts
from weft.serving.requests import Request, Response
from weft.serving.rows import Ready, Row
from weft.serving.settings import EngineSettings
from weft.serving.shapes import Shape, padded
from weft.tasks import Task, from_spec, template


class Engine:
    """A frozen model with one generation of a bank.

    Args:
        backbone: the model that the bank's tasks were made on, with its prompts where theirs stand.
        snapshot: the generation.
        settings: bounds.
    """

    def __init__(
        self, backbone: Backbone, snapshot: Snapshot, settings: EngineSettings | None = None
    ) -> None:
        self.backbone, self.snapshot, self.settings = backbone, snapshot, settings or EngineSettings()
        self.prompts = RowPrompts(backbone, self.settings.prompt_bytes)
        self.ready = Kept[Ready](self.settings.tasks)

    def under(self, snapshot: Snapshot) -> "Engine":
        """The same model, and what is kept of prompts and tasks, under another generation of the bank."""
        other = Engine(self.backbone, snapshot, self.settings)
        other.prompts, other.ready = self.prompts, self.ready
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
        check(request)
        asked = Asked(self.snapshot, self.snapshot.find(request.task))
        ready = self.ready.get(
            (asked.entry.name, asked.entry.line.definition), lambda: self._ready(asked.entry)
        )
        text, fields = _text(request, ready.task)
        limit = _most_tokens(request, ready)
        most = self._longest_text(asked.entry, limit)
        got = received(self.backbone, text, fields, most)
        if got.nothing:
            fix = "write the text in signs that the model reads"
            raise DataError("the model has no token for any sign of the text", fix=fix, code="D03")
        source = self.backbone.text_tokens(text, most)[0]
        writing = self._begun(request, limit, source) if request.write or ready.tree is None else None
        return Row(
            request,
            asked,
            ready,
            text=text,
            source=source,
            cut=got.cut,
            writing=writing,
            decode=self._decoded,
        )

    def _ready(self, entry: Entry) -> Ready:
        task = from_spec(entry.task)
        words = {word: self.backbone.answer_tokens(word) for word in task.choices}
        spelt = {task.parse(self.backbone.decode(tokens)): word for word, tokens in words.items()}
        spelt.pop("", None)  # of a word that is unknown to the tokenizer
        return Ready(task, ChoiceTree.of(list(words.values())) if words else None, spelt)

    def _longest_text(self, entry: Entry, limit: int) -> int:
        """Most tokens of a text, beside the prompt and what is written.

        Raises:
            DataError: if the model has no room for a text beside these.
        """
        if self.backbone.positions is None:
            return entry.source_tokens
        written = 0 if self.backbone.lm.config.is_encoder_decoder else limit
        room = self.backbone.positions - entry.prompt_length - written
        if room <= self.backbone.added_tokens:
            cause = f"the model has {self.backbone.positions} positions, and none is left for the text"
            raise DataError(cause, fix="ask for fewer max_tokens", code="S05")
        return min(entry.source_tokens, room)

    def _begun(self, request: Request, limit: int, source: tuple[int, ...]) -> Line | Beams:
        [seed] = row_seeds(request.decoding.seed, [source])
        return begun(limit, self.backbone.tokenizer.eos_token_id, request.decoding, seed)

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.backbone.tokenizer.decode(list(tokens), skip_special_tokens=True))

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
        if self.settings.fixed:
            alone = id(row) if isinstance(row.writing, Beams) else 0
            return alone, *padded(row, self.backbone)
        return 0 if self.backbone.mixes_prompts else row.prompt_length

    def read(self, rows: Sequence[Row], groups: Sequence[Group]) -> list[Group]:
        """Read rows, choose where answers are closed, and let those who write join the groups.

        Raises:
            WeftError: if a row cannot be read.
        """
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
            return self.backbone.begin_together(sources[0], prompts, mask)
        return self.backbone.begin(replace(state, prompt_mask=shape.mask(mask)), shape.prompts(prompts))

    def _choose(self, context: Context, rows: Sequence[Row]) -> None:
        """Probabilities of closed answers."""
        closed = [i for i, row in enumerate(rows) if row.ready.tree]
        for part in [[i] for i in closed] if self.settings.fixed else [closed]:
            trees = [tree for i in part if (tree := rows[i].ready.tree)]
            for i, log_probs in zip(part, choice_log_probs(self.backbone, context, part, trees), strict=True):
                rows[i].choose(torch.softmax(log_probs.double(), -1).tolist())


def check(request: Request) -> None:
    """Refuse a request that says nothing, or two things.

    Raises:
        DataError: with the remedy.
    """
    if (request.row is None) == (request.text is None):
        raise DataError("a request has either a row or a text", fix="give one of them", code="S06")
    if request.row is not None and not isinstance(request.row, Mapping):
        raise DataError("a row is an object with the fields of the template", code="D05")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise DataError("max_tokens is less than 1", fix="ask for one token or more", code="S06")
    if not all(request.stop):
        raise DataError("a stop text is empty", fix="leave it out", code="S06")


def _text(request: Request, task: Task) -> tuple[str, tuple[str, ...]]:
    """A request's text, and what its fields say.

    Raises:
        DataError: for a field that is missing, or a text that shows nothing.
    """
    row = dict(request.row or {})
    fields = (request.text,) if request.text is not None else task.fields(row)
    text = task.source(row) if request.text is None else request.text
    if not any(map(template.shows, fields)):
        raise DataError("the request has no text: its fields are blank", fix="complete it", code="D02")
    return text, fields


def _most_tokens(request: Request, ready: Ready) -> int:
    """Most tokens of the answer, written or chosen."""
    chosen = max((len(path) for path in ready.tree.paths), default=0) if ready.tree else 0
    written = request.max_tokens or ready.task.max_target_tokens
    return max(chosen, written if request.write or ready.tree is None else 1)
