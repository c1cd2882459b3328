"""What this machine does with a base model, measured with weft's own steps, passes and runs."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from accelerate import PartialState

from weft import stages, storage
from weft.config.model import BaseConfig
from weft.config.task import TaskSpec
from weft.config.training import OptimConfig, PromptConfig
from weft.errors import ArtifactError
from weft.experiments.costs.learners import own_model
from weft.experiments.costs.machine import (
    Machine,
    Measured,
    Own,
    Times,
    key_of,
    place,
    processor,
    read,
    write,
)
from weft.experiments.costs.sizes import Sizes, sizes_of
from weft.experiments.costs.timing import PROMPT, Beside, Clock, Passes, prompted
from weft.methods import Method, TrainedMethod
from weft.methods.prompt_tuning import PromptTuning
from weft.models.parts import part_tokens
from weft.models.text_cache import READ_TOKENS, READ_TOKENS_ELSEWHERE
from weft.runs import Run, parents
from weft.runs.config import AdaptRun, AnyRun, EvaluateRun, touches_weights
from weft.runs.workspace import Workspace

WAIT = 600.0  # seconds for another process that measures
WORDS = ("yes", "no")


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
        passes = Passes(prompted(backbone), sizes_of(backbone.lm), clock)
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
    return Passes(model, sizes, clock).times(next(iter(method.groups)), beside)


def _beside(short: AdaptRun, workspace: Workspace, clock: Clock) -> Beside:
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
    return Beside(beside["train"], beside["evaluate"], float(_bytes(trained)), written / len(rows))


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
