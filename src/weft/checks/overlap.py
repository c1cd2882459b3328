"""Rows that stand on both sides of a comparison: whole inputs seen in training, and shared sentences.

Two texts are the same if their letters, digits and signs are, whatever their case, spaces and punctuation of
sentences. A sign may decide the answer: 3 + 4 is not 3 - 4, and a thumb up is none down. Loads without torch.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

Fields = tuple[str, ...]  # the texts of a row that its template shows
SENTENCE = 25  # letters, digits and signs; shorter fields ("yes", a name) are the same by chance
DECIDES = set("%&@#*/\\^")  # the punctuation that counts, beside symbols: of sums, shares and addresses
DASHES = str.maketrans("\u2010\u2011\u2012\u2013\u2014\u2212", "------")


def _is_dropped(sign: str) -> bool:
    """Whether a character says nothing: spaces, controls, punctuation, variants of emoji."""
    kind = unicodedata.category(sign)
    return sign not in DECIDES and (kind[0] in "ZCP" or kind == "Sk" or "\ufe00" <= sign <= "\ufe0f")


DROPPED = re.escape("".join(filter(_is_dropped, map(chr, [*range(0x3100), *range(0xFE00, 0x10000)]))))
NUMBER = r"(?<=\d)[.,: ](?=\d)|(?<=\d[.,:;]) (?=\d)|(?<![^\W\d_])-(?=\s*\d)|!(?==)"  # 3.5, 4 - 3, 1, 2
FACE = r"[:;=]['-]?[()\[\]]|(?<=[:;=])['-]?[()\[\]]|(?<=[:;=]['-])[()\[\]]"  # :) is not :(
NO_SIGN = re.compile(f"[{DROPPED}]+")
NO_SIGN_BUT = re.compile(f"(?!{NUMBER}|{FACE})[{DROPPED}]")  # three times slower, so only where it matters
MATTERS = re.compile(rf"\d|!=|{FACE}")


@dataclass(frozen=True)
class Leak:
    """A scored row whose whole input is that of a training row.

    Attributes:
        seen: place of the training row, the first of several.
        scored: place of the scored row.
        exact: whether the fields are the same character for character.
    """

    seen: int
    scored: int
    exact: bool


@lru_cache(maxsize=1 << 20)  # a training text is compared with the rows of every scored task
def normal(text: str) -> str:
    """Letters, digits and signs of a text, case-folded; a text without any stays as it is."""
    plain = unicodedata.normalize("NFKC", " ".join(text.split())).translate(DASHES).casefold()
    return (NO_SIGN_BUT if MATTERS.search(plain) else NO_SIGN).sub("", plain) or text


def leaks(seen: Sequence[Fields], scored: Sequence[Fields]) -> list[Leak]:
    """Every scored row whose whole input was seen in training, with an exact partner where there is one."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, fields in enumerate(seen):
        places[whole(fields)].append(place)
    found = []
    for place, fields in enumerate(scored):
        partners = places.get(whole(fields), [])
        exact = [partner for partner in partners if seen[partner] == fields]
        if partners:
            found.append(Leak((exact or partners)[0], place, bool(exact)))
    return found


def whole(fields: Fields) -> str:
    """The normal form of a whole input, so that it does not matter how it is cut into fields."""
    return normal("\n".join(fields))


def shared(seen: Iterable[Fields], scored: Iterable[Fields]) -> int:
    """How many scored rows have one sentence, but not the whole input, in common with training rows.

    A sentence is a field of at least `SENTENCE` letters, digits and signs.
    """
    wholes, sentences = set[str](), set[str]()
    for fields in seen:
        wholes.add(whole(fields))
        sentences |= _sentences(fields)
    return sum(
        not sentences.isdisjoint(_sentences(fields)) for fields in scored if whole(fields) not in wholes
    )


def _sentences(fields: Fields) -> set[str]:
    return {text for text in map(normal, fields) if len(text) >= SENTENCE}


def repeats(rows: Iterable[Hashable]) -> list[int]:
    """Places of the rows that are a copy of one before them."""
    known: set[Hashable] = set()
    found = []
    for place, row in enumerate(rows):
        if row in known:
            found.append(place)
        known.add(row)
    return found
