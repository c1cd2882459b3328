"""What the engine is asked, and what it answers. Loads without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from weft.config.decoding import GREEDY, Decoding

Finish = Literal["stop", "length", "choice"]


@dataclass(frozen=True)
class Request:
    """One text for one task of a bank.

    Attributes:
        task: name in the bank.
        row: fields of the task's template; or
        text: the finished text, which no template is put around.
        write: also write freely where the answers are closed.
        max_tokens: longest written answer; none: as the task says.
        decoding: how it is written; a draw depends on the text and the seed, and on no other row.
        stop: texts at which writing ends; they are not part of the answer.
        id: names the request in what comes back; of those in a loop at once, no two have the same.
    """

    task: str
    row: Mapping[str, object] | None = None
    text: str | None = None
    write: bool = False
    max_tokens: int | None = None
    decoding: Decoding = GREEDY
    stop: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Piece:
    """More of a written answer, as soon as it stands fast; all pieces together are what was written."""

    id: str
    text: str


@dataclass(frozen=True)
class Response:
    """What became of a request.

    Attributes:
        id: the request's.
        task: the task it asked for.
        generation: of the bank, under which it was answered.
        sha256: of the task's numbers.
        answer: the likeliest choice of a closed set, else what was written; none where there is an error.
        written: what was written, as the task reads it.
        probabilities: choice -> probability, of a closed set.
        label: the value of the task's files that the answer stands for, of a closed set.
        finish: chosen (`choice`), or ended by the model or a stop text (`stop`) or the limit (`length`).
        prompt_tokens: tokens of the text that were read.
        virtual_tokens: vectors of the task's prompt.
        completion_tokens: tokens that were written, the end token among them.
        cut: whether the text was longer than the task reads, and its end was not read.
        error: why it was not answered, with the remedy.
        code: of that error in the catalogue of faults.
    """

    id: str
    task: str
    generation: int = 0
    sha256: str = ""
    answer: str | None = None
    written: str | None = None
    probabilities: dict[str, float] | None = None
    label: str | None = None
    finish: Finish | None = None
    prompt_tokens: int = 0
    virtual_tokens: int = 0
    completion_tokens: int = 0
    cut: bool = False
    error: str | None = None
    code: str = ""
