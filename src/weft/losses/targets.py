"""What teachers say of examples: targets of distillation, made ahead in large passes, and kept where it pays.

A teacher is frozen, so its logits and hidden states for an example never change. To the last bit they depend
on the shape of the products that made them, so passes have shapes that follow from a row's own lengths
alone, and numbers are those of the values rounded to 16 bits, always. Whether all tokens are told or the
likeliest follows from the settings and what the teacher says, never from where it is kept. So it changes no
number whether targets are made anew for every use, read from a store, or found there by another process.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from weft import storage
from weft.config.training import DistillConfig
from weft.data.batch import IGNORE, Batch, Tokens
from weft.losses.terms import logit_distillation_sum
from weft.models import HiddenSpec, Outputs, States
from weft.models.tuned import TunedModel
from weft.storage.page_store import Entry, PageStore

VERSION = 2  # raise by hand when the code changes numbers
LENGTHS, TARGETS = 16, 4  # texts, and targets longer than that, are padded to multiples of these
KEPT_LENGTHS = 64  # the same of texts that are read once and kept, whose padding costs attention alone
PASS_ROWS, PASS_TOKENS = 16, 8192  # where the measured rate of a row stops rising
REST = 0.01  # of the probability, the most that may be told of many tokens as one
LEAST = -1e4  # log-probability of what is impossible: finite, so that 0 times it is 0


@dataclass(frozen=True)
class Live:
    """What teachers say of a batch in a pass of its own, with the student's shapes."""

    outputs: Outputs

    def logit_sum(
        self, student: Float[Tensor, "B T V"], labels: Int[Tensor, "B T"], temperature: float = 1.0
    ) -> Float[Tensor, ""]:
        """KL(teacher || student) at target positions, summed over them, times T squared (nats)."""
        return logit_distillation_sum(student, self.outputs.logits, labels, temperature)

    def beside(self, student: Sequence[States]) -> Iterator[tuple[States, Float[Tensor, "B N D"]]]:
        """The student's states of each layer, and the teacher's."""
        for ours, theirs in zip(student, self.outputs.states, strict=True):
            yield ours, theirs.hidden


@dataclass(frozen=True)
class Told:
    """What teachers say of n of a batch's target positions, in one form.

    Attributes:
        places: which of the batch's target positions, counted in row order.
        log_probs: `[n, k+1]`, of the likeliest tokens and, last, of all others together; or `[n, V]`.
        tokens: which tokens these are, `[n, k]`; none: all.
    """

    places: Int[Tensor, " n"]
    log_probs: Float[Tensor, "n C"]
    tokens: Int[Tensor, "n k"] | None = None

    def kl_sum(self, log_student: Float[Tensor, "m V"]) -> Float[Tensor, ""]:
        """KL(teacher || student), given the student's log-probabilities at all m target positions (nats)."""
        log_student = log_student[self.places]
        if self.tokens is not None:
            log_student = _masses(log_student, self.tokens.long())
        log_teacher = F.log_softmax(self.log_probs.float(), -1)  # rounded, they do not sum to one
        return F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)


@dataclass(frozen=True)
class Taught:
    """Teachers' targets of a batch.

    Attributes:
        told: every target position, in one part or the other; nothing where L_Logits is not used.
        states: each layer's hidden states `[positions that count, D]`, in row order.
    """

    told: tuple[Told, ...]
    states: tuple[Tensor, ...] = ()

    def logit_sum(
        self, student: Float[Tensor, "B T V"], labels: Int[Tensor, "B T"], temperature: float = 1.0
    ) -> Float[Tensor, ""]:
        """KL(teacher || student) at target positions, summed over them, times T squared (nats).

        Where k tokens are kept, and mass r on the others, it is that of the k + 1 masses: never above the KL
        of all tokens, and below it by at most r times the spread, over the other tokens, of log p(teacher) -
        log p(student), times T squared; its gradient in the student's logits is off by at most 2 r T in sum
        of absolute values. r is at most `REST`.
        """
        log_student = F.log_softmax(student[labels != IGNORE].float() / temperature, -1)
        return torch.stack([part.kl_sum(log_student) for part in self.told]).sum() * temperature**2

    def beside(self, student: Sequence[States]) -> Iterator[tuple[States, Float[Tensor, "B N D"]]]:
        """The student's states of each layer, and the teacher's at their places; 0 where nothing counts."""
        for ours, rows in zip(student, self.states, strict=True):
            theirs = torch.zeros(ours.hidden.shape, device=ours.hidden.device)
            theirs[ours.mask] = rows.float()
            yield ours, theirs


def _masses(log_probs: Float[Tensor, "n V"], tokens: Int[Tensor, "n k"]) -> Float[Tensor, "n C"]:
    """Log-probabilities of some tokens, and of all others together."""
    rest = log_probs.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([log_probs.gather(-1, tokens), rest], -1)


class _Row(NamedTuple):
    """An example under its task's teacher."""

    task: int
    source: Tokens
    target: Tokens


class TeacherTargets:
    """Targets of distillation: read where they are kept, else computed and kept.

    Args:
        teacher: prompts for all tasks of the student, in its order.
        distill: temperature, layers, how many tokens.
        store: where targets are kept; what it does not hold is computed anew.
        half: keep 16 bits; else 32.
    """

    def __init__(
        self, teacher: TunedModel, distill: DistillConfig, store: PageStore, *, half: bool = True
    ) -> None:
        self.teacher, self.distill, self.store, self.half = teacher, distill, store, half
        self.hidden = HiddenSpec(distill.layers, distill.prompt_positions) if distill.hidden else None
        form = [repr(self.hidden), distill.logits, distill.temperature, distill.top, REST, half]
        self._names = _names(teacher, form)
        self._coming: dict[str, Entry] = {}

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Compute together what the coming batches need and is not kept."""
        rows = {self._key(row): row for batch in batches for row in examples_of(batch)}
        known = {key: self._coming.get(key) for key in rows}
        missing = {key: row for key, row in rows.items() if known[key] is None and key not in self.store}
        computed = dict(self._compute(missing))
        self.store.put(computed)
        self._coming = {**{key: one for key, one in known.items() if one is not None}, **computed}

    def __call__(self, batch: Batch) -> Taught:
        """The targets of a batch, on its device."""
        rows = {self._key(row): row for row in examples_of(batch)}
        found = {key: self._coming.get(key) or self.store.get(key) for key in rows}
        found |= self._compute({key: row for key, row in rows.items() if found[key] is None})
        entries = [entry for key in map(self._key, examples_of(batch)) if (entry := found[key]) is not None]

        layers = range(sum(name.startswith("state") for name in entries[0]))
        states = [torch.cat([entry[f"state{n}"] for entry in entries]) for n in layers]
        device = batch.labels.device
        return Taught(tuple(_told(entries, device)), tuple(one.to(device) for one in states))

    def _key(self, row: _Row) -> str:
        """Of the teacher, the form of its targets, and the example."""
        return storage.sha256_bytes(repr((self._names[row.task], row.source, row.target)).encode())

    def _compute(self, rows: dict[str, _Row]) -> Iterator[tuple[str, Entry]]:
        """Targets of rows, in passes of like lengths."""
        groups: dict[tuple[int, int], list[str]] = defaultdict(list)
        for key, row in rows.items():
            groups[self._padded(row)].append(key)
        for (length, targets), keys in sorted(groups.items()):
            size = pass_rows(length + self._prompt)
            for start in range(0, len(keys), size - 1):
                part = keys[start : start + size - 1]
                yield from zip(
                    part, self._pass([rows[key] for key in part], size, length, targets), strict=True
                )

    def _padded(self, row: _Row) -> tuple[int, int]:
        """The lengths at which a row is computed: multiples, if the model has the positions."""
        config, kept = self.teacher.backbone.lm.config, self.teacher.backbone.keeps_texts
        length, targets = padded(len(row.source), len(row.target), kept=kept)
        positions = getattr(config, "max_position_embeddings", None) or length + targets + self._prompt
        return max(len(row.source), min(length, positions - targets - self._prompt)), targets

    @property
    def _prompt(self) -> int:
        return 0 if self.teacher.prompts is None else int(self.teacher.prompts.length)

    @torch.no_grad()
    def _pass(self, rows: list[_Row], size: int, length: int, targets: int) -> list[Entry]:
        """Targets of rows, computed in a batch of `size` rows, the last of which has the full length."""
        filler = _Row(0, (self.teacher.backbone.tokenizer.eos_token_id,) * length, rows[0].target[:1])
        every = [*rows, *[filler] * (size - len(rows))]
        labels = torch.full((size, targets), IGNORE)
        for i, row in enumerate(every):
            labels[i, : len(row.target)] = torch.tensor(row.target)
        ids = torch.tensor([row.task for row in every])
        batch = Batch(tuple(row.source for row in every), labels, ids).to(self.teacher.backbone.device)
        out = self.teacher(batch, None, self.hidden)
        return [self._entry(out, i, len(row.target)) for i, row in enumerate(rows)]

    def _entry(self, out: Outputs, row: int, targets: int) -> Entry:
        """What is kept of a row of a pass."""
        states = {f"state{n}": one.hidden[row][one.mask[row]] for n, one in enumerate(out.states)}
        said = self._likeliest(out.logits[row, :targets]) if self.distill.logits else {}
        return {name: self._kept(value) for name, value in {**said, **states}.items()}

    def _likeliest(self, logits: Float[Tensor, "T V"]) -> Entry:
        """Log-probabilities of the likeliest tokens and of the rest as one; of all, if the rest is much."""
        log_probs = F.log_softmax(logits.float() / self.distill.temperature, -1)
        if 0 < self.distill.top < logits.shape[-1]:
            tokens = log_probs.topk(self.distill.top).indices
            masses = _masses(log_probs, tokens)
            if bool((masses[:, -1] <= math.log(REST)).all()):
                return {"log_probs": masses.clamp_min(LEAST), "tokens": tokens.int()}
        return {"log_probs": log_probs.clamp_min(LEAST)}

    def _kept(self, value: Tensor) -> Tensor:
        """A copy on the CPU in 16 bits; in 32 where a number is beyond them."""
        if value.dtype == torch.float32 and self.half and bool(value.half().isfinite().all()):
            value = value.half()
        return value.cpu().clone()


def padded(text: int, target: int, *, kept: bool) -> tuple[int, int]:
    """The lengths at which a text and its target are computed, in tokens, where texts are kept or not."""
    step = KEPT_LENGTHS if kept else LENGTHS
    return -(-text // step) * step, target if target <= TARGETS else -(-target // TARGETS) * TARGETS


def pass_rows(length: int) -> int:
    """Rows of a pass over prompts and texts of a length, the filling one included."""
    return max(4, min(PASS_ROWS, PASS_TOKENS // length))


def _told(entries: Sequence[Entry], device: torch.device) -> Iterator[Told]:
    """What the rows' entries say of their target positions: those with some tokens, then those with all."""
    said = [entry for entry in entries if "log_probs" in entry]
    ends = accumulate(len(entry["log_probs"]) for entry in said)
    places = [torch.arange(end - len(entry["log_probs"]), end) for end, entry in zip(ends, said, strict=True)]
    for some in (True, False):
        part = [i for i, entry in enumerate(said) if ("tokens" in entry) == some]
        if part:
            log_probs = torch.cat([said[i]["log_probs"] for i in part]).to(device)
            tokens = torch.cat([said[i]["tokens"] for i in part]).to(device) if some else None
            yield Told(torch.cat([places[i] for i in part]).to(device), log_probs, tokens)


def examples_of(batch: Batch) -> Iterator[_Row]:
    """The examples of a batch."""
    for source, labels, task in zip(
        batch.sources, batch.labels.tolist(), batch.task_ids.tolist(), strict=True
    ):
        yield _Row(task, source, tuple(label for label in labels if label != IGNORE))


def _names(teacher: TunedModel, form: list[object]) -> list[str]:
    """SHA-256 of all that a task's targets follow from, but the example."""
    backbone = teacher.backbone
    about = [
        *(VERSION, torch.__version__, torch.get_num_threads(), backbone.device.type, backbone.base_hash),
        *(type(backbone).__name__, backbone.keeps_texts, str(backbone.embeddings.dtype)),
        *(str(getattr(backbone.lm.config, "_attn_implementation", "")), *form),
    ]
    with torch.no_grad():
        prompts = teacher.prompts_of(torch.arange(len(teacher.tasks)))
    if prompts is None:
        raise ValueError("a teacher without prompts is not kept")
    data = [prompt.float().cpu().contiguous().numpy().tobytes() for prompt in prompts]
    return [storage.sha256_bytes(repr(about).encode() + one) for one in data]
