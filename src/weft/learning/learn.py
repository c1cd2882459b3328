"""`weft learn`: rows of a file -> a task, a run that answers, and scores that say how well."""

import random
from dataclasses import dataclass
from pathlib import Path

from weft import runs, stages
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.errors import ArtifactError, DataError
from weft.experiments import validation
from weft.experiments.validation import Checked
from weft.learning import plan, task_file
from weft.learning.columns import Columns
from weft.learning.columns import find as find_columns
from weft.learning.drawing import MOST
from weft.learning.plan import Plan
from weft.learning.rows import Rows, described, few, understand
from weft.runs import Run
from weft.runs.config import AdaptRun
from weft.runs.workspace import Workspace
from weft.tasks import Row, template
from weft.tasks.files import read_rows, separated

HELD = 0.2  # of the rows: those that a trained prompt is scored on
MOST_HELD = 100


@dataclass(frozen=True)
class Wish:
    """What a user asks for beside a file.

    Attributes:
        texts: columns of the text; none: they are found.
        answer: column of the answer; none: it is found.
        name: of the task; none: of the file.
        base: the base model; none: that of the earlier run, or smollm2.
        earlier: a run of `weft learn` that is gone on from.
        whole: an answer with separators in it is one answer.
        peft: the run must be one that PEFT can hold.
        quick: read bare texts alone, without the source prompts.
        folds: of the cross-validation.
        rows: of the file that are learnt from, at most.
        tokens: longest text; none: as the earlier run has it, or 256.
        seed: of all that is drawn.
    """

    texts: tuple[str, ...] = ()
    answer: str | None = None
    name: str | None = None
    base: str | None = None
    earlier: str | None = None
    whole: bool = False
    peft: bool = False
    quick: bool = False
    folds: int = plan.FOLDS
    rows: int = MOST
    tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Understood:
    """What a file asks for.

    Attributes:
        rows: that are learnt from, those of an earlier run among them.
        read: rows of the file.
        spec: the task as the earlier run has it, if there is one.
        base: the base model.
        name: of the task.
        tokens: longest text.
        said: what was understood, line by line.
    """

    rows: Rows
    read: int
    spec: TaskSpec | None
    base: BaseConfig
    name: str
    tokens: int
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learned:
    """What was made.

    Attributes:
        spec: the task, as its file has it.
        run: what answers.
        scores: label -> run of its score, all on the same rows; its own first.
    """

    spec: TaskSpec
    run: Run
    scores: dict[str, Run]


def look(file: Path, wish: Wish, root: Path) -> Understood:
    """Read a file, and say what it asks for.

    Args:
        file: of rows.
        wish: of the user.
        root: the folder of runs, for the earlier one.

    Raises:
        WeftError: if the file, or what is wished, makes no task.
    """
    read = read_rows(file)
    earlier = _earlier(wish, root)
    spec = earlier.tasks[0] if earlier else None
    texts = wish.texts or (tuple(template.names(spec.source)) if spec else ())
    answer = wish.answer or (template.names(spec.target)[0] if spec else None)
    columns = find_columns(read, texts, answer)
    old = _old_rows(spec, columns) if spec else []
    whole = understand(read, columns, whole=wish.whole or spec is not None, earlier=old)
    rows = few(whole, wish.rows, wish.seed)
    base = (
        BaseConfig(model=wish.base) if wish.base else earlier.base if earlier else BaseConfig(model="smollm2")
    )
    name = wish.name or (spec.name if spec else task_file.name_of(file.name))
    said = (*_said(file, whole, len(read)), *_drawn(whole, rows))
    usual = earlier.source_tokens[0] if earlier else plan.TOKENS
    tokens = plan.tokens_of(usual if wish.tokens is None else wish.tokens)
    return Understood(rows, len(read), spec, base, name, tokens, said)


def _said(file: Path, rows: Rows, read: int) -> list[str]:
    """What was understood of a file."""
    sign, (first, *rest) = separated(file), described(rows, read)
    return [first, *([f"columns are separated by {sign}"] if sign else []), *rest]


def _drawn(whole: Rows, rows: Rows) -> list[str]:
    """That not all rows of the file are learnt from, where it is so."""
    new, all_new = (len(one.rows) - one.before for one in (rows, whole))
    beside = ", beside those of the earlier run" if rows.before else ""
    said = f"learning from {new:,} of {all_new:,} rows{beside}; --rows N for more"
    return [said] if new < all_new else []


def learn(found: Understood, wish: Wish, folder: Path, workspace: Workspace) -> tuple[Plan, Checked]:
    """Leave the task in a folder, plan its runs, and check them before any weights load.

    Raises:
        WeftError: if a model that reads is not there, or the task cannot be written or planned.
    """
    trains = found.rows.kind == "open" or wish.peft
    workspace.folder(found.base)  # before anything is left
    for encoder in () if trains else plan.ENCODERS:
        workspace.encoders.folder(encoder)
    order = tuple(found.spec.labels or ()) if found.spec else ()
    held = _held(found.rows, wish.seed) if trains else ()
    spec = task_file.write(folder, found.name, found.rows, order, held)
    if trains:
        planned = plan.trained(spec, found.base, seed=wish.seed, peft=wish.peft, tokens=found.tokens)
    else:
        folds = _folds(found.rows, wish.folds)
        run = plan.weft(spec, found.base, seed=wish.seed, quick=wish.quick, tokens=found.tokens)
        planned = plan.closed(run, workspace.base(run).reader, folds=folds)
    return planned, validation.check_runs([planned.run], workspace)


def perform(planned: Plan, workspace: Workspace) -> Learned:
    """Run what is not run yet: the scores on held-out rows, and what answers."""
    workspace.progress.total = 1.0 + len(planned.scored) + (planned.run.optim is not None)
    workspace.progress.begin(f"{planned.label}: reading and learning", 1.0)
    run = stages.perform(planned.run, workspace)
    workspace.progress.end(planned.label, 1.0, "learnt")
    scored = planned.scored if planned.run.optim is None else plan.of_run(planned, run.id)
    scores = {}
    for label, config in scored.items():
        workspace.progress.begin(f"{label}: scored on rows that it did not learn from", 1.0)
        scores[label] = stages.perform(config, workspace)
        workspace.progress.end(label, 1.0, "scored")
    return Learned(planned.run.tasks[0], run, scores)


def _earlier(wish: Wish, root: Path) -> AdaptRun | None:
    """The run that is gone on from.

    Raises:
        ArtifactError: if it is no run of one task whose columns can be read.
    """
    if wish.earlier is None:
        return None
    config = runs.find(root, wish.earlier).config()
    if not isinstance(config, AdaptRun) or len(config.tasks) != 1 or config.tasks[0].format != "plain":
        raise ArtifactError(
            "only a run of one task that `weft learn` made can be gone on from",
            where=wish.earlier,
            fix="learn the file without --from",
            code="C12",
        )
    return config


def _old_rows(spec: TaskSpec, columns: Columns) -> list[dict[str, str]]:
    """Rows that an earlier run learnt from, held-out ones among them.

    Raises:
        DataError: if they are gone, or did not come with the run.
    """
    rows: list[Row] = []
    if not spec.files:
        raise DataError(
            "the rows of the earlier run did not come with it",
            where=f"--from, task {spec.name}",
            fix="learn from a file with all rows, without --from",
            code="D23",
        )
    for name in spec.files.values():
        path = Path(spec.folder) / name
        if not path.is_file():
            raise DataError(
                "the rows of the earlier run are gone",
                where=str(path),
                fix="put the file back, or learn from a file with all rows, without --from",
                code="D23",
            )
        rows += read_rows(path)
    names = (*columns.texts, columns.answer)
    return [{name: template.written(name, row) for name in names} for row in rows]


def _folds(rows: Rows, wanted: int) -> int:
    """As many folds as are wanted, or as leave two rows for each; two at least."""
    return max(2, min(wanted, len(rows.rows) // 2))


def _held(rows: Rows, seed: int) -> tuple[int, ...]:
    """Places of the rows that a trained prompt does not see."""
    count = min(MOST_HELD, round(HELD * len(rows.rows)))
    if not count:
        raise DataError(
            f"{len(rows.rows)} rows are too few to train a prompt and to hold some out",
            where="the file",
            fix="give ten rows or more",
            code="D13",
        )
    return tuple(sorted(random.Random(seed).sample(range(len(rows.rows)), count)))
