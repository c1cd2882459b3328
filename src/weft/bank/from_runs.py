"""Tasks of finished runs as rows of a bank. No model is loaded; the tensors are."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft import runs, storage
from weft.bank.draft import Row, Shared
from weft.bank.entry import Definition, without_places
from weft.bank.forms import Dtype, Form, Kind, Numbers, encoded
from weft.bank.manifest import BaseFacts, Group, check_same
from weft.bank.records import record
from weft.errors import ArtifactError, UnsupportedError
from weft.methods.kept_views import GAIN, PROMPT, uses
from weft.methods.method import Method
from weft.runs import Run
from weft.runs.config import AnyRun, EvaluateRun
from weft.runs.tensor_file import BASE_KEYS

if TYPE_CHECKING:
    from torch import Tensor

CHOICES = ("dtype", "attention", "products", "weights")  # in env.json


@dataclass
class Addition:
    """What runs bring to a bank.

    Attributes:
        base: the base model of all of them.
        rows: their tasks, under the names that they have there.
        arrays: what several tasks share, by SHA-256.
        groups: of tasks that share arrays.
    """

    base: BaseFacts
    rows: list[Row] = field(default_factory=list)
    arrays: dict[str, Numbers] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)

    @property
    def shared(self) -> Shared:
        """Arrays and groups."""
        return Shared(self.arrays, self.groups)

    def group(self, kind: Kind, arrays: Mapping[str, "Tensor"]) -> str:
        """A group of tasks that share these arrays by name; of factors, its name is the hash of P*.

        Raises:
            UnsupportedError: if an array is no float32.
        """
        named: dict[str, str] = {}
        for name, tensor in arrays.items():
            if str(tensor.dtype) != "torch.float32":
                raise UnsupportedError(f"{name!r} is {tensor.dtype}, and a bank shares float32 alone")
            values = tensor.numpy()
            named[name] = storage.sha256_bytes(encoded(values, "float32"))
            self.arrays[named[name]] = values
        found = named["P*"] if kind == "factors" else storage.sha256_json(named)
        self.groups[found] = Group(kind=kind, arrays=named)
        return found


def of_runs(
    names: Sequence[str],
    root: Path,
    dtype: Dtype,
    groups: Collection[str] = (),
    base: BaseFacts | None = None,
) -> Addition:
    """The tasks of finished runs; an evaluation stands for the run that it scored, and gives its metrics.

    Args:
        names: ids or folders of runs.
        root: the folder of runs that ids are looked up in.
        dtype: of the bank's numbers.
        groups: of factors, that the bank has.
        base: of the bank; none: that of the first run.

    Raises:
        ArtifactError: if a run is missing, unfinished or damaged, or of another base model than the others.
        UnsupportedError: if a run keeps what a bank does not.
    """
    found, metrics = _scored([runs.find(root, name) for name in names], root)
    if not found:
        raise ArtifactError("no run is named", fix="name one or more runs", code="C12")
    addition = Addition(base or base_of(found[0]))
    for run in found:
        check_same(base_of(run), addition.base, str(run.path))
        config = run.config()
        method = _kept(run, config)
        made = _composed if method.composes else MADE[method.keeps]
        known = {*groups, *addition.groups}
        for number, (form, data, group) in enumerate(made(run, config, dtype, addition, known)):
            spec = config.tasks[number]
            said = definition_of(run, config, number).text
            scores = storage.canonical_json(metrics.get((run.id, spec.name), {})).decode()
            addition.rows.append(Row(spec.name, form, data, group, said, scores, run.id))
    return addition


def _scored(named: Sequence[Run], root: Path) -> tuple[list[Run], dict[tuple[str, str], Any]]:
    """The runs that answer, each once, and what evaluations found of their tasks."""
    found: dict[str, Run] = {}
    metrics: dict[tuple[str, str], Any] = {}
    for run in named:
        config = run.config()
        if not isinstance(config, EvaluateRun):
            found[run.id] = run
            continue
        if config.run is None:
            raise UnsupportedError(
                "the evaluation scored no run, so nothing of it can be kept",
                where=str(run.path),
                fix="adapt the method, and add that run",
            )
        scored = runs.find(runs.root.home(run, root), config.run)
        found[scored.id] = scored
        scores = run.result()["scores"]
        metrics |= {(scored.id, task.name): scores[task.name]["metrics"] for task in config.tasks}
    return list(found.values()), metrics


def _kept(run: Run, config: AnyRun) -> Method:
    """What made a run that a bank keeps.

    Raises:
        UnsupportedError: for one that it does not.
    """
    made_by = config.made_by
    if made_by is not None and made_by.fits_bank:
        return made_by
    raise UnsupportedError(
        f"a bank does not keep what {made_by.name if made_by else 'this run'!r} leaves",
        where=str(run.path),
        fix="add runs of prompt_tuning, ulpt, mpt or weft, or of the stages teachers and source; "
        "answer with others by weft predict RUN",
        code="C16",
    )


def base_of(run: Run) -> BaseFacts:
    """The base model of a finished run, as it notes it.

    Raises:
        ArtifactError: if it notes none.
    """
    env, base = run.env(), run.config().base
    try:
        return BaseFacts(
            name=str(env["base"]),
            model=base.model,
            revision=base.revision,
            **{key: env[key] for key in BASE_KEYS[1:]},
            position=env["position"],
            chat_hash=env.get("chat_hash"),
        )
    except (KeyError, ValueError):
        cause = "the run does not note its base model's hashes and the place of its prompts"
        raise ArtifactError(
            cause, where=str(run.path / "env.json"), fix=storage.RESTORE, code="A04"
        ) from None


def definition_of(run: Run, config: AnyRun, number: int) -> Definition:
    """What is said of one of a run's tasks beside its numbers."""
    env, made_by, spec = run.env(), config.made_by, config.tasks[number]
    readers = made_by is not None and made_by.keeps == "arrays" and not made_by.composes
    return Definition(
        task=without_places(spec),
        source_tokens=config.limits.tokens(spec.name),
        method=made_by.model_dump(mode="json") if made_by is not None and readers else None,
        encoders=run.encoders() if readers else {},
        choices={key: str(env[key]) for key in CHOICES if key in env},
    )


Made = Iterator[tuple[Form, bytes, str]]


def _prompts(run: Run, config: AnyRun, dtype: Dtype, addition: Addition, known: Collection[str]) -> Made:
    """Plain prompts."""
    yield from map(partial(_prompt, dtype=dtype), run.tensors()["prompts"])


def _composed(run: Run, config: AnyRun, dtype: Dtype, addition: Addition, known: Collection[str]) -> Made:
    """The plain prompts that a method's arrays give."""
    names = tuple(task.name for task in config.tasks)
    yield from map(partial(_prompt, dtype=dtype), _kept(run, config).composed(names, run.saved()))


def _prompt(prompt: "Tensor", dtype: Dtype) -> tuple[Form, bytes, str]:
    return Form("prompt", tuple(prompt.shape), dtype), encoded(prompt.numpy(), dtype), ""


def _factors(run: Run, config: AnyRun, dtype: Dtype, addition: Addition, known: Collection[str]) -> Made:
    """Factors where P* is shared; a composed prompt where one task trained it alone, which is smaller."""
    from weft.prompts.bank import compose

    tensors = run.tensors()
    shared, u, v = (tensors[name] for name in ("shared", "u", "v"))
    group = storage.sha256_bytes(encoded(shared.numpy(), "float32"))
    trained = config.made_by is not None and "shared" in config.made_by.groups
    if len(u) == 1 and trained and group not in known:
        yield _prompt(compose(shared, u[0], v[0]), dtype)
        return
    addition.group("factors", {"P*": shared})
    form = Form("factors", (*u.shape[1:], v.shape[2]), dtype)
    for one, other in zip(u.numpy(), v.numpy(), strict=True):
        yield form, encoded(one, dtype) + encoded(other, dtype), group


def _readers(run: Run, config: AnyRun, dtype: Dtype, addition: Addition, known: Collection[str]) -> Made:
    """Records of readers; prompts and scales of the views that they read are shared."""
    saved = run.saved()
    for number, spec in enumerate(config.tasks):
        notes, own = saved.notes[spec.name], f"{number}."
        tensors = {name.removeprefix(own): one for name, one in saved.tensors.items() if name.startswith(own)}
        named = {name: one for name, one in saved.tensors.items() if name.startswith((PROMPT, GAIN))}
        group = addition.group("readers", {name: one for name, one in named.items() if uses(notes, name)})
        yield Form("readers", (), dtype), record(tensors, notes), group


MADE = {"soft": _prompts, "bank": _factors, "arrays": _readers}
