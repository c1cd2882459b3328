"""Metrics of written texts with several references each. Their libraries are loaded when they are used.

Each is a `Summed` metric over rows, so that an interval need not read the texts again. All are in percent but
NIST, which is bits of information; TER is a rate of errors, so lower is better. Words of NIST, METEOR and
CIDEr are those of sacrebleu's tokenizer 13a, in lower case.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.errors import UnsupportedError
from weft.tasks.scoring import References, Summed

Numbers: TypeAlias = NDArray[np.float64]
Words: TypeAlias = Sequence[str]

NIST_ORDERS, CIDER_ORDERS = 5, 4
SIGMA = 6.0  # of CIDEr-D's penalty of unlike lengths, in words
PUNCTUATION = frozenset("!?.,:;-()[]{}'\"`…–—") | {"...", "--", "''", "``"}  # no words for CIDEr
NEEDS = {
    "bleu": ("sacrebleu",),
    "ter": ("sacrebleu",),
    "rouge_l": ("rouge_score",),
    "meteor_stem": ("sacrebleu", "nltk"),
    "nist": ("sacrebleu",),
    "cider": ("sacrebleu",),
}


def check_libraries(names: Iterable[str], where: str = "") -> None:
    """Refuse metrics whose libraries are absent.

    Raises:
        UnsupportedError: naming the first such metric and the library.
    """
    for name in names:
        for library in NEEDS.get(name, ()):
            if find_spec(library) is None:
                cause = f"the metric {name!r} needs the package {library}"
                raise UnsupportedError(cause, where=where, fix="pip install 'weft[nlg]'", code="C18")


def _per_text(score: Callable[[str, tuple[str, ...]], Sequence[float]], width: int) -> Any:
    """What is summed, of a function of one row that gives so many numbers."""

    def rows(predictions: Sequence[str], references: References) -> Numbers:
        found = [score(*pair) for pair in zip(predictions, references, strict=True)]
        return np.array(found, np.float64).reshape(len(found), width)

    return rows


def _mean(sums: Numbers) -> float:
    """In percent, of rows' sum and number."""
    return 100.0 * float(sums[0] / sums[1])


@cache
def _library(name: str) -> Any:
    """What scores one text: an object of the library with that metric."""
    check_libraries([name])
    if name == "rouge_l":
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"])
    from sacrebleu.metrics import BLEU, TER

    return TER() if name == "ter" else BLEU(effective_order=True)  # silences a remark, changes no count


def _bleu_counts(text: str, accepted: tuple[str, ...]) -> list[float]:
    """Matches and n-grams of orders 1 to 4, and the lengths of text and nearest reference."""
    found = _library("bleu").sentence_score(text, list(accepted))
    return [float(one) for one in (*found.counts, *found.totals, found.sys_len, found.ref_len)]


def _bleu(sums: Numbers) -> float:
    """Corpus BLEU of the sums of counts, as sacrebleu smooths it (`exp`)."""
    counts = [int(one) for one in sums]
    return float(
        _library("bleu").compute_bleu(counts[:4], counts[4:8], *counts[8:], smooth_method="exp").score
    )


@lru_cache(maxsize=1 << 14)  # 10 ms a reference, and asked for again by intervals
def _ter_edits(text: str, accepted: tuple[str, ...]) -> list[float]:
    """Edits to the nearest reference, and the mean length of the references."""
    found = _library("ter").sentence_score(text, list(accepted))
    return [float(found.num_edits), float(found.ref_length)]


def _ter(sums: Numbers) -> float | None:
    return 100.0 * float(sums[0] / sums[1]) if sums[1] else None


def _rouge_l(text: str, accepted: tuple[str, ...]) -> list[float]:
    return [float(_library("rouge_l").score_multi(accepted, text)["rougeL"].fmeasure), 1.0]


def _meteor(text: str, accepted: tuple[str, ...]) -> list[float]:
    """METEOR of one text by exact words and stems; a word has no synonyms here."""
    check_libraries(["meteor_stem"])
    from nltk.translate.meteor_score import meteor_score

    return [meteor_score([words(one) for one in accepted], words(text), wordnet=_NoSynonyms()), 1.0]


class _NoSynonyms:
    """In the place of WordNet, whose data do not come with the library."""

    def synsets(self, word: str) -> list[Any]:
        return []


def words(text: str) -> list[str]:
    """Words and signs of a text as mteval-v13a parts them, in lower case."""
    return [str(word) for word in _tokenizer()(text.lower()).split()]


@cache
def _tokenizer() -> Any:
    check_libraries(["nist"])
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def ngrams(tokens: Words, order: int) -> Iterator[tuple[str, ...]]:
    """All n-grams of one order."""
    return zip(*(tokens[i:] for i in range(order)), strict=False)


def _nist_rows(predictions: Sequence[str], references: References) -> Numbers:
    """Information of matches and number of n-grams by order, and the lengths of text and references."""
    golds = [[words(one) for one in accepted] for accepted in references]
    said = [words(text) for text in predictions]
    weights = _information([gold for accepted in golds for gold in accepted])
    rows = [_nist_row(*pair, weights) for pair in zip(said, golds, strict=True)]
    return np.array(rows, np.float64).reshape(len(rows), 2 * NIST_ORDERS + 2)


def _information(golds: Sequence[Words]) -> dict[tuple[str, ...], float]:
    """Bits of every n-gram of the references: how rarely its last word follows the others (equation 2)."""
    counts = Counter(one for gold in golds for n in range(1, NIST_ORDERS + 1) for one in ngrams(gold, n))
    counts[()] = sum(map(len, golds))
    return {one: math.log2(counts[one[:-1]] / count) for one, count in counts.items() if one}


def _nist_row(said: Words, golds: Sequence[Words], weights: dict[tuple[str, ...], float]) -> list[float]:
    gains, sizes = [], []
    for n in range(1, NIST_ORDERS + 1):
        own = Counter(ngrams(said, n))
        held: Counter[tuple[str, ...]] = Counter()
        for gold in golds:
            held |= Counter(ngrams(gold, n))
        gains.append(math.fsum(weights[one] * count for one, count in (own & held).items()))
        sizes.append(float(own.total()))
    return [*gains, *sizes, float(len(said)), sum(map(len, golds)) / len(golds)]


def _nist(sums: Numbers) -> float | None:
    """Equation 3 of Doddington (2002): a text of two thirds of the references' length counts half."""
    gains, sizes, (said, gold) = sums[:NIST_ORDERS], sums[NIST_ORDERS:-2], sums[-2:]
    if not gold:
        return None
    if not said:
        return 0.0
    beta = math.log(0.5) / math.log(1.5) ** 2
    brevity = math.exp(beta * math.log(min(1.0, said / gold)) ** 2)
    return brevity * float((gains / np.maximum(sizes, 1)).sum())


def _cider_rows(predictions: Sequence[str], references: References) -> Numbers:
    """Each row's CIDEr-D, and 1; an n-gram counts the less, the more rows have it in their references."""
    golds = [[_counts(one) for one in accepted] for accepted in references]
    seen = Counter(gram for accepted in golds for gram in set().union(*accepted))
    weight = partial(_weighted, rows=len(golds), seen=seen)
    found = []
    for text, accepted in zip(predictions, golds, strict=True):
        said = weight(_counts(text))
        found.append([sum(_likeness(said, weight(gold)) for gold in accepted) / len(accepted), 1.0])
    return np.array(found, np.float64).reshape(len(found), 2)


def _counts(text: str) -> Counter[tuple[str, ...]]:
    """How often each n-gram of orders 1 to 4 stands in a text, without punctuation."""
    kept = [word for word in words(text) if word not in PUNCTUATION]
    return Counter(gram for n in range(1, CIDER_ORDERS + 1) for gram in ngrams(kept, n))


Weighted: TypeAlias = tuple[list[dict[tuple[str, ...], float]], int]  # by order; and the number of words


def _weighted(counts: Counter[tuple[str, ...]], *, rows: int, seen: Counter[tuple[str, ...]]) -> Weighted:
    """Counts times the logarithm of the inverse share of rows, order by order."""
    orders: list[dict[tuple[str, ...], float]] = [{} for _ in range(CIDER_ORDERS)]
    for gram, count in counts.items():
        orders[len(gram) - 1][gram] = count * math.log(rows / max(1, seen[gram]))
    return orders, sum(count for gram, count in counts.items() if len(gram) == 1)


def _likeness(said: Weighted, gold: Weighted) -> float:
    """CIDEr-D of two texts, 0 to 10: clipped cosines, fewer for unlike lengths (equation 5 ff.)."""
    cosines = 0.0
    for own, other in zip(said[0], gold[0], strict=True):
        shared = sum(min(weight, other[gram]) * other[gram] for gram, weight in own.items() if gram in other)
        cosines += shared / (_length(own) * _length(other)) if shared else 0.0
    return 10 / CIDER_ORDERS * cosines * math.exp(-((said[1] - gold[1]) ** 2) / (2 * SIGMA**2))


def _length(vector: dict[tuple[str, ...], float]) -> float:
    return math.sqrt(sum(weight * weight for weight in vector.values()))


def _cider(sums: Numbers) -> float | None:
    return _mean(sums) if sums[1] > 1 else None  # of one row nothing is rarer than anything else


GENERATION: dict[str, Summed] = {
    "bleu": Summed(_per_text(_bleu_counts, 10), _bleu),
    "ter": Summed(_per_text(_ter_edits, 2), _ter),
    "rouge_l": Summed(_per_text(_rouge_l, 2), _mean),
    "meteor_stem": Summed(_per_text(_meteor, 2), _mean),
    "nist": Summed(_nist_rows, _nist),
    "cider": Summed(_cider_rows, _cider),
}
