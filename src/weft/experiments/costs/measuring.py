"""What this machine does with a base model, measured with weft's own steps, passes and runs."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from accelerate import PartialState

from weft import stages, storage
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.config.training import DistillConfig, OptimConfig, PromptConfig
from weft.data.batch import Batch, Encoded, Tokens, collate
from weft.errors import ArtifactError
from weft.experiments.costs.learners import own_model
from weft.experiments.costs.machine import (
    Curve,
    Machine,
    Measured,
    Own,
    Point,
    Times,
    key_of,
    place,
    points,
    processor,
    read,
    write,
)
from weft.experiments.costs.sizes import Row, Sizes, sizes_of
from weft.losses.distillation import distillation_loss
from weft.losses.objective import Loss, lm_loss
from weft.losses.targets import TeacherTargets
from weft.losses.terms import lm_loss_sum
from weft.methods import Method, TrainedMethod
from weft.methods.prompt_tuning import PromptTuning
from weft.models import Backbone
from weft.models.memory import saved_bytes
from weft.models.parts import part_tokens
from weft.models.text_cache import READ_TOKENS, READ_TOKENS_ELSEWHERE
from weft.models.tuned import TunedModel, with_prompts
from weft.runs import Run, parents
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, touches_weights
from weft.runs.workspace import Workspace
from weft.storage.page_store import PageStore
from weft.training.course import Hooks
from weft.training.loop import fit

PROMPT, TEXT, ANSWER = 8, 32, 2  # tokens of a row
TOKENS = (16, 64, 256, 640)  # of a pass
AGAIN = 4  # times that each pass is made; the first one does not count
WAIT = 600.0  # seconds for another process that measures
WORDS = ("yes", "no")
Clock = Callable[[], float]


def known(
    configs: Sequence[AnyRun], workspace: Workspace, given: Path | None = None, *, again: bool = False
) -> tuple[Machine, Measured, Path]:
    """A machine and what it does with the base model of some runs, and the file that says so.

    Args:
        configs: the runs.
        workspace: with the choices of this machine.
        given: a file of another machine; none: this one, which is measured where it was not.
        again: measure anew.

    Raises:
        ArtifactError: if the given file is none, or knows nothing of the base model.
    """
    frozen, own = representative(configs)
    folder = workspace.base(frozen)
    key = key_of(folder.hash, workspace.position(frozen))
    if given is not None:
        found = read(given)
        return found, found.base(key, folder.name, given), given
    path = place(PartialState().device.type, torch.get_num_threads())
    with storage.locked(path.with_suffix(".lock"), wait=WAIT):
        found = _noted(path) if path.exists() and not again else machine()
        old = found.bases.get(key)
        if old is None or not own.keys() <= old.own.keys():
            kinds = f", with {len(own)} kinds of weights of its own" if own else ""
            workspace.progress.say(f"measuring {folder.name} on this machine{kinds}: a minute or a few")
            before = {} if old is None else old.own
            old = base(frozen, workspace, own)
            old = old.model_copy(update={"own": {**before, **old.own}})
            found = found.model_copy(update={"bases": {**found.bases, key: old}})
            write(found, path)
    return found, old, path


def _noted(path: Path) -> Machine:
    """What was noted of this machine; a note of another version, or a damaged one, is made anew."""
    try:
        return read(path)
    except ArtifactError:
        return machine()


def representative(configs: Sequence[AnyRun]) -> tuple[AnyRun, dict[Own, AdaptRun]]:
    """A run on the frozen model, and the first one of every kind of models that runs have for themselves."""
    frozen = next((one for one in configs if not touches_weights(one)), configs[0])
    own: dict[Own, AdaptRun] = {}
    for config in configs:
        if isinstance(config, AdaptRun) and (kind := own_model(config.method)) is not None:
            own.setdefault(kind, config)
    return frozen, own


def machine() -> Machine:
    """This machine, of which no base model was measured yet."""
    device = PartialState().device
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import weft.stages"], check=True)
    return Machine(
        host=socket.gethostname(),
        processor=processor(),
        device=device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        threads=torch.get_num_threads(),
        start=time.perf_counter() - began,
        part_tokens=part_tokens(device),
        read_tokens=READ_TOKENS.get(device.type, READ_TOKENS_ELSEWHERE),
    )


def base(
    config: AnyRun,
    workspace: Workspace,
    own: Mapping[Own, AdaptRun] | None = None,
    *,
    clock: Clock = time.perf_counter,
) -> Measured:
    """A base model on this machine.

    Args:
        config: of a run that trains a prompt, or scores one.
        workspace: with the choices of this machine.
        own: a run of each kind of models that runs have for themselves.
        clock: seconds.
    """
    folder, choices = workspace.base(config), workspace.choices(config)
    settled = config.base if config.base.deterministic else config.base.model_copy(update=choices)
    workspace.root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=workspace.root, prefix=".measure-") as name:
        place = Workspace(Path(name))
        began = clock()
        backbone = place.backbone(config.model_copy(update={"base": settled}))
        load = clock() - began
        task = _task(place.root)
        beside = _beside(_short(settled, config.prompt, task, PromptTuning()), place, clock)
        passes = _Passes(_prompted(backbone), sizes_of(backbone.lm), clock)
        frozen = passes.times("prompt", beside).model_copy(update={"taught": passes.taught()})
        others = {
            kind: _of_its_own(_short(one.base, config.prompt, task, one.method), place, passes.sizes, clock)
            for kind, one in (own or {}).items()
        }
        return Measured(
            model=folder.name,
            choices={**choices, "position": workspace.position(config)},
            load=load,
            frozen=frozen,
            own=others,
            kept=passes.kept(),
            files=beside.files,
            line=beside.line,
        )


def _of_its_own(short: AdaptRun, workspace: Workspace, sizes: Sizes, clock: Clock) -> Times:
    """Of a model that a run has for itself: whole short runs, and then passes."""
    method = short.method
    assert isinstance(method, TrainedMethod)
    beside = _beside(short, workspace, clock)
    model, _ = method.build(parents.setup_of(short, workspace))
    return _Passes(model, sizes, clock).times(next(iter(method.groups)), beside)


def _prompted(backbone: Backbone) -> TunedModel:
    """A model that trains one prompt."""
    prompt = backbone.embeddings[:PROMPT].detach().float().clone()[None]
    return with_prompts(backbone, prompt, ("task",))


@dataclass(frozen=True)
class _Passes:
    """Passes of one model, by the number of their tokens."""

    model: TunedModel
    sizes: Sizes
    clock: Clock

    def times(self, group: str, beside: "_Beside") -> Times:
        """All of them, given what whole runs took."""
        steps, reads = self.steps(group), self.reads()
        return Times(
            step=steps,
            read=reads,
            write=self.writes(),
            train=max(0.0, beside.train - steps.points[0][1]),
            evaluate=max(0.0, beside.evaluate - reads.points[0][1]),
        )

    def taught(self) -> Curve:
        """Whole steps beside what a teacher says, which is kept in memory."""
        distill = DistillConfig()
        targets = TeacherTargets(self.model, distill, PageStore(None, 0, lambda text: None))
        return self.steps("prompt", distillation_loss(self.model, distill, targets), targets)

    def steps(self, group: str, loss: Loss = lm_loss, targets: TeacherTargets | None = None) -> Curve:
        """Whole steps, with their optimiser; rates are so small that nothing moves far."""
        found: list[Point] = []
        row = self._row()
        for rows in self._counts(row):
            batch, stamps = self._batch(rows), list[float]()
            self.model.prepare(batch.sources)
            if targets is not None:
                targets.prepare([batch])
            optim = OptimConfig(lr={group: 1e-9}, steps=AGAIN, batch_size=rows)

            def note(line: object, stamps: list[float] = stamps) -> None:
                stamps.append(self.clock())

            def same(step: int, batch: Batch = batch) -> Batch:
                return batch

            fit(self.model, same, loss, optim, hooks=Hooks(log=note))
            operations = row.operations(self.sizes)
            each = operations.full_step if "model" in self.model.trained else operations.step
            took = [two - one for one, two in pairwise(stamps)]
            found.append((each * rows, median(took)))
        return points(found)

    def reads(self) -> Curve:
        """Passes without gradients, from which answers begin."""
        found, row = list[Point](), self._row(answer=1)
        for rows in self._counts(row):
            sources = self._batch(rows).sources
            self.model.prepare(sources)
            took = self._seconds(partial(self.model.begin, sources, [0] * rows))
            found.append((rows * row.operations(self.sizes).forward, took))
        return points(found)

    def writes(self) -> Curve:
        """One more token of some rows."""
        found, behind = list[Point](), self._row(answer=2).next_token(self.sizes).forward
        for rows in (1, 8, 64):
            context = self.model.begin(self._batch(rows).sources, [0] * rows)
            stamps = []
            with self.model.backbone.mode(dropout=False):
                for _ in range(AGAIN + 1):
                    context = self.model.backbone.step(context, [self._ids[0]] * rows)
                    stamps.append(self.clock())
            found.append((rows * behind, median(two - one for one, two in pairwise(stamps))))
        return points(found)

    def kept(self) -> float:
        """Bytes that a step keeps of a token, by those of two rows and of one."""

        def loss(rows: int) -> torch.Tensor:
            batch = self._batch(rows).to(self.model.backbone.device)
            return lm_loss_sum(self.model(batch).logits, batch.labels)

        one, two = saved_bytes(lambda: loss(1)), saved_bytes(lambda: loss(2))
        return (two - one) / self._row().tokens(self.sizes)

    def _seconds(self, work: Callable[[], object]) -> float:
        took = []
        for _ in range(AGAIN):
            began = self.clock()
            work()
            took.append(self.clock() - began)
        return median(took[1:])

    def _row(self, answer: int = ANSWER) -> Row:
        prompt = 0 if self.model.prompts is None else self.model.prompts.length
        return Row(float(prompt), float(TEXT), float(answer), self.model.keeps_texts)

    def _counts(self, row: Row) -> list[int]:
        """Rows of passes."""
        each = row.tokens(self.sizes)
        return sorted({max(1, round(tokens / each)) for tokens in TOKENS} | {1, 2})

    def _batch(self, rows: int) -> Batch:
        """Rows of different texts."""
        ids = self._ids
        texts = [Encoded(self._text(ids, number), (ids[1],) * ANSWER) for number in range(rows)]
        return collate(texts, [0] * rows)

    @staticmethod
    def _text(ids: Sequence[int], number: int) -> Tokens:
        return tuple(ids[(number * TEXT + place) % len(ids)] for place in range(TEXT))

    @property
    def _ids(self) -> list[int]:
        special = self.model.backbone.special_ids
        words = range(min(len(self.model.backbone.embeddings), 4096))
        return [token for token in words if token not in special]


class _Beside(NamedTuple):
    """See `Times` and `Measured`; with the one step, and the one pass."""

    train: float
    evaluate: float
    files: float
    line: float


def _beside(short: AdaptRun, workspace: Workspace, clock: Clock) -> _Beside:
    """Seconds and bytes of runs beside their steps and passes, by runs of one step and few rows."""
    seconds: dict[str, list[float]] = {"train": [], "evaluate": []}
    for seed in range(3):
        began = clock()
        trained = stages.perform(short.model_copy(update={"seed": seed}), workspace)
        seconds["train"].append(clock() - began)
        same = {"base": short.base, "prompt": short.prompt, "tasks": short.tasks, "seed": seed}
        score = EvaluateRun(**same, run=trained.id, generate=False)
        began = clock()
        scored = stages.perform(score, workspace)
        seconds["evaluate"].append(clock() - began)
    rows = scored.lines("predictions.jsonl")
    written = (scored.path / "predictions.jsonl").stat().st_size - sum(len(row["text"]) for row in rows)
    beside = {name: median(some[1:]) for name, some in seconds.items()}
    return _Beside(beside["train"], beside["evaluate"], float(_bytes(trained)), written / len(rows))


def _short(base: BaseConfig, prompt: PromptConfig, spec: TaskSpec, method: Method) -> AdaptRun:
    """A training of one step."""
    short = PromptConfig(length=min(PROMPT, prompt.length), position=prompt.position)
    optim = OptimConfig(lr=dict.fromkeys(method.groups, 1e-6), steps=1, batch_size=2)
    return AdaptRun(base=base, prompt=short, tasks=(spec,), method=method, optim=optim)


def _bytes(run: Run) -> int:
    """Of a run's folder, without tensors."""
    return sum(path.stat().st_size for path in run.path.iterdir() if path.suffix != ".safetensors")


def _task(folder: Path) -> TaskSpec:
    """A task of a few rows."""
    for split, count in (("train", 4), ("test", 2)):
        rows = [{"text": f"{WORDS[i % 2]} {i}", "label": WORDS[i % 2]} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    files = {split: f"{split}.jsonl" for split in ("train", "test")}
    labels = {word: word for word in WORDS}
    return TaskSpec(
        name="measure", files=files, source="{text}", target="{label}", labels=labels, folder=str(folder)
    )
