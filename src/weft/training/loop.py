"""One training loop for every method and stage: what differs comes in as a loss and as batches.

Several courses may share a frozen model: the rows of all of them go through it in one batch, and each has
its own parameters, optimiser, clipping, rates, scores and end.

Several processes may share the rows of every batch: each does all that is here with its own share of them,
and before a step ends, the gradients are added up. So each has the same parameters at every step.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from weft.config.training import OptimConfig
from weft.data.batch import Batch, join
from weft.data.sampling import Batches
from weft.losses.objective import Loss, Totals
from weft.losses.terms import lm_loss_rows
from weft.models.parts import part_tokens
from weft.models.tuned import TunedModel
from weft.parallel.group import ALONE, Group
from weft.training.course import Checkpoint, Course, Hooks, Progress


class Pace(Protocol):
    """Told after every step: it saves all courses now, or not; it must where `must` is set."""

    def __call__(self, save: Callable[[], None], *, must: bool = False) -> None: ...


def never(save: Callable[[], None], *, must: bool = False) -> None:
    """The pace that saves nothing."""


def fit(
    model: TunedModel,
    batches: Batches,
    loss: Loss,
    optim: OptimConfig,
    *,
    validate: Callable[[], float] | None = None,
    hooks: Hooks | None = None,
    resume: Checkpoint | None = None,
    seed: int = 0,
    pace: Pace = never,
    group: Group = ALONE,
) -> Progress:
    """Train one course in place, and leave the model in the state to keep. `Course` says what is what.

    Raises:
        NumericError: at the step where the loss or a gradient is no number, or a prompt has exploded.
    """
    course = Course(model, batches, loss, optim, validate, hooks or Hooks(), seed)
    if resume is not None:
        course.resume(resume)
    for _ in fit_together([course], pace, group):
        pass
    return course.finish()


def fit_together(courses: Sequence[Course], pace: Pace = never, group: Group = ALONE) -> Iterator[Course]:
    """Train courses on one frozen model, a step of all in one batch; each is given back when it is over.

    The gradients are those of each course alone, but for rounding: no row sees another. So that a course
    which goes on in another process meets the same company, all are saved whenever one leaves.

    Args:
        courses: one; or several on one frozen backbone without dropout, with prompts and `lm_loss`.
        pace: when to save.
        group: the processes that share the rows of every step.
    """
    live = list(courses)
    while live:
        over = [course for course in live if course.over]
        live = [course for course in live if not course.over]
        yield from over
        if not live:
            return
        start = time.monotonic()
        _step(live[0], group) if len(live) == 1 else _joint_step(live, group)
        spent = (time.monotonic() - start) / len(live)
        for course in live:
            course.progress.seconds += spent
        pace(_saver(live), must=0 < sum(course.over for course in live) < len(live))


def _saver(courses: list[Course]) -> Callable[[], None]:
    def save() -> None:
        for course in courses:
            if course.error is None:
                course.save()

    return save


@contextmanager
def _seeded(model: TunedModel, *seeds: int) -> Iterator[None]:
    """Dropout, where it is on, is a function of seed and step, so that a resumed run draws the same."""
    if not model.dropout:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        yield


def _step(course: Course, group: Group) -> None:
    """One step of one course, its rows in micro-batches whose losses add up to the whole.

    Dropout stays as it is through the backward pass, in which checkpointed layers are computed again.
    """
    batch, model = course.begin(), course.model
    totals = Totals(len(batch.sources), batch.target_tokens)
    terms: dict[str, float] = {}
    mode, rank = model.backbone.mode(dropout=model.dropout), [group.rank] if group.rank else []
    with mode, _seeded(model, course.seed, course.progress.step, *rank):
        limit = course.optim.micro_batch or course.optim.batch_size
        for part in batch.share(group.rank, group.size).split(limit):
            value, logged = course.loss(model, part.to(model.backbone.device), totals)
            torch.autograd.backward(value)
            logged = {"loss": float(value.detach()), **logged}
            terms = {name: terms.get(name, 0.0) + number for name, number in logged.items()}
        if model.backbone.sharded:
            _keep_up(course, batch, totals, limit, group)
    course.end(_whole(course, terms, group), batch.padding)


def _keep_up(course: Course, batch: Batch, totals: Totals, limit: int, group: Group) -> None:
    """Run the model as often as the process with most rows, which needs this one's part of the layers."""
    most, own = (len(batch.share(rank, group.size).split(limit)) for rank in (0, group.rank))
    for _ in range(most - own):
        row = batch.pick([0]).to(course.model.backbone.device)
        value, _ = course.loss(course.model, row, totals)
        torch.autograd.backward(0.0 * value)


def _whole(course: Course, terms: dict[str, float], group: Group) -> dict[str, float]:
    """The terms of a step's whole batch, and its gradients, from those of each process's share."""
    if group.size == 1:
        return terms
    course.terms = course.terms or group.agree(tuple(terms))  # rank 0 has a row of every batch
    numbers = torch.tensor([terms.get(name, 0.0) for name in course.terms])
    _add_up([course], numbers, group)
    return dict(zip(course.terms, numbers.tolist(), strict=True))


def _add_up(courses: Sequence[Course], numbers: Tensor, group: Group) -> None:
    """Sum numbers, and the gradients of courses, over all processes, in place.

    What has no gradient in any of them is left without one: an optimiser passes it over.
    """
    if group.size == 1:
        return
    parameters = [parameter for course in courses for parameter in course.parameters]
    there = torch.tensor([float(one.grad is not None) for one in parameters])
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    group.sum_([*gradients, there, numbers])
    for parameter, gradient, count in zip(parameters, gradients, there.tolist(), strict=True):
        parameter.grad = gradient if count else None


def _joint_step(courses: list[Course], group: Group) -> None:
    """One step of several courses. Their prompts are made once, and the model's gradient goes back into them.

    Rows of like length share a part, which saves padding.
    """
    batches = [course.begin() for course in courses]
    device = courses[0].model.backbone.device
    made = [course.model.prompts_of(batch.task_ids) for course, batch in zip(courses, batches, strict=True)]
    prompts = torch.cat([one for one in made if one is not None])
    weights = torch.cat([prompts.new_full((len(one.sources),), 1 / one.target_tokens) for one in batches])
    leaf, losses = prompts.detach().requires_grad_(), torch.zeros(len(weights))
    rows, own_rows = join(batches), _own(batches, group)
    with courses[0].model.backbone.mode(dropout=False):
        for places in _parts(courses, rows, own_rows):
            part = rows.pick(places).to(device)
            own = leaf.index_select(0, torch.tensor(places, device=device))
            value = _row_losses(courses[0].model, part, own) * weights[places]
            torch.autograd.backward(value.sum())
            losses[places] = value.detach().cpu().float()
    if leaf.grad is not None:
        torch.autograd.backward(prompts, leaf.grad)
    _add_up(courses, losses, group)
    sizes = [len(batch.sources) for batch in batches]
    for course, batch, own in zip(courses, batches, torch.split(losses, sizes), strict=True):
        course.end({"loss": float(own.sum()), "lm": float(own.sum())}, batch.padding)


def _own(batches: Sequence[Batch], group: Group) -> list[int]:
    """Places of the rows, among those of all batches, that this process works on: its share of each batch."""
    starts = [0, *accumulate(len(batch.sources) for batch in batches)]
    return [place for a, b in pairwise(starts) for place in range(a + group.rank, b, group.size)]


def _row_losses(model: TunedModel, part: Batch, prompts: Tensor) -> Tensor:
    """The loss of every row `[B]` under its own prompt (nats)."""
    logits = model.backbone.forward(model.backbone.read(part.sources), prompts, part.labels).logits
    return lm_loss_rows(logits, part.labels)


def _parts(courses: list[Course], rows: Batch, own: list[int]) -> Iterator[list[int]]:
    """Places, among `own`, of the rows of each pass: shorter texts first, as many as fill the device."""
    backbone = courses[0].model.backbone
    tokens = part_tokens(backbone.device)
    optims = [course.optim for course in courses]
    limits = [one.micro_batch for one in optims if one.micro_batch and one.micro_batch < one.batch_size]
    most = max(1, min([tokens // tokens_of_row(courses[0].model, rows), *limits]))
    order = sorted(own, key=lambda i: len(rows.sources[i]))
    parts = -(-len(order) // most)
    for part in range(parts):
        yield order[part * len(order) // parts : (part + 1) * len(order) // parts]


def tokens_of_row(model: TunedModel, rows: Batch) -> int:
    """How many tokens of a row the model computes in a step, at most."""
    texts = 0 if model.keeps_texts else max(map(len, rows.sources))
    length = 0 if model.prompts is None else model.prompts.length
    return int(length + rows.labels.shape[1] + texts)
