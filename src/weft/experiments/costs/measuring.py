"""What this machine does with a base model, measured with weft's own steps, passes and runs."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
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
from weft.experiments.costs.sizes import Operations, Row, Sizes, sizes_of
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
READ = 2048  # of one more without gradients, such as evaluations make
AGAIN = 4  # tokens that are written
SHAPES = 5  # lengths of texts that a point is measured with
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
        (steps, fresh_step), (reads, fresh_read) = self.steps(group), self.reads()
        return Times(
            step=steps,
            read=reads,
            write=self.writes(),
            fresh_step=fresh_step,
            fresh_read=fresh_read,
            train=max(0.0, beside.train - steps.points[0][1]),
            evaluate=max(0.0, beside.evaluate - reads.points[0][1]),
        )

    def taught(self) -> Curve:
        """Whole steps beside what a teacher says, which is kept in memory."""
        distill = DistillConfig()
        targets = TeacherTargets(self.model, distill, PageStore(None, 0, lambda text: None))
        return self.steps("prompt", distillation_loss(self.model, distill, targets), targets)[0]

    def steps(
        self, group: str, loss: Loss = lm_loss, targets: TeacherTargets | None = None
    ) -> tuple[Curve, float]:
        """Whole steps with their optimiser, and what the first one of a shape takes beyond that.

        Rates are so small that nothing moves far.
        """

        def trained(batches: list[Batch]) -> list[float]:
            if targets is not None:
                targets.prepare(batches)
            return self._steps(group, batches * 2, loss)

        full = "model" in self.model.trained
        return self._curve(TOKENS, trained, lambda one: one.full_step if full else one.step)

    def reads(self) -> tuple[Curve, float]:
        """Passes without gradients, from which answers begin; likewise."""

        def read(batches: list[Batch]) -> list[float]:
            stamps = [self.clock()]
            for batch in batches * 2:
                self.model.begin(batch.sources, batch.task_ids.tolist())
                stamps.append(self.clock())
            return [two - one for one, two in pairwise(stamps)][1:]

        return self._curve((*TOKENS, READ), read, lambda one: one.forward, answer=1)

    def _curve(
        self,
        tokens: Sequence[int],
        work: Callable[[list[Batch]], list[float]],
        counted: Callable[[Operations], float],
        answer: int = ANSWER,
    ) -> tuple[Curve, float]:
        """Passes of so many tokens each, over texts of some lengths, in turn and once again.

        Lengths differ a little, as those of batches do: products are faster over some numbers of rows.

        Args:
            tokens: of the passes of each point.
            work: does batches twice, and gives the seconds of each but the first.
            counted: the operations that count.
            answer: tokens of an answer.
        """
        found, first = list[Point](), list[float]()
        for rows in self._counts(self._row(answer), tokens):
            batches = [self._batch(rows, TEXT + more) for more in range(SHAPES)]
            for batch in batches:
                self.model.prepare(batch.sources)
            took = work(batches)
            first += [one - two for one, two in zip(took[: SHAPES - 1], took[SHAPES:], strict=True)]
            each = [counted(self._row(answer, TEXT + more).operations(self.sizes)) for more in range(SHAPES)]
            found.append((rows * fmean(each), median(took[SHAPES - 1 :])))
        return points(found), max(0.0, median(first))

    def _steps(self, group: str, batches: Sequence[Batch], loss: Loss) -> list[float]:
        """Seconds of each step but the first."""
        stamps: list[float] = []
        optim = OptimConfig(lr={group: 1e-9}, steps=len(batches), batch_size=len(batches[0].sources))
        hooks = Hooks(log=lambda line: stamps.append(self.clock()))
        fit(self.model, lambda step: batches[step], loss, optim, hooks=hooks)
        return [two - one for one, two in pairwise(stamps)]

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

    def _row(self, answer: int = ANSWER, length: int = TEXT) -> Row:
        prompt = 0 if self.model.prompts is None else self.model.prompts.length
        return Row(float(prompt), float(length), float(answer), self.model.keeps_texts)

    def _counts(self, row: Row, tokens: Sequence[int]) -> list[int]:
        """Rows of passes of so many tokens."""
        each = row.tokens(self.sizes)
        return sorted({max(1, round(some / each)) for some in tokens} | {1, 2})

    def _batch(self, rows: int, length: int = TEXT) -> Batch:
        """Rows of different texts, every other one a token shorter: padding that is masked takes its time."""
        ids = self._ids
        lengths = [length - number % 2 for number in range(rows)]
        texts = [Encoded(self._text(ids, *one), (ids[1],) * ANSWER) for one in enumerate(lengths)]
        return collate(texts, [0] * rows)

    @staticmethod
    def _text(ids: Sequence[int], number: int, length: int) -> Tokens:
        return tuple(ids[(number * length + place) % len(ids)] for place in range(length))

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
