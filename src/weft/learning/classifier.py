"""`weft.Classifier`: texts and answers in, a classifier out, as scikit-learn's estimators are used.

    clf = weft.Classifier().fit(["My card was swallowed", ...], ["card", ...])
    clf.predict(["The machine kept my card"])

It is `method: weft` as `weft learn` runs it. A fitted classifier is a finished run, in a folder of this
process until `save` keeps it.
"""

import atexit
import json
import shutil
import tempfile
import warnings
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from weft import runs, stages, storage
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.errors import DataError
from weft.experiments import validation
from weft.learning import plan, task_file
from weft.learning.drawing import drawn
from weft.learning.texts import field_rows
from weft.models.base_folder import located
from weft.runs.workspace import Workspace
from weft.serving import predictor
from weft.serving.predictor import Predictor

TASK, ROWS, CARD = "texts", "rows.jsonl", "classifier.json"
LOADED = 8  # classifiers that are kept ready


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A text classifier on frozen models, for few rows.

    Texts are a list, Series or array of strings; or, of several fields (pairs), a DataFrame, a `datasets`
    data set, a list of dicts or of equally long tuples.

    Args:
        base: the base model: smollm2, pocket, minilm, a folder or a hub id.
        seed: of what is drawn.
        rows: learn from so many at most, of each answer its share and a few at least; none: from all.
        tokens: longest text; what lies behind is cut.

    Attributes:
        classes_: the answers, sorted.
        fields_: names of the texts' fields.
        n_features_in_: how many fields a text has.
        run_: the folder of the run that answers; `save` keeps it.
    """

    def __init__(
        self, base: str = "smollm2", seed: int = 0, rows: int | None = None, tokens: int = plan.TOKENS
    ) -> None:
        self.base = base
        self.seed = seed
        self.rows = rows
        self.tokens = tokens

    def fit(self, X: Any, y: Any) -> "Classifier":
        """Learn from texts and their answers.

        Raises:
            DataError: if they are not equally many, a text is empty, or all have one answer.
            ConfigError: if `rows` or `tokens` is none.
        """
        rows, answers = field_rows(X), np.asarray(y)
        if answers.ndim != 1 or len(rows) != len(answers):
            raise DataError(
                f"{len(rows)} texts want one answer each, and the answers' shape is {answers.shape}"
            )
        self.classes_, numbers = np.unique(answers, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError("all rows have one answer", fix="give rows with two or more answers", code="D13")
        self.fields_ = list(rows[0])
        self.n_features_in_ = len(self.fields_)
        labelled = [{**row, _answer(row): str(n)} for row, n in zip(rows, numbers, strict=True)]
        plan.tokens_of(self.tokens)
        most = len(rows) if self.rows is None else self.rows
        self.run_ = str(self._learnt([labelled[i] for i in drawn(numbers.tolist(), most, self.seed)]))
        return self

    def _learnt(self, rows: list[dict[str, str]]) -> Path:
        """The run that these rows make."""
        room, folder = _room(), Path(tempfile.mkdtemp(dir=_room().root, prefix=".rows-"))
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        storage.write_text(folder / ROWS, "\n".join(lines) + "\n")
        spec = TaskSpec(
            name=TASK,
            files={"train": ROWS},
            source=task_file.source_of(self.fields_),
            target=f"{{{list(rows[0])[-1]}}}",
            labels={str(i): word for i, word in enumerate(self._words())},
            folder=str(folder),
        )
        config = plan.weft(
            spec, located(BaseConfig(model=self.base), Path()), seed=self.seed, tokens=self.tokens
        )
        checked = validation.check_runs([config], room)
        checked.findings.raise_errors()
        for one in checked.findings.warnings:
            warnings.warn(str(one), stacklevel=3)
        return stages.perform(config, room).path

    def _words(self) -> list[str]:
        """The classes as words.

        Raises:
            DataError: if one is empty, or two are the same.
        """
        words = [str(one).strip() for one in self.classes_.tolist()]
        if not all(words) or len(set(words)) < len(words):
            raise DataError(f"answers must differ as text, and these are {words[:10]}", code="D06")
        return words

    def predict_proba(self, X: Any) -> Any:
        """Probability of each of `classes_` `[N, C]`.

        Raises:
            DataError: if a text is empty or lacks a field; with the row's number, from 0.
        """
        check_is_fitted(self)
        found = _model(self.run_).predict(field_rows(X, self.fields_))
        for one in found:
            if one.error:
                raise DataError(one.error, where=f"row {one.row}", code="D02")
        return np.asarray([list((one.probabilities or {}).values()) for one in found], np.float64)

    def predict(self, X: Any) -> Any:
        """The likeliest of `classes_` for each text `[N]`."""
        shares = self.predict_proba(X)
        return self.classes_[shares.argmax(1)]

    def save(self, folder: str | Path) -> Path:
        """Keep it in a folder: the run, which `weft predict` takes as any other, and what `load` asks for.

        Returns:
            the path of the run.
        """
        check_is_fitted(self)
        state = self.__getstate__()
        run, files = Path(folder) / Path(self.run_).name, state.pop("files_")
        for name, data in files.items():
            storage.write_bytes(run / name, data)
        card = {name: state[name] for name in ("base", "seed", "rows", "fields_")}
        storage.write_json(Path(folder) / CARD, {**card, "classes_": self.classes_.tolist(), "run": run.name})
        return run

    @classmethod
    def load(cls, folder: str | Path) -> "Classifier":
        """A classifier from the folder that it was saved in.

        Raises:
            ArtifactError: if there is none, or it is damaged.
        """
        card = storage.read_json(Path(folder) / CARD)
        self = cls(base=card["base"], seed=card["seed"], rows=card.get("rows"))
        self.classes_, self.fields_ = np.asarray(card["classes_"]), card["fields_"]
        self.n_features_in_ = len(self.fields_)
        self.run_ = str(runs.find(Path(folder), card["run"]).path)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """With the bytes of the run, for a copy in another process."""
        state = dict(super().__getstate__())
        if "run_" in state:
            run = Path(self.run_)
            names = [*storage.names(run), storage.MANIFEST]  # the manifest last: it says that all is there
            state["files_"] = {name: storage.read_plain(run / name, storage.LARGEST_FILE) for name in names}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("files_", {})
        super().__setstate__(state)
        if files:
            self.run_ = str(Path(tempfile.mkdtemp(dir=_room().root, prefix=".copy-")) / Path(self.run_).name)
            for name, data in files.items():
                storage.write_bytes(Path(self.run_) / name, data)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags


def _answer(row: dict[str, str]) -> str:
    """A name for the answer that no field of the text has."""
    name = "answer"
    while name in row:
        name += "_"
    return name


@cache
def _room() -> Workspace:
    """Where the classifiers of this process work, with models that are loaded once; gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="weft-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Workspace(folder, keep_texts=False)


@lru_cache(maxsize=LOADED)
def _model(run: str) -> Predictor:
    return predictor.load(run, workspace=_room())
