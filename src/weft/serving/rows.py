"""A request on its way to its answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from weft.data.batch import Tokens
from weft.errors import NumericError, WeftError
from weft.evaluation.answers import Answer, chosen
from weft.models.choice_tree import ChoiceTree
from weft.models.decoding import Beams, Going, Line
from weft.serving.prompts import Asked
from weft.serving.requests import Finish, Piece, Request, Response
from weft.serving.text import fast, stopped
from weft.tasks import Task


@dataclass(frozen=True)
class Ready:
    """What is kept ready of a task of a bank.

    Attributes:
        task: its text format and answers.
        tree: its closed answers, if it has some and the model writes.
        spelt: what the tokenizer makes of a choice -> the choice.
    """

    task: Task
    tree: ChoiceTree | None = None
    spelt: dict[str, str] = field(default_factory=dict)

    def parsed(self, text: str) -> str:
        """A written text as an answer of the task."""
        answer = self.task.parse(text)
        return self.spelt.get(answer, answer)


class Row:
    """A request with its text as tokens; an answer in the making (`models.decoding.Writing`).

    Args:
        request: what is asked.
        asked: its task in its generation.
        ready: the same task's texts and words.
        text: what the task's template makes of the row.
        source: its tokens.
        cut: whether they are not all.
        writing: the answer that is written, if one is.
        decode: tokens as text.
    """

    stays = False  # goes on when it has ended, so that the batch keeps its shape

    def __init__(
        self,
        request: Request,
        asked: Asked,
        ready: Ready,
        *,
        text: str,
        source: Tokens,
        cut: bool,
        writing: Line | Beams | None,
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self.request, self.asked, self.ready = request, asked, ready
        self.text, self.source, self.cut = text, source, cut
        self.writing, self.decode = writing, decode
        self.over, self.dropped = False, False
        self._answer: Answer | None = None
        self._fault: WeftError | None = None
        self._stopped: str | None = None
        self._sent = ""

    @property
    def prompt_length(self) -> int:
        """P of its task; 0 for readers."""
        return self.asked.entry.prompt_length

    @property
    def writes(self) -> bool:
        """Whether something is still to be written."""
        return self.writing is not None and not self.over

    @property
    def most(self) -> int:
        """Most rows that it becomes."""
        return self.request.decoding.num_beams if self.writing else 1

    @property
    def positions(self) -> int:
        """Prompt, text and as much as may be written."""
        return self.prompt_length + len(self.source) + (self.writing.limit if self.writing else 0)

    @property
    def width(self) -> int:
        """See `Writing`."""
        return int(self.stays) if self.over or self.writing is None else self.writing.width

    def grow(self, logits: Float[Tensor, "K V"], likeliest: Sequence[int]) -> Going:
        """See `Writing`."""
        assert self.writing is not None
        going = [] if self.dropped else self._grown(self.writing, logits, likeliest)
        self.over = self.over or not going
        return [(0, 0)] * self.width if self.over else going

    def _grown(self, writing: Line | Beams, logits: Tensor, likeliest: Sequence[int]) -> Going:
        if bool(logits.isnan().any()):
            self.fail(_no_numbers(self.request.task))
            return []
        going = writing.grow(logits, likeliest)
        if self.request.stop and isinstance(writing, Line):
            self._stopped = stopped(self._raw(), self.request.stop)
            self.over = self._stopped is not None
        return going

    def choose(self, shares: Sequence[float]) -> None:
        """The probability of each choice."""
        try:
            self._answer = chosen(self.ready.task, shares)
        except NumericError as fault:
            self.fail(fault)

    def answer(self, answer: Answer) -> None:
        """What a reader says."""
        self._answer = answer

    def fail(self, fault: WeftError) -> None:
        """It cannot be answered."""
        self._fault, self.over = fault, True

    def piece(self) -> Piece | None:
        """What stands fast since the last piece; the rest, if it is over."""
        if (
            self._fault
            or not isinstance(self.writing, Line | Beams)
            or (isinstance(self.writing, Beams) and not self.over)
        ):
            return None
        text = self._text() if self.over else fast(self._raw(), self.request.stop)
        if not text.startswith(self._sent) or text == self._sent:
            return None
        fresh, self._sent = text[len(self._sent) :], text
        return Piece(self.request.id, fresh)

    def response(self) -> Response:
        """The answer, or why there is none."""
        if self._fault is not None:
            return refused(self.request, self._fault, self.asked)
        written = self.ready.parsed(self._text()) if self.writing else None
        known = self._answer
        answer = known.chosen if known and known.chosen is not None else written
        return Response(
            self.request.id,
            self.request.task,
            self.asked.snapshot.generation,
            self.asked.entry.sha256,
            answer=answer,
            written=written,
            probabilities=known.probabilities if known else None,
            label=self.ready.task.labels.get(answer or "") if known else None,
            finish=self._finish(),
            prompt_tokens=len(self.source),
            virtual_tokens=self.prompt_length,
            completion_tokens=len(self._tokens()),
            cut=self.cut,
        )

    def _finish(self) -> Finish:
        if self.writing is None:
            return "choice"
        cut_short = self._stopped is None and len(self.writing.answer) == self.writing.limit
        return "length" if cut_short else "stop"

    def _tokens(self) -> Sequence[int]:
        if isinstance(self.writing, Line):
            return self.writing.tokens
        return self.writing.answer if self.writing else ()

    def _raw(self) -> str:
        """All that is written, with spaces at its ends."""
        return self.decode(self.writing.answer) if self.writing else ""

    def _text(self) -> str:
        """What counts of it, when it is over."""
        if self._stopped is not None:
            return self._stopped.strip()
        raw = self._raw()
        before = stopped(raw, self.request.stop)  # of beams
        return (raw if before is None else before).strip()


class Filler:
    """Keeps a batch's shape where no row is."""

    width, over, dropped = 1, False, False

    def grow(self, logits: Float[Tensor, "K V"], likeliest: Sequence[int]) -> Going:
        """See `Writing`."""
        return [(0, 0)]


def refused(request: Request, fault: WeftError, asked: Asked | None = None) -> Response:
    """Why a request was not answered."""
    generation, sha256 = (asked.snapshot.generation, asked.entry.sha256) if asked else (0, "")
    return Response(request.id, request.task, generation, sha256, error=fault.line, code=fault.code)


def _no_numbers(task: str) -> NumericError:
    return NumericError(
        "the model's output is no number",
        where=f"task {task}",
        fix="train the task's prompt again with a lower optim.lr; with bfloat16 weights, try float32",
        code="S22",
    )
