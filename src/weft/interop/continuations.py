"""How likely texts go on in given ways under one task's prompt, and what the model writes after them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from weft.config.decoding import Decoding
from weft.data.batch import Tokens, by_length
from weft.models.choices import parts_that_fit
from weft.models.context import Context
from weft.models.decoding import Going, Line, advance, row_seeds
from weft.models.tuned import TunedModel

Judged = tuple[float, bool]  # log-probability, and whether every token is the likeliest one


class Continuation(NamedTuple):
    """A text and how it goes on, in tokens; at least one of each."""

    text: Tokens
    end: Tokens


@dataclass(frozen=True)
class Prompted:
    """A tuned model under one task's prompt, which stands where it was trained: before texts or after them.

    Attributes:
        model: the model with the prompts of all its tasks.
        task: the task's name.
        batch_size: texts read at once, and likewise their continuations; of numbers, it changes last digits.
        told: what share of the texts that were asked for is done.
    """

    model: TunedModel
    task: str
    batch_size: int = 16
    told: Callable[[float], None] = lambda share: None

    @property
    def prompt_tokens(self) -> int:
        """P, the positions that the prompt takes; 0 without one."""
        return self.model.prompts.length if self.model.prompts is not None else 0

    @torch.no_grad()
    def log_likelihoods(self, asked: Sequence[Continuation]) -> list[Judged]:
        """Log-probability of each continuation (nats, its tokens' sum), and whether it is the greedy one.

        A text that goes on in several ways is read once.
        """
        places: dict[Tokens, list[int]] = {}
        for i, one in enumerate(asked):
            places.setdefault(one.text, []).append(i)
        texts, found = list(places), dict[int, Judged]()
        for batch, context in self._read(texts):
            own = [(row, i) for row, number in enumerate(batch) for i in places[texts[number]]]
            judged = self._judged(context, [(row, asked[i].end) for row, i in own])
            found |= zip((i for _, i in own), judged, strict=True)
            self.told(len(found) / len(asked))
        return [found[i] for i in range(len(asked))]

    def _read(self, texts: Sequence[Tokens]) -> Iterator[tuple[list[int], Context]]:
        """Places of some texts, and those texts read; all texts in turn."""
        self.model.prepare(texts)
        number = self.model.tasks.index(self.task)
        for batch in by_length(texts, self.batch_size):
            yield batch, self.model.begin([texts[i] for i in batch], [number] * len(batch))

    def _judged(self, context: Context, ends: Sequence[tuple[int, Tokens]]) -> list[Judged]:
        """Continuations of rows of a context; their first tokens are predicted already."""
        judged = [_judge(context.next[row, None], end[:1]) for row, end in ends]
        longer = [(i, end) for i, (_, end) in enumerate(ends) if len(end) > 1]
        backbone = self.model.backbone
        for part in parts_that_fit(longer, len(backbone.embeddings)):
            for some in (part[k : k + self.batch_size] for k in range(0, len(part), self.batch_size)):
                rows, paths = [ends[i][0] for i, _ in some], [end[:-1] for _, end in some]
                with backbone.mode(dropout=False):
                    logits = backbone.after(context, rows, paths)
                for (i, end), behind in zip(some, logits, strict=True):
                    total, greedy = _judge(behind[: len(end) - 1], end[1:])
                    judged[i] = judged[i][0] + total, judged[i][1] and greedy
        return judged

    @torch.no_grad()
    def written(
        self, texts: Sequence[Tokens], limit: int, stops: Sequence[str], decoding: Decoding
    ) -> list[str]:
        """What the model writes after each text.

        Args:
            texts: in tokens.
            limit: most tokens.
            stops: texts that end an answer, and are no part of it; the end token does so always.
            decoding: how tokens are chosen: the likeliest, or drawn.
        """
        backbone, found = self.model.backbone, dict[int, str]()
        seeds = row_seeds(decoding.seed, texts)
        for batch, begun in self._read(texts):
            lines = [StoppedLine(limit, backbone.tokenizer, stops, decoding, seeds[i]) for i in batch]
            live, context = lines, begun
            while live:
                with backbone.mode(dropout=False):
                    live, context = advance(backbone, context, live)
            found |= zip(batch, (line.text for line in lines), strict=True)
            self.told(len(found) / len(texts))
        return [found[i] for i in range(len(texts))]


class StoppedLine(Line):
    """An answer that ends where one of several texts has been written, too.

    Args:
        limit: most tokens.
        tokenizer: the model's.
        stops: those texts; an empty one counts for nothing.
        decoding: how tokens are chosen.
        seed: of draws.
    """

    def __init__(
        self, limit: int, tokenizer: Any, stops: Sequence[str], decoding: Decoding, seed: int
    ) -> None:
        super().__init__(limit, tokenizer.eos_token_id, decoding, seed)
        self.tokenizer, self.stops = tokenizer, [stop for stop in stops if stop]

    def grow(self, logits: Float[Tensor, "K V"], likeliest: Sequence[int]) -> Going:
        """See `Writing`."""
        going = super().grow(logits, likeliest)
        if going and self.stops:
            written = self.tokenizer.decode(self.tokens)  # with special tokens, which may be a stop
            if any(stop in written for stop in self.stops):
                self.width, going = 0, []
        return going

    @property
    def text(self) -> str:
        """What is written before a stop."""
        text = str(self.tokenizer.decode(self.answer, skip_special_tokens=True))
        for stop in self.stops:
            text = text.split(stop)[0]
        return text


def _judge(logits: Float[Tensor, "T V"], tokens: Tokens) -> Judged:
    """Log-probability of tokens, and whether each is the likeliest."""
    wanted = torch.tensor(tokens, device=logits.device)
    logs = logits.float().gather(1, wanted[:, None])[:, 0] - logits.float().logsumexp(1)
    return float(logs.sum()), bool((logits.argmax(1) == wanted).all())
