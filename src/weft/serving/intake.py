"""Requests as they come in: tasks found, texts made and cut; what cannot be answered is refused here."""

from collections.abc import Mapping, Sequence

from weft.bank import Entry, Snapshot
from weft.errors import DataError, UnsupportedError
from weft.evaluation.received import Received, Receives, check_read, check_shown, received
from weft.evaluation.written import spelt
from weft.models import Backbone
from weft.models.choice_tree import ChoiceTree
from weft.models.decoding import Beams, Line, begun, row_seeds
from weft.serving.heads import ReaderHeads
from weft.serving.kept import Kept
from weft.serving.prompts import Asked
from weft.serving.requests import Request
from weft.serving.rows import Ready, Row
from weft.tasks import Task, from_spec

Words = tuple[ChoiceTree | None, dict[str, str]]  # the last two of `Ready`


class Intake:
    """Makes rows of requests.

    Args:
        backbone: the base model.
        heads: readers of tasks that keep some.
        room: tasks whose texts and words are kept ready.
    """

    def __init__(self, backbone: Backbone, heads: ReaderHeads, room: int) -> None:
        self.backbone, self.heads = backbone, heads
        self._ready = Kept[Ready](room)
        self._words = Kept[Words](room)

    def row(self, request: Request, snapshot: Snapshot) -> Row:
        """A request as the loop takes it: its task found, its text made and cut.

        Raises:
            WeftError: if it cannot be answered.
        """
        check(request)
        asked = Asked(snapshot, snapshot.find(request.task))
        ready = self._ready.get(
            (asked.entry.name, asked.entry.line.definition), lambda: self._made(asked.entry)
        )
        text, fields = _text(request, ready.task)
        if asked.entry.kind == "readers":
            return self._reader_row(request, asked, ready, text, fields)
        limit = _most_tokens(request, ready)
        most = self._longest_text(asked.entry, limit)
        got = received(self.backbone, text, fields, most)
        check_read(got, "request")
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

    def _reader_row(
        self, request: Request, asked: Asked, ready: Ready, text: str, fields: tuple[str, ...]
    ) -> Row:
        """A request of a task that keeps readers."""
        if request.write:
            cause = "the task's answers are chosen by readers, which write nothing"
            raise UnsupportedError(cause, fix="ask without write", code="C08")
        head = self.heads.of(asked, ready.task)
        got = head.received(text, fields, 0) if isinstance(head, Receives) else Received()
        check_read(got, "request")
        return Row(
            request,
            asked,
            ready,
            text=text,
            source=(),
            cut=got.cut,
            writing=None,
            decode=self._decoded,
        )

    def _made(self, entry: Entry) -> Ready:
        task = from_spec(entry.task)
        if entry.kind == "readers":
            return Ready(task)
        return Ready(task, *self._words.get(entry.line.definition, lambda: self._words_of(task)))

    def _words_of(self, task: Task) -> Words:
        """What is the same for all tasks of a definition, of which a bank has few."""
        words = [self.backbone.answer_tokens(word) for word in task.choices]
        return ChoiceTree.of(words) if words else None, spelt(self.backbone, task)

    def _longest_text(self, entry: Entry, limit: int) -> int:
        """Most tokens of a text, beside the prompt and what is written.

        Raises:
            DataError: if the model has no room for a text beside these.
        """
        if self.backbone.positions is None:
            return entry.source_tokens
        written = 0 if self.backbone.lm.config.is_encoder_decoder else limit
        around = self.backbone.codec.whole(0)
        room = self.backbone.positions - entry.prompt_length - written - around
        if room + around <= self.backbone.added_tokens:
            cause = f"the model has {self.backbone.positions} positions, and none is left for the text"
            raise DataError(cause, fix="ask for fewer max_tokens", code="S03")
        return min(entry.source_tokens, room)

    def _begun(self, request: Request, limit: int, source: tuple[int, ...]) -> Line | Beams:
        [seed] = row_seeds(request.decoding.seed, [source])
        return begun(limit, self.backbone.tokenizer.eos_token_id, request.decoding, seed)

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.backbone.tokenizer.decode(list(tokens), skip_special_tokens=True))


def check(request: Request) -> None:
    """Refuse a request that says nothing, or two things.

    Raises:
        DataError: with the remedy.
    """
    if (request.row is None) == (request.text is None):
        raise DataError("a request has either a row or a text", fix="give one of them", code="D05")
    if request.row is not None and not isinstance(request.row, Mapping):
        raise DataError("a row is an object with the fields of the template", code="D05")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise DataError("max_tokens is less than 1", fix="ask for one token or more")
    if not all(request.stop):
        raise DataError("a stop text is empty", fix="leave it out")


def _text(request: Request, task: Task) -> tuple[str, tuple[str, ...]]:
    """A request's text, and what its fields say.

    Raises:
        DataError: for a field that is missing, or a text that shows nothing.
    """
    row = dict(request.row or {})
    fields = (request.text,) if request.text is not None else task.fields(row)
    text = task.source(row) if request.text is None else request.text
    check_shown(fields, "request")
    return text, fields


def _most_tokens(request: Request, ready: Ready) -> int:
    """Most tokens of the answer, written or chosen."""
    chosen = max((len(path) for path in ready.tree.paths), default=0) if ready.tree else 0
    written = request.max_tokens or ready.task.max_target_tokens
    return max(chosen, written if request.write or ready.tree is None else 1)
