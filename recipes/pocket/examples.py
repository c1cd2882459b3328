"""Text-to-text examples from documents: what the decoder learns to write, and soft prompts to ask for.

Every maker takes what a random generator draws from a document and gives a source and a target, or none where
the document has nothing for it. Each kind of example is a task with an instruction in words, and in training
also with a soft prompt of its own: that is how the model learns to be steered by soft prompts.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from recipes.pocket import answers, mood
from recipes.pocket.text import QUIZ, SENTENCE_END, Document

MOST_WORDS, LONGEST_ANSWER = 40, 16
COMMON = 4  # letters; shorter words say little
MONTHS = "January|February|March|April|June|July|August|September|October|November|December"
DATE = re.compile(rf"\b1\d{{3}}\b|\b20[01]\d\b|{MONTHS}")

Pair = tuple[str, str]
Maker = Callable[[random.Random, "Passage"], Pair | None]


@dataclass(frozen=True)
class Passage:
    """Sentences of a document, and one of another document of the same kind."""

    document: Document
    sentences: list[str]
    foreign: str


@dataclass(frozen=True)
class Example:
    """A source and what is to be written.

    Attributes:
        task: the kind of example.
        told: an instruction in words.
        source: text.
        target: text.
    """

    task: str
    told: str
    source: str
    target: str


def fill(random: random.Random, passage: Passage) -> Pair | None:
    """One span of one to four words is missing."""
    words = _window(random, passage).split()
    size = random.randint(1, 4)
    if len(words) < size + 6:
        return None
    at = random.randrange(len(words) - size)
    return " ".join([*words[:at], "[MASK]", *words[at + size :]]), " ".join(words[at : at + size])


def copy(random: random.Random, passage: Passage) -> Pair | None:
    """Write a sentence back."""
    sentence = _short(random.choice(passage.sentences), LONGEST_ANSWER // 2)
    return sentence, sentence


def go_on(random: random.Random, passage: Passage) -> Pair | None:
    """The rest of a sentence, after those before it."""
    words = _window(random, passage).split()
    if len(words) < 24:
        return None
    at = random.randint(len(words) // 2, len(words) - 8)
    return " ".join(words[:at]), " ".join(words[at : at + LONGEST_ANSWER])


def title(random: random.Random, passage: Passage) -> Pair | None:
    """What an article is called."""
    lines = passage.document.paragraphs
    if passage.document.kind != "encyclopedia" or len(lines[0].split()) > 6 or lines[0].endswith("."):
        return None
    return _window(random, passage), lines[0]


def changed(random: random.Random, passage: Passage) -> Pair | None:
    """A word was put in the place of another: which one?"""
    words, others = _window(random, passage, MOST_WORDS // 2).split(), _long_words(passage.foreign)
    places = [i for i, word in enumerate(words) if len(word) > COMMON]
    if not places or not others:
        return None
    at, word = random.choice(places), random.choice(others)
    return " ".join([*words[:at], word, *words[at + 1 :]]), word


def missing(random: random.Random, passage: Passage) -> Pair | None:
    """Whether a word of its own was put in the place of another."""
    words, others = _window(random, passage, MOST_WORDS // 2).split(), _long_words(passage.foreign)
    places = [i for i, word in enumerate(words) if len(word) > COMMON]
    if not places or not others:
        return None
    if random.random() < 0.5:
        words[random.choice(places)] = random.choice(others)
        return " ".join(words), "wrong"
    return " ".join(words), "right"


def contains(random: random.Random, passage: Passage) -> Pair | None:
    """Whether a word occurs in a text."""
    text, others = _window(random, passage), _long_words(passage.foreign)
    own = _long_words(text)
    if not own or not others:
        return None
    word = random.choice(own if random.random() < 0.5 else others)
    return f"{word} : {text}", "yes" if word in own else "no"


def follows(random: random.Random, passage: Passage) -> Pair | None:
    """Whether the second sentence follows the first, or comes from elsewhere."""
    if len(passage.sentences) < 2:
        return None
    at, real = random.randrange(len(passage.sentences) - 1), random.random() < 0.5
    second = passage.sentences[at + 1] if real else passage.foreign
    return f"first : {_short(passage.sentences[at])} second : {_short(second)}", "next" if real else "other"


def order(random: random.Random, passage: Passage) -> Pair | None:
    """Which of two neighbours comes first."""
    if len(passage.sentences) < 2:
        return None
    at, right = random.randrange(len(passage.sentences) - 1), random.random() < 0.5
    one, two = (_short(text) for text in passage.sentences[at : at + 2])
    return (f"{one} {two}", "ordered") if right else (f"{two} {one}", "swapped")


def answered(random: random.Random, passage: Passage) -> Pair | None:
    """A sentence that holds all the words of another but a few, or one that does not: is it said?"""
    sentence = _short(random.choice(passage.sentences)).split()
    if len(sentence) < 8:
        return None
    at = random.randrange(len(sentence) - 4)
    part = " ".join(sentence[at : at + random.randint(3, 6)])
    if random.random() < 0.5:
        return f"text : {_short(passage.foreign)} part : {part}", "absent"
    return f"text : {' '.join(sentence)} part : {part}", "present"


def kind(random: random.Random, passage: Passage) -> Pair | None:
    """Where a sentence comes from."""
    sentence = _short(random.choice(passage.sentences))
    return sentence.removeprefix("User: ").removeprefix("Assistant: "), passage.document.kind


def speaker(random: random.Random, passage: Passage) -> Pair | None:
    """Who says a sentence of a dialogue."""
    if passage.document.kind != "dialogue":
        return None
    who, _, said = random.choice(passage.document.paragraphs).partition(": ")
    return (said, who.lower()) if who in ("User", "Assistant") and said else None


def quiz(random: random.Random, passage: Passage) -> Pair | None:
    """The answer of a question among choices."""
    found = QUIZ.fullmatch(random.choice(passage.document.paragraphs))
    if passage.document.kind != "quiz" or not found:
        return None
    return f"{found['question']} choices : {found['choices']}", found["answer"]


def number_of_words(random: random.Random, passage: Passage) -> Pair | None:
    """Whether a text is short or long."""
    sentence = _short(random.choice(passage.sentences))
    return sentence, "short" if len(sentence.split()) < 14 else "long"


def feeling(random: random.Random, passage: Passage) -> Pair | None:
    """Whether a text praises or blames, by its words, of which the model sees about half."""
    words = _window(random, passage, MOST_WORDS * 3 // 4).split()
    signs = mood.signs(words)
    mean, sure = sum(signs), 1 if len(words) < MOST_WORDS // 3 else 2
    if passage.document.kind == "quiz" or abs(mean) < sure:
        return None
    hidden = random.choice((0.0, 0.5, 1.0))
    shown = [
        "[MASK]" if sign and random.random() < hidden else word
        for word, sign in zip(words, signs, strict=True)
    ]
    return " ".join(shown), "positive" if mean > 0 else "negative"


def entailment(random: random.Random, passage: Passage) -> Pair | None:
    """Whether one sentence follows from another."""
    premise, hypothesis, label = passage.document.paragraphs
    return f"premise : {_short(premise, MOST_WORDS)} hypothesis : {_short(hypothesis)}", label


def reading(random: random.Random, passage: Passage) -> Pair | None:
    """The answer of a question, out of the sentence that holds it."""
    question, answer, holding, _ = passage.document.paragraphs
    around = _short(holding, MOST_WORDS)
    return (f"question : {question} text : {around}", answer) if answer in around else None


def holds(random: random.Random, passage: Passage) -> Pair | None:
    """Whether a sentence holds the answer of a question."""
    question, _, holding, other = passage.document.paragraphs
    real = random.random() < 0.5
    sentence = _short(holding if real else other, MOST_WORDS)
    return f"question : {question} sentence : {sentence}", "answered" if real else "open"


def same(random: random.Random, passage: Passage) -> Pair | None:
    """Whether two texts say the same."""
    *both, label = passage.document.paragraphs
    one, two = random.sample(both, 2)
    return f"first : {one} second : {two}", label


def opinion(random: random.Random, passage: Passage) -> Pair | None:
    """Whether a review praises or blames."""
    label, said = passage.document.paragraphs
    return said, label


def asks(random: random.Random, passage: Passage) -> Pair | None:
    """What a question asks for, by the look of its answer."""
    question, answer, _, _ = passage.document.paragraphs
    if DATE.search(answer):
        return question, "time"
    if any(sign.isdigit() for sign in answer):
        return question, "number"
    return question, "name" if all(word[:1].isupper() for word in answer.split()) else "thing"


TASKS: dict[str, tuple[float, str, Maker]] = {  # share, instruction, maker
    "fill": (0.03, "write the missing words :", fill),
    "copy": (0.01, "write the sentence again :", copy),
    "go_on": (0.01, "continue the text :", go_on),
    "title": (0.02, "write a title :", title),
    "changed": (0.03, "which word does not belong here :", changed),
    "missing": (0.04, "is every word right or is one wrong :", missing),
    "contains": (0.03, "does the word occur, yes or no :", contains),
    "follows": (0.05, "is the second sentence the next one or another :", follows),
    "order": (0.01, "are the sentences ordered or swapped :", order),
    "answered": (0.03, "is the part present or absent in the text :", answered),
    "kind": (0.06, "is this from a book, an encyclopedia, a quiz, a dialogue or a review :", kind),
    "speaker": (0.02, "who says this, the user or the assistant :", speaker),
    "quiz": (0.02, "answer the question :", quiz),
    "length": (0.01, "is the text short or long :", number_of_words),
    "feeling": (0.10, "is this positive or negative :", feeling),
    "opinion": (0.10, "is this review positive or negative :", opinion),
    "entailment": (0.17, "does the hypothesis follow, is it open, or does it contradict :", entailment),
    "reading": (0.04, "answer the question from the text :", reading),
    "holds": (0.10, "is the question answered or open :", holds),
    "same": (0.14, "do both say the same, or are they different :", same),
    "asks": (0.05, "does the question ask for a name, a time, a number or another thing :", asks),
    "instruction": (0.06, "", lambda random, passage: None),
}
ANSWERS = {  # all that can be answered, where that is few words
    "missing": ("right", "wrong"),
    "contains": ("yes", "no"),
    "follows": ("next", "other"),
    "order": ("ordered", "swapped"),
    "answered": ("present", "absent"),
    "kind": ("book", "encyclopedia", "quiz", "dialogue", "review"),
    "speaker": ("user", "assistant"),
    "length": ("short", "long"),
    "feeling": ("positive", "negative"),
    "opinion": ("positive", "negative"),
    "entailment": ("follows", "open", "contradicts"),
    "holds": ("answered", "open"),
    "same": ("same", "different"),
    "asks": ("name", "time", "number", "thing"),
}


VARIANTS, RENAMED = 16, 0.6  # sets of words for a task's answers; share of examples that are told one
PLAIN = {  # shares of running text
    "encyclopedia": 5.0,
    "book": 4.0,
    "dialogue": 1.5,
    "quiz": 1.0,
    "review": 0.0,  # only in `kind`, which draws from all alike
}
ONLY = {  # tasks that are made of one kind of document
    "title": "encyclopedia",
    "speaker": "dialogue",
    "quiz": "quiz",
    "entailment": "entailment",
    "reading": "reading",
    "holds": "reading",
    "asks": "reading",
    "same": "alike",
    "opinion": "review",
}


def instructions(documents: Sequence[Document]) -> dict[str, str]:
    """The instruction of every task that examples of these documents can have."""
    own = {name: told for name, (_, told, _) in TASKS.items() if told}
    own |= {variant(name, i): _renamed(name, i)[0] for name in ANSWERS for i in range(1, VARIANTS)}
    asked = {one.task: _told(one) for one in documents if one.kind == "instruction"}
    return own | asked


def _told(document: Document) -> str:
    return f"{_short(document.paragraphs[0], 50)} :"


def examples(documents: Sequence[Document], count: int, seed: int) -> Iterator[Example]:
    """So many examples, the same for the same seed: tasks drawn by their shares, documents until one fits.

    Texts praise more than they blame; of the two, the one that was asked more often waits.

    Args:
        documents: of all kinds.
        count: how many.
        seed: of all that is drawn.
    """
    draw = random.Random(seed)
    asked = [one for one in documents if one.kind == "instruction"]
    by_kind: dict[str, list[Document]] = {}
    for one in documents:
        if one.kind != "instruction":
            by_kind.setdefault(one.kind, []).append(one)
    names, shares = list(TASKS), [share for share, _, _ in TASKS.values()]
    felt = {"positive": 0, "negative": 0}
    for name in draw.choices(names, shares, k=count):
        one = None
        while one is None or (name == "feeling" and felt[one.target] > min(felt.values())):
            one = _instructed(draw, asked) if name == "instruction" else _made(draw, name, by_kind)
        if name == "feeling":
            felt[one.target] += 1
        yield renamed(one, draw.randrange(VARIANTS)) if name in ANSWERS and draw.random() < RENAMED else one


def variant(name: str, number: int) -> str:
    """The name of a task whose answers are called otherwise; 0 is the task itself."""
    return f"{name}/{number}" if number else name


def kind_of(name: str) -> str:
    """The kind of example that a task, whatever its answers are called, asks for."""
    own = name.partition("/")[0]
    return own if own in TASKS else "instruction"


def renamed(one: Example, number: int) -> Example:
    """The same question with other words for its answers, which its instruction tells.

    So the answers' words are a matter of the prompt, and a prompt for a new task finds its own quickly.
    """
    if not number:
        return one
    told, words = _renamed(one.task, number)
    return Example(variant(one.task, number), told, one.source, words[one.target])


def _renamed(name: str, number: int) -> tuple[str, dict[str, str]]:
    called = answers.others(name, ANSWERS[name], number)
    return f"{answers.said(called)} : {TASKS[name][1]}", called


def _made(draw: random.Random, name: str, by_kind: dict[str, list[Document]]) -> Example | None:
    kinds = [kind for kind in by_kind if kind in PLAIN]
    shares = [1 if name == "kind" else PLAIN[kind] for kind in kinds]
    drawn = ONLY.get(name) or draw.choices(kinds, shares)[0]
    document, other = draw.choice(by_kind[drawn]), draw.choice(by_kind[drawn])
    own, foreign = sentences(draw, document), sentences(draw, other)
    if not own or not foreign or other is document:
        return None
    pair = TASKS[name][2](draw, Passage(document, own, draw.choice(foreign)))
    return Example(name, TASKS[name][1], *pair) if pair and all(pair) else None


def _instructed(draw: random.Random, asked: Sequence[Document]) -> Example | None:
    document = draw.choice(asked)
    _, source, target = document.paragraphs
    if len(source.split()) > 2 * MOST_WORDS or len(target.split()) > 2 * LONGEST_ANSWER or not target.strip():
        return None
    return Example(document.task, _told(document), source, target)


def sentences(draw: random.Random, document: Document) -> list[str]:
    """The sentences of one of a document's paragraphs, its title aside."""
    lines = document.paragraphs[1:] or document.paragraphs
    found = SENTENCE_END.split(draw.choice(lines)) if document.kind in ("book", "encyclopedia") else lines
    return [one for one in found if len(one.split()) >= 4]


def _window(draw: random.Random, passage: Passage, most: int = MOST_WORDS) -> str:
    """One to four sentences in a row, cut at so many words."""
    count = draw.randint(1, 4)
    at = draw.randrange(max(1, len(passage.sentences) - count + 1))
    return _short(" ".join(passage.sentences[at : at + count]), most)


def _short(text: str, most: int = LONGEST_ANSWER * 2) -> str:
    return " ".join(text.split()[:most])


def _long_words(text: str) -> list[str]:
    return [word.strip(".,;:!?\"'()") for word in text.split() if len(word) > COMMON]
