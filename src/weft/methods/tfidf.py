"""TF-IDF and logistic regression: the classifier of five lines that every user knows. No language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, RootModel

from weft.config.base import Content
from weft.errors import DataError
from weft.evaluation.answers import Answer, chosen_by_task
from weft.evaluation.received import Received
from weft.methods.kept import check_answers, check_once, check_shapes, numbered, of_task
from weft.methods.method import FittedMethod, Saved, Setup
from weft.tasks import Task
from weft.tasks.template import shows

if TYPE_CHECKING:
    from torch import Tensor

    from weft.evaluation.linear import LinearHead


TERMS = 50_000  # the commonest; with 150 answers they are 30 MB
AXES = {"weights": "CF", "bias": "C", "idf": "F"}


class Noted(Content):
    """What is noted of a task."""

    answers: list[str]
    terms: list[str]


class TfIdf(FittedMethod):
    """Words and pairs of words, weighted by TF-IDF, and logistic regression; C by cross-validation."""

    name: Literal["tfidf"] = "tfidf"
    keeps: ClassVar[Literal["arrays"]] = "arrays"
    noted: ClassVar[type[BaseModel]] = RootModel[dict[str, Noted]]
    closed_only: ClassVar[bool] = True
    only_reads: ClassVar[bool] = True
    reads_base: ClassVar[bool] = False
    quotes: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """What the field calls it."""
        return "TF-IDF + LR"

    def check(self, setup: Setup) -> None:
        """Refuse training rows without a word.

        Raises:
            DataError: naming the task.
        """
        words = vectorizer().build_analyzer()
        for task, rows in zip(setup.tasks, setup.rows, strict=True):
            if not any(words(row.source) for row in rows):
                raise no_words(task.name, len(rows))

    def fit(self, setup: Setup) -> Saved:
        """A vocabulary and a classifier for each task."""
        import torch

        from weft.evaluation.linear import best_strength, choice_rows, fit_head, fitted_numbers

        tensors: dict[str, Tensor] = {}
        notes: dict[str, dict[str, Any]] = {}
        size = 0
        for k, (task, rows) in enumerate(zip(setup.tasks, setup.rows, strict=True)):
            made, targets = vectorizer(), [row.target for row in rows]
            features = _fitted(made, [row.source for row in rows], task.name)
            part = choice_rows(targets)
            strength, score = best_strength(features[part], [targets[i] for i in part])
            head = fit_head(features, targets, strength)
            arrays = {"weights": head.weights, "bias": head.bias, "idf": made.idf_.astype("float32")}
            tensors |= {f"{k}.{name}": torch.from_numpy(value) for name, value in arrays.items()}
            terms = made.get_feature_names_out().tolist()
            notes[task.name] = {"answers": head.answers, "terms": terms, "C": strength, "validated": score}
            if len(part) < len(rows):
                notes[task.name]["chosen_on"] = len(part)
            size += fitted_numbers(head) + len(terms)  # idf
        return Saved(tensors, notes, size)

    def restore(self, setup: Setup, saved: Saved) -> "WordClassifiers":
        """The classifiers that a run kept."""
        from weft.evaluation.linear import LinearHead

        check_kept(setup, saved)
        heads, made = [], []
        for k, task in enumerate(setup.tasks):
            kept = [saved.tensors[f"{k}.{name}"].numpy() for name in ("weights", "bias", "idf")]
            notes = saved.notes[task.name]
            heads.append(LinearHead(kept[0], kept[1], tuple(notes["answers"])))
            made.append(vectorizer(notes["terms"]))
            made[-1].idf_ = kept[2]
        return WordClassifiers(setup.tasks, tuple(made), tuple(heads))


@dataclass(frozen=True)
class WordClassifiers:
    """A vectorizer and a classifier for each task."""

    tasks: tuple[Task, ...]
    vectorizers: tuple[Any, ...]
    heads: "tuple[LinearHead, ...]"

    def answer(
        self, texts: Sequence[str], task_ids: Sequence[int], *, batch_size: int = 64, generate: bool = True
    ) -> list[Answer]:
        """See `Answerer`."""

        def shares(k: int, rows: list[int]) -> Any:
            features = self.vectorizers[k].transform([texts[i] for i in rows])
            return self.heads[k].shares(features, self.tasks[k].choices)

        return chosen_by_task(self.tasks, task_ids, shares)

    def received(self, text: str, fields: Sequence[str], task_id: int) -> Received:
        """See `Receives`: nothing is cut, and what has no term of the training rows is unknown."""
        terms = self.vectorizers[task_id].transform([one for one in (*fields, text) if shows(one)])
        return Received(unknown=bool((terms.getnnz(axis=1) == 0).any()))


def _fitted(made: Any, texts: Sequence[str], task: str) -> Any:
    """Features of the training texts.

    Raises:
        DataError: if no text has a word.
    """
    try:
        return made.fit_transform(texts)
    except ValueError:  # an empty vocabulary
        raise no_words(task, len(texts)) from None


def no_words(task: str, rows: int) -> DataError:
    """What to say of training rows without words."""
    return DataError(
        f"TF-IDF finds no word of two signs or more in the {rows} training texts",
        where=f"task {task}, train",
        fix="take the row out, or give texts with words",
        code="D03",
    )


def check_kept(setup: Setup, saved: Saved) -> None:
    """Refuse terms, answers and numbers that do not fit each other or the tasks.

    Raises:
        ArtifactError: naming the first.
    """
    sizes: dict[str, int] = {}
    for k, task in enumerate(setup.tasks):
        notes = of_task(saved.notes, task)
        check_answers(notes["answers"], task)
        for what in ("answers", "terms"):
            check_once(what, notes[what], task)
        sizes |= {f"C{k}": len(notes["answers"]), f"F{k}": len(notes["terms"])}
    check_shapes(saved.tensors, numbered(AXES, len(setup.tasks)), **sizes)


def vectorizer(terms: Sequence[str] | None = None) -> Any:
    """Words of two signs or more and their pairs, in lower case, counts in logarithms.

    Args:
        terms: of a finished one, in its order.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=TERMS, vocabulary=terms)
