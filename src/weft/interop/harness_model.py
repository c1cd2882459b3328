"""A task's model as lm-evaluation-harness asks models; needs the package lm_eval.

Texts become tokens as the harness's own model for transformers makes them, so that numbers are those of it:
a continuation's tokens are those that a text has more with it, and what is too long loses its beginning.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs, resolve_max_length

from weft.config.decoding import GREEDY, Decoding
from weft.data.batch import Tokens
from weft.data.chat import chat_of
from weft.errors import DataError, UnsupportedError
from weft.interop.continuations import Continuation, Judged, Prompted

WRITTEN = 256  # most tokens of an answer, where a task does not say
KNOWN = {"do_sample", "temperature", "top_p"}  # of a task's generation_kwargs, beside stops and length


class TaskLM(TemplateLM):  # type: ignore[misc]
    """One task's model for `lm_eval.simple_evaluate(model=...)`.

    Args:
        prompted: the model under the task's prompt.

    Raises:
        UnsupportedError: if the model has no position left beside the prompt.
    """

    def __init__(self, prompted: Prompted) -> None:
        super().__init__()
        backbone = prompted.model.backbone
        self.prompted, self.tokenizer = prompted, backbone.tokenizer
        self.chats = chat_of(backbone.tokenizer) is not None  # then texts come with a template's signs
        self.reads_apart = backbone.lm.config.is_encoder_decoder
        self.backend = "seq2seq" if self.reads_apart else "causal"
        whole = resolve_max_length(backbone.lm.config, backbone.tokenizer)
        self.max_length = min(whole, backbone.positions or whole) - prompted.prompt_tokens
        if self.max_length < 1:
            raise UnsupportedError(
                f"the prompt has {prompted.prompt_tokens} tokens, and the model reads {self.max_length} more",
                fix="train a shorter prompt",
                code="C08",
            )

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for a text where there is none."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text and those that the tokenizer puts around it; a begin token is not doubled."""
        if self.chats:
            add_special_tokens = False
        elif add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        found: list[int] = self.tokenizer.encode(
            string, add_special_tokens=add_special_tokens, split_special_tokens=False
        )
        return found

    @property
    def tokenizer_name(self) -> str:
        """What names the chat template where the harness keeps texts."""
        return self.prompted.model.backbone.base_hash

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Turns of a chat as text, by the model's template."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[Judged]:
        """See the harness: `(texts, context, continuation)`, the latter two in tokens."""
        return self.prompted.log_likelihoods([self._fitted(text, end) for _, text, end in requests])

    def _fitted(self, text: Sequence[int], end: Sequence[int]) -> Continuation:
        """A text and its continuation without the beginning that the model has no positions for.

        A causal model never reads the last token.

        Raises:
            DataError: for a continuation that is too long itself, or has no token.
        """
        if not 0 < len(end) <= self.max_length:
            raise DataError(
                f"a continuation has {len(end)} tokens, and under this prompt the model reads 1 to "
                f"{self.max_length}",
                fix="choose tasks with shorter answers, or a run with a shorter prompt",
                code="D03",
            )
        most = self.max_length if self.reads_apart else self.max_length + 1 - len(end)
        return Continuation(tuple(text[-most:]), tuple(end))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows as long as the model reads; see the harness."""
        asked: list[Continuation] = []
        owners: list[int] = []
        for number, (text,) in enumerate(request.args for request in requests):
            windows = utils.get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, 1
            )
            for window in windows:
                asked.append(self._fitted(*utils.make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (value, _) in zip(owners, self.prompted.log_likelihoods(asked), strict=True):
            totals[number] += value
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What is written after texts, up to a task's stops; see the harness."""
        found: dict[int, str] = {}
        for how, places in _alike([request.args[1] for request in requests]):
            texts = [self._opening(requests[i].args[0], how["max_gen_toks"]) for i in places]
            written = self.prompted.written(texts, how["max_gen_toks"], how["until"], _decoding(how))
            found |= zip(places, written, strict=True)
        return [found[i] for i in range(len(requests))]

    def _opening(self, text: str, limit: int) -> Tokens:
        """A text's tokens, as many of the last ones as leave room for the answer.

        Raises:
            UnsupportedError: if nothing is left of it.
        """
        most = self.max_length - (0 if self.reads_apart else limit)
        if most < 1:
            raise UnsupportedError(
                f"a task asks for answers of {limit} tokens, and under this prompt the model reads "
                f"{self.max_length} with the text",
                fix="choose another task, or set max_gen_toks under generation_kwargs in its file",
                code="C08",
            )
        return tuple(self.tok_encode(text)[-most:]) or (self.prefix_token_id,)


def _alike(asked: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, Any], list[int]]]:
    """Ways to write, each with the places of the requests that ask for it."""
    ways: list[tuple[dict[str, Any], list[int]]] = []
    for place, one in enumerate(asked):
        how = dict(normalize_gen_kwargs(dict(one), WRITTEN))
        same = next((places for way, places in ways if way == how), None)
        if same is None:
            ways.append((how, [place]))
        else:
            same.append(place)
    return ways


def _decoding(how: Mapping[str, Any]) -> Decoding:
    """How tokens are chosen, as a task says.

    Raises:
        UnsupportedError: for a way that weft does not write in.
    """
    other = sorted(how.keys() - KNOWN - {"until", "max_gen_toks"})
    if other:
        raise UnsupportedError(
            f"a task's generation_kwargs ask for {other[0]}, which weft does not write with",
            fix=f"leave it out in the task's file; known: {', '.join(sorted(KNOWN))}, until, max_gen_toks",
            code="C08",
        )
    if not how["do_sample"] or not how.get("temperature"):
        return GREEDY
    return Decoding(temperature=how["temperature"], top_p=how.get("top_p", 1.0))
