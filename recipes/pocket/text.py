"""Passages whose stated licence lets a model trained on them be released, less what benchmarks hold."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recipes.pocket import alike, opinions
from recipes.pocket.overlap import Overlap, benchmark_texts

KINDS = {"wikipedia": "encyclopedia", "books": "book", "dialogues": "dialogue", "trivia": "quiz"}
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z])")
QUIZ = re.compile(r"Question: (?P<question>.+) Choices: (?P<choices>.+)\. Answer: (?P<answer>.+)\.")
ENTAILMENT = ("follows", "open", "contradicts")  # the labels of SNLI and MNLI in their order
OPINIONS = 20_000
SHORT_TEXTS = 12_000  # of each kind, of which pairs are made
REFUSED = (
    "unknown",
    "nc",
    "gpl",
    "european",
)  # in a licence's words: not stated, non-commercial, not for models


@dataclass(frozen=True)
class Document:
    """A text to learn from.

    Attributes:
        kind: encyclopedia, book, dialogue, quiz, instruction, entailment, reading, alike or review.
        paragraphs: its paragraphs; of an instruction: what is asked, the input, an answer; of entailment:
            premise, hypothesis, whether it holds; of reading: a question, its answer, the sentence that
            holds it, another sentence of the same passage; of alike: two texts, same or different; of a
            review: positive or negative, what it says.
        task: of an instruction, which.
    """

    kind: str
    paragraphs: list[str]
    task: str = ""


def collect(data: Path, out: Path) -> Counter[str]:
    """Write documents.parquet of all that may be used; say what was dropped and why.

    Args:
        data: folder with corpus/, tasks/ and natural_instructions.parquet.
        out: folder to write in.

    Returns:
        Numbers of paragraphs and instructions kept and dropped.
    """
    overlap, counts = Overlap(benchmark_texts(data / "tasks")), Counter[str]()
    kept = [*_clean(documents(data / "corpus"), overlap, counts), *_instructions(data, overlap, counts)]
    kept += _unshared((*_supervised(data / "tasks"), *_opinions()), overlap, counts)
    pairs = [Document("alike", list(pair)) for pair in alike.pairs(short_texts(kept), seed=0)]
    counts["alike: made of kept texts"] = len(pairs)
    kept += pairs
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([asdict(one) for one in kept]), out / "documents.parquet")
    (out / "text.json").write_text(json.dumps(dict(sorted(counts.items())), indent=1) + "\n")
    return counts


def read(out: Path) -> list[Document]:
    """What `collect` wrote."""
    return [Document(**row) for row in pq.read_table(out / "documents.parquet").to_pylist()]


def documents(corpus: Path) -> Iterator[Document]:
    """Documents of the corpora that are named in KINDS; film reviews state no licence and are not."""
    for path in sorted(corpus.glob("*.parquet")):
        kind = KINDS.get(path.stem.split("-")[0].split("_")[0])
        if kind is not None:
            for text in pq.read_table(path, columns=["text"]).column("text").to_pylist():
                yield Document(kind, [line.strip() for line in text.splitlines() if line.strip()])


def _clean(found: Iterator[Document], overlap: Overlap, counts: Counter[str]) -> Iterator[Document]:
    for document in found:
        good = [text for text in document.paragraphs if not overlap.shares(text)]
        counts[f"{document.kind}: kept"] += len(good)
        counts[f"{document.kind}: shared with a benchmark"] += len(document.paragraphs) - len(good)
        if good:
            yield Document(document.kind, good)


def _instructions(data: Path, overlap: Overlap, counts: Counter[str]) -> Iterator[Document]:
    for row in pq.read_table(data / "natural_instructions.parquet").to_pylist():
        if not allowed(row["licence"]):
            counts["instruction: licence"] += 1
        elif overlap.shares(row["input"]):
            counts["instruction: shared with a benchmark"] += 1
        else:
            counts["instruction: kept"] += 1
            yield Document("instruction", [row["definition"], row["input"], row["output"][0]], row["task"])


def _supervised(tasks: Path) -> Iterator[Document]:
    """Training rows of what the borrowed encoder was trained on before, so nothing is lost.

    SNLI and SQuAD are under CC BY-SA 4.0, MNLI under OANC's terms, CC BY and CC BY-SA.
    """
    for name in ("snli", "mnli"):
        yield from _entailment(tasks / name)
    yield from _reading(tasks / "squad")


def _opinions() -> Iterator[Document]:
    """Our own sentences."""
    for pair in opinions.opinions(OPINIONS, seed=0):
        yield Document("review", list(pair))


def _unshared(found: Iterable[Document], overlap: Overlap, counts: Counter[str]) -> Iterator[Document]:
    """Documents of which no paragraph is shared with a benchmark, ours among them."""
    for document in found:
        shared = any(overlap.shares(text) for text in document.paragraphs)
        counts[f"{document.kind}: {'shared with a benchmark' if shared else 'kept'}"] += 1
        if not shared:
            yield document


def short_texts(kept: list[Document]) -> list[str]:
    """Questions of SQuAD, quizzes and dialogues, and hypotheses: none twice, so many of each kind at most."""
    found: dict[str, list[str]] = {}
    for one in kept:
        found.setdefault(one.kind, []).extend(_short_texts(one))
    draw, texts = random.Random(0), list[str]()
    for kind in sorted(found):
        every = list(dict.fromkeys(found[kind]))
        texts += draw.sample(every, min(SHORT_TEXTS, len(every)))
    return texts


def _short_texts(document: Document) -> list[str]:
    match document.kind:
        case "reading":
            found = document.paragraphs[:1]
        case "entailment":
            found = document.paragraphs[1:2]
        case "quiz":
            found = [told["question"] for text in document.paragraphs if (told := QUIZ.fullmatch(text))]
        case "dialogue":
            found = [text.partition(": ")[2] for text in document.paragraphs if text.endswith("?")]
        case _:
            found = []
    return [text for text in found if 4 <= len(text.split()) <= 24]


def _entailment(folder: Path) -> Iterator[Document]:
    for row in pq.read_table(folder / "train.parquet").to_pylist():
        if row["label"] >= 0:
            words = [row["premise"], row["hypothesis"], ENTAILMENT[row["label"]]]
            yield Document("entailment", words)


def _reading(squad: Path) -> Iterator[Document]:
    for row in pq.read_table(squad / "train.parquet").to_pylist():
        answer, at = row["answers"]["text"][0], row["answers"]["answer_start"][0]
        before, after = row["context"][:at], row["context"][at:]
        begin = max((found.end() for found in SENTENCE_END.finditer(before)), default=0)
        end = SENTENCE_END.search(after, len(answer))
        holding = before[begin:] + (after[: end.start()] if end else after)
        others = [one for one in SENTENCE_END.split(row["context"]) if answer not in one]
        if others:
            yield Document("reading", [row["question"], answer, holding, max(others, key=len)])


def allowed(licence: str) -> bool:
    """Whether a stated licence lets a model trained on the text be released."""
    words = licence.lower().replace("-", " ").split()
    return bool(words) and not any(word.startswith(REFUSED) for word in words) and "©" not in licence
