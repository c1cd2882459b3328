"""Training: one file for a processor and a GPU, resumable at any step, the same for the same seed."""

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSeq2SeqLM

from recipes.pocket import shards
from recipes.pocket.batches import Batches, Rows
from recipes.pocket.ways import WAYS, Way
from weft import storage
from weft.config.model import BaseConfig
from weft.data.batch import IGNORE
from weft.models import probe, set_attention
from weft.models.base_folder import resolve
from weft.models.bundled import KNOWN

LOG_EVERY, SAVE_SECONDS, PART_BYTES = 50, 300, 15 << 20
SOFT = 32  # vectors of a soft prompt, of which a batch uses the first 8, 16 or all


class Settings(BaseModel):
    """What a training run does.

    Attributes:
        way: borrowed, scratch or cut.
        shard: name of the shard, which must hold the ids of the way's tokenizer.
        steps: in all; the learning rate falls to nothing over them.
        batch: rows.
        rate: of the decoder, or of all where everything is new.
        encoder_rate: of the encoder; 0: it is not trained.
        soft_rate: of the soft prompts.
        told: share of batches with instructions in words in place of soft prompts.
        distance: weight of the distance to the teacher's states, where the way has a teacher.
        kinds: of examples; none: all.
        longest: tokens of a target.
        start: name of a run, or of a base model that is known (pocket), whose weights this one begins with;
            none: the way's own.
        seed: of everything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    way: str
    shard: str = "train"
    steps: int
    batch: int = 64
    rate: float = 5e-4
    encoder_rate: float = 0.0
    soft_rate: float = 3e-3
    told: float = 0.25
    distance: float = 1.0
    warmup: int = 200
    kinds: tuple[str, ...] = ()
    longest: int = shards.MOST_TARGET
    start: str | None = None
    seed: int = 0


@dataclass
class Trainer:
    """A model in training.

    Attributes:
        settings: of the run.
        way: model, tokenizer and teacher.
        soft: a prompt for every task `[K, SOFT, D]`.
        match: from the encoder's states to the teacher's; none without a teacher.
        step: steps done.
    """

    settings: Settings
    way: Way
    soft: nn.Parameter
    match: nn.Linear | None
    optimizer: torch.optim.Optimizer
    device: torch.device
    dtype: torch.dtype
    step: int = 0

    def loss(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Cross-entropy (mean over rows of each row's mean over tokens) and the distance to the teacher."""
        prompts = None if self.told else self.soft[rows.task, : self._length()]
        out = self.forward(rows, prompts)
        flat = F.cross_entropy(out.logits.flatten(0, 1).float(), rows.labels.flatten(), reduction="none")
        losses, counted = flat.view_as(rows.labels), rows.labels != IGNORE
        loss = (losses.sum(1) / counted.sum(1)).mean()
        return loss, self._distance(out.encoder_last_hidden_state, rows)

    def forward(self, rows: Rows, prompts: Tensor | None) -> Any:
        """What the model says of a batch, with prompts `[B, P, D]` before the texts or without."""
        embeds, mask = self.way.model.get_input_embeddings()(rows.ids), rows.mask
        if prompts is not None:
            embeds = torch.cat([prompts, embeds], 1)
            mask = torch.cat([mask.new_ones(prompts.shape[:2]), mask], 1)
        return self.way.model(
            inputs_embeds=embeds,
            attention_mask=mask,
            decoder_input_ids=self._shifted(rows.labels),
            use_cache=False,
        )

    @property
    def told(self) -> bool:
        """Whether this step's batch is told its task in words."""
        return _draw(self.settings.seed, self.step, 0) < self.settings.told

    def _length(self) -> int:
        return (8, 16, SOFT)[int(3 * _draw(self.settings.seed, self.step, 1))]

    def _shifted(self, labels: Tensor) -> Tensor:
        config = self.way.model.config
        start = labels.new_full((len(labels), 1), config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], 1)
        return shifted.masked_fill(shifted == IGNORE, config.pad_token_id)

    def _distance(self, states: Tensor, rows: Rows) -> Tensor:
        """One less the cosine between states of text tokens and the teacher's."""
        if self.match is None or self.way.teacher is None:
            return states.new_zeros(())
        with torch.no_grad():
            wanted = self.way.teacher(input_ids=rows.ids, attention_mask=rows.mask).last_hidden_state
        found = self.match(states[:, -rows.ids.shape[1] :])
        return (1 - F.cosine_similarity(found.float(), wanted.float(), dim=-1))[rows.mask.bool()].mean()

    def update(self, rows: Rows) -> tuple[float, float]:
        """One step; gives the loss and the distance."""
        settings = self.settings
        rising = min(1.0, (self.step + 1) / settings.warmup)
        falling = max(0.0, 1 - self.step / settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["most"] * rising * falling
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            loss, distance = self.loss(rows)
        (loss + settings.distance * distance).backward()
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item(), distance.item()

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on."""
        return {
            "step": self.step,
            "model": self.way.model.state_dict(),
            "soft": self.soft.data,
            "match": self.match.state_dict() if self.match else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.step = state["step"]
        self.way.model.load_state_dict(state["model"])
        self.soft.data.copy_(state["soft"])
        if self.match is not None:
            self.match.load_state_dict(state["match"])
        self.optimizer.load_state_dict(state["optimizer"])


def begin(settings: Settings, told: Sequence[Sequence[int]], device: torch.device) -> Trainer:
    """A trainer at step 0.

    Args:
        settings: of the run.
        told: ids of every task's instruction, whose embeddings begin its soft prompt.
        device: to train on.
    """
    torch.manual_seed(settings.seed)
    way = WAYS[settings.way]()
    model = way.model.to(device).eval()  # without dropout: no run here sees a text often
    if device.type == "cpu":
        set_attention(model, "eager")  # in bfloat16 without matrix units a third faster a step
    words = torch.tensor([list(islice(cycle(ids), SOFT)) for ids in told], device=device)
    soft = nn.Parameter(model.get_input_embeddings().weight.data[words].clone())
    match = None
    if way.teacher is not None:
        way.teacher.to(device).eval().requires_grad_(False)
        match = nn.Linear(model.config.d_model, way.teacher.config.hidden_size).to(device)
    precision = probe(device)
    dtype = getattr(torch, precision.dtype)
    return Trainer(settings, way, soft, match, _optimizer(settings, way, soft, match), device, dtype)


def _optimizer(
    settings: Settings, way: Way, soft: nn.Parameter, match: nn.Linear | None
) -> torch.optim.AdamW:
    encoder = (
        {id(one) for one in way.model.get_encoder().parameters()} if settings.way == "borrowed" else set()
    )
    if not settings.encoder_rate:
        for one in way.model.get_encoder().parameters() if encoder else ():
            one.requires_grad_(False)
    trained = [one for one in way.model.parameters() if one.requires_grad]
    groups = [
        {"params": [one for one in trained if id(one) not in encoder], "most": settings.rate},
        {"params": [one for one in trained if id(one) in encoder], "most": settings.encoder_rate},
        {"params": [soft], "most": settings.soft_rate, "weight_decay": 0.0},
        {"params": list(match.parameters()) if match else [], "most": settings.rate},
    ]
    return torch.optim.AdamW([one for one in groups if one["params"]], lr=settings.rate, betas=(0.9, 0.98))


def train(settings: Settings, work: Path, out: Path, *, minutes: float) -> Trainer:
    """Go on from what OUT holds until the steps are done or the time is over, and save.

    Args:
        settings: must be those that OUT was begun with.
        work: folder of the shards.
        out: folder of the state and the log.
        minutes: of this call.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shard = shards.read(work / settings.shard)
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(settings, out)
    trainer = restored(out, shard.told, device)
    way = trainer.way
    chosen = shard.of(settings.kinds, settings.longest)
    special = (way.begin, way.end, way.tokenizer.pad_token_id)
    batches = Batches(shard, settings.batch, settings.seed, *special, chosen)
    _run(trainer, batches, out, time.monotonic() + 60 * minutes)
    save(trainer, out)
    return trainer


def restored(out: Path, told: Sequence[Sequence[int]], device: torch.device) -> Trainer:
    """The trainer of a run's folder, at its last saved step."""
    trainer = begin(Settings(**storage.read_json(out / "settings.json")), told, device)
    if (out / "state.json").exists():
        trainer.load(read_state(out, device))
    elif trainer.settings.start:
        trainer.way.model.load_state_dict(_weights(trainer.settings.start, out.parent, device))
    return trainer


def _weights(start: str, work: Path, device: torch.device) -> dict[str, Tensor]:
    if start in KNOWN:
        lm = AutoModelForSeq2SeqLM.from_pretrained(resolve(BaseConfig(model=start)).path)
        return dict(lm.to(device).state_dict())
    return dict(read_state(work / start, device)["model"])


def _run(trainer: Trainer, batches: Batches, out: Path, stop: float) -> None:
    log = Log(out / "log.jsonl", max(probe(trainer.device).rates.values()))
    saved = time.monotonic()
    while trainer.step < trainer.settings.steps and time.monotonic() < stop:
        rows = _moved(batches.at(trainer.step, told=trainer.told), trainer.device)
        if trainer.step % LOG_EVERY == 0:
            with FlopCounterMode(display=False) as flops:
                losses = trainer.update(rows)
            log.flops = flops.get_total_flops() / rows.mask.sum().item()
        else:
            losses = trainer.update(rows)
        log.add(trainer, rows, losses)
        if time.monotonic() - saved > SAVE_SECONDS:
            save(trainer, out)
            saved = time.monotonic()


@dataclass
class Log:
    """Loss, tokens a second and share of the device's matrix rate, a line every so many steps."""

    path: Path
    peak: float  # GFLOP/s
    flops: float = 0.0  # a text token
    tokens: int = 0
    since: float = 0.0
    sums: tuple[float, float, int] = (0.0, 0.0, 0)

    def add(self, trainer: Trainer, rows: Rows, losses: tuple[float, float]) -> None:
        """Count a step, and write a line if it is due."""
        self.since = self.since or time.monotonic()
        loss, distance, count = self.sums
        self.sums = (loss + losses[0], distance + losses[1], count + 1)
        self.tokens += int(rows.mask.sum())
        if trainer.step % LOG_EVERY:
            return
        rate = self.tokens / (time.monotonic() - self.since)
        line = {
            "step": trainer.step,
            "loss": round(self.sums[0] / self.sums[2], 4),
            "distance": round(self.sums[1] / self.sums[2], 4),
            "tokens_per_second": round(rate),
            "share_of_matrix_rate": round(rate * self.flops / 1e9 / self.peak, 3),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        self.sums, self.tokens, self.since = (0.0, 0.0, 0), 0, time.monotonic()


def _draw(seed: int, step: int, which: int) -> float:
    """A number in [0, 1) that depends on the step alone."""
    return float(
        torch.rand(1, generator=torch.Generator().manual_seed((seed * 1_000_003 + step) * 2 + which))
    )


def _moved(rows: Rows, device: torch.device) -> Rows:
    return Rows(*(one.to(device) for one in (rows.ids, rows.mask, rows.labels, rows.task)))


def _same_settings(settings: Settings, out: Path) -> None:
    path, wanted = out / "settings.json", settings.model_dump(mode="json")
    if path.exists() and json.loads(path.read_text()) != wanted:
        raise ValueError(f"{out} was begun with other settings; give another folder")
    storage.write_json(path, wanted)


def save(trainer: Trainer, out: Path) -> None:
    """Write the state in parts that are small enough to be sent; the list of parts last."""
    buffer = io.BytesIO()
    torch.save(trainer.state(), buffer)
    data = buffer.getvalue()
    parts = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
    names = [f"state-{trainer.step}-{i}.part" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        storage.write_bytes(out / name, part)
    storage.write_json(out / "state.json", {"step": trainer.step, "parts": names})
    for old in out.glob("state-*.part"):
        if old.name not in names:
            storage.remove(old)


def read_state(out: Path, device: torch.device) -> dict[str, Any]:
    """What `save` wrote."""
    names = storage.read_json(out / "state.json")["parts"]
    data = b"".join((out / name).read_bytes() for name in names)
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    return state
