"""Words that praise and words that blame: a weak sign of what a text feels, without any labelled data.

The lists are our own. A text's mood is the sign of the sum over its words; a negation within three words
before turns a word around. Part of the words is hidden from the model, so that it has to read the rest.
"""

import re
from pathlib import Path

from ruamel.yaml import YAML

LISTS = YAML(typ="safe").load(Path(__file__).with_suffix(".yaml").read_text())
PRAISE, BLAME = frozenset(LISTS["praise"].split()), frozenset(LISTS["blame"].split())
NEGATIONS = frozenset(["not", "no", "never", "nothing", "neither", "nor", "without", "hardly", "cannot"])
REACH = 3  # words that a negation reaches forward
WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")


def signs(words: list[str]) -> list[int]:
    """What each word says: 1 praise, -1 blame, 0 neither, negations heard.

    Args:
        words: of a text, as they stand.
    """
    plain = [_plain(word) for word in words]
    found = [(word in PRAISE) - (word in BLAME) for word in plain]
    for i, word in enumerate(plain):
        if word in NEGATIONS or word.endswith("n't"):
            found[i + 1 : i + 1 + REACH] = [-one for one in found[i + 1 : i + 1 + REACH]]
    return found


def _plain(word: str) -> str:
    found = WORD.search(word.lower().replace("’", "'"))
    return found.group() if found else ""
