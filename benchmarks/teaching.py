"""Distillation steps over plain ones, teacher live and targets kept; and teachers trained together."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import inputs, measure, ours
from benchmarks.goals import Result, Settings
from weft.config.training import DistillConfig
from weft.data.batch import Encoded
from weft.data.encoding import encode_task
from weft.losses.distillation import distillation_loss
from weft.losses.targets import TeacherTargets
from weft.models import Backbone
from weft.models.tuned import with_bank
from weft.storage.page_store import PageStore
from weft.training.loop import fit_together

KAPPA = 6


def distill(settings: Settings) -> list[Result]:
    """On the encoder-decoder, whose encoder states are kept too, and on smollm2, a decoder alone."""
    shape, length, size, steps = ("tiny", 5, 4, 2) if settings.quick else ("small", 100, 32, 4)
    t5 = inputs.load(str(inputs.t5_folder(shape, settings.folder)), settings, length=length)
    rows = inputs.drawn_rows(size * steps, len(t5.embeddings), seed=0)
    live, kept = _distill(settings, t5, rows, length, size, f"t5-{shape} shape")
    length, size, steps = (4, 2, 1) if settings.quick else (16, 16, 4)
    smollm2 = inputs.load("smollm2", settings, length=length)
    own = (smollm2_rows(settings, smollm2) * steps)[: size * steps]
    live2, kept2 = _distill(settings, smollm2, own, length, size, "smollm2, texts kept")
    return [
        Result("distill-live", *live),
        Result("distill-encoder", *kept),
        Result("distill-decoder", *kept2),
        Result("same, live teacher, smollm2", *live2, unit="times"),
    ]


def smollm2_rows(settings: Settings, backbone: Backbone) -> list[Encoded]:
    """16 rows an answer of the task."""
    task = inputs.task_of(settings)
    return list(encode_task(task.name, inputs.shots(task), backbone, 256).rows)


def _distill(
    settings: Settings, backbone: Backbone, rows: list[Encoded], length: int, size: int, what: str
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """How many plain steps a step costs with a live teacher, and with kept targets: what makes results."""
    student = with_bank(backbone, ours.bank(backbone, length))
    teacher = ours.prompts(backbone, length, 1)
    with TemporaryDirectory(dir=settings.folder) as folder:
        targets = TeacherTargets(teacher, DistillConfig(), PageStore(Path(folder), 4 << 30, print))
        live = distillation_loss(teacher, DistillConfig())
        kept = distillation_loss(teacher, DistillConfig(), targets)
        arms = {
            "plain": lambda i: ours.train(student, rows, size),
            "live": lambda i: ours.train(student, rows, size, loss=live),
            "kept": lambda i: ours.train(student, rows, size, loss=kept, teach=targets.prepare),
        }
        seconds, _ = measure.interleave(arms, settings.rounds)
        checks = {"bytes an example": targets.store.bytes / len(rows)}
    steps = len(rows) // size
    text = f"{what}, batch {size}, prompt {length}, {steps} steps a round, loss of logits and last states"
    return (
        (measure.ratios(seconds, "live", "plain"), text, seconds),
        (measure.ratios(seconds, "kept", "plain"), f"{text}; targets computed before", seconds, checks),
    )


def together(settings: Settings) -> list[Result]:
    """Six teachers of smollm2 in one batch, against one after the other."""
    size, length, count, steps = (2, 4, 2, 1) if settings.quick else (16, 16, KAPPA, 4)
    backbone = inputs.load("smollm2", settings, length=length)
    rows = smollm2_rows(settings, backbone) * steps
    shares = [rows[k : k + size * steps] for k in range(count)]
    models = [ours.prompts(backbone, length, 1) for _ in range(count)]
    arms = {
        "together": lambda i: list(fit_together(ours.courses(models, shares, size))),
        "in turn": lambda i: [list(fit_together([one])) for one in ours.courses(models, shares, size)],
    }
    seconds, _ = measure.interleave(arms, settings.rounds)
    text = f"{count} teachers of smollm2, {steps} steps of {size} each, prompt {length}, texts kept"
    return [Result("together", measure.ratios(seconds, "in turn", "together"), text, seconds)]
