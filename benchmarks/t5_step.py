"""Adaptation step in the shape of t5-small, against PEFT's multitask prompt tuning and the matrix rate."""

from collections.abc import Sequence
from functools import partial

import torch

from benchmarks import inputs, measure, ours, peers
from benchmarks.goals import Result, Settings
from weft.data.batch import IGNORE, Encoded, collate
from weft.data.encoding import EncodedTask
from weft.data.sampling import EpochBatches
from weft.models import Backbone
from weft.models.tuned import TunedModel, with_bank

POOL = 32  # batches, as in a run of ours


def run(settings: Settings) -> list[Result]:
    """Seconds of steps of 32 from one pool of rows: ours, PEFT with dropout as it comes, and without.

    A run of ours draws batches of like length out of 32; of these every eighth is timed, in the order of
    their lengths, from another one on in every round. PEFT takes the pool's rows as they come, as many steps.
    """
    shape, length, size, steps = ("tiny", 5, 4, 2) if settings.quick else ("small", 100, 32, 4)
    folder = inputs.t5_folder(shape, settings.folder)
    backbone = inputs.load(str(folder), settings, length=length)
    words = len(backbone.embeddings)
    drawn = [inputs.drawn_rows(size * POOL, words, seed=i) for i in range(settings.rounds)]
    pools = [rows[: size * steps] for rows in drawn]
    sampled = [_every(rows, size, steps, i) for i, rows in enumerate(drawn)]
    bank = ours.bank(backbone, length)
    model = with_bank(backbone, bank)
    default = peers.multitask(folder, bank)
    without = peers.no_dropout(peers.multitask(folder, bank))
    checks = {"loss of PEFT less ours": _difference(model, without, pools[0][:size])}
    arms = {
        "weft": lambda i: ours.steps(model, sampled[i]),
        "PEFT": lambda i: peers.train(default, _batches(backbone, pools[i], size)),
        "PEFT, no dropout": lambda i: peers.train(without, _batches(backbone, pools[i], size)),
    }  # fmt: skip
    seconds, _ = measure.interleave(arms, settings.rounds, warm=False)
    text = (
        f"random weights, batch {size}, prompt {length}, {steps} steps a round of a pool of {POOL} "
        f"batches; PEFT float32, weft {settings.dtype}"
    )
    compare = partial(measure.ratios, seconds, fast="weft")
    return [
        Result("t5-step", compare("PEFT"), text, seconds, checks),
        Result("t5-step-no-dropout", compare("PEFT, no dropout"), text),
        _share(model, shape, sampled, seconds["weft"], length),
    ]


def _batches(backbone: Backbone, rows: Sequence[Encoded], size: int) -> list[peers.Inputs]:
    """Rows in the order given, as the Trainer's loader makes batches of them."""
    collate = peers.seq2seq_inputs(backbone.tokenizer.pad_token_id)
    return [collate(rows[i : i + size]) for i in range(0, len(rows), size)]


def _difference(model: TunedModel, peer: peers.PeftModel, rows: Sequence[Encoded]) -> float:
    """How far apart the losses of both are at equal prompts, on the same rows.

    Raises:
        AssertionError: where they do not train the same thing.
    """
    theirs = peers.loss_of(peer, peers.seq2seq_inputs(inputs.PAD)(rows))
    loss = ours.loss(model, collate(rows, [0] * len(rows)))
    return peers.difference(loss, theirs, model.backbone.embeddings.dtype)


def _every(rows: Sequence[Encoded], size: int, steps: int, offset: int) -> list[list[Encoded]]:
    """Some of the batches that a run makes of a pool of rows: evenly over their lengths."""
    tasks = (EncodedTask("task", tuple(rows)),)
    batches = EpochBatches(tasks, size, seed=0, pool=len(rows) // size)
    known = {(row.source, row.target): row for row in rows}
    made = []
    for step in range(len(rows) // size):
        batch = batches(step)
        targets = [tuple(label for label in row if label != IGNORE) for row in batch.labels.tolist()]
        made.append([known[pair] for pair in zip(batch.sources, targets, strict=True)])
    made.sort(key=lambda batch: max(len(row.source) for row in batch))
    stride = len(made) // steps
    return made[(2 * offset + 1) % stride :: stride]


def _share(
    model: TunedModel, shape: str, sampled: list[list[list[Encoded]]], seconds: list[float], length: int
) -> Result:
    """FLOPs that the rows need without padding, a second, against the rate of the step's own products."""
    needed = [sum(useful_flops(shape, length, row) for batch in one for row in batch) for one in sampled]
    with measure.recorded() as calls:
        ours.steps(model, sampled[0][1:3])
    rate = measure.product_rate(calls)
    done = [flops / time / 1e9 for flops, time in zip(needed, seconds, strict=True)]
    text = f"unpadded FLOPs, forward and gradient of inputs; the step's products alone: {rate:,.0f} GFLOP/s"
    return Result("t5-share", [100 * one / rate for one in done], text, {"GFLOP/s": done})


def useful_flops(shape: str, length: int, row: Encoded) -> int:
    """FLOPs of one row alone: forward, and backward to the prompt, without any weight's gradient."""
    key = (shape, length, len(row.source), len(row.target))
    if key not in _COUNTED:
        _COUNTED[key] = _count(*key)
    return _COUNTED[key]


_COUNTED: dict[tuple[str, int, int, int], int] = {}
_SHAPES: dict[str, torch.nn.Module] = {}


def _count(shape: str, length: int, text: int, answer: int) -> int:
    """Counted on a model without numbers, which takes no time."""
    if shape not in _SHAPES:
        with torch.device("meta"):
            config = inputs.t5_config(shape)
            config._attn_implementation = "eager"  # every product is counted
            _SHAPES[shape] = inputs.T5ForConditionalGeneration(config).eval().requires_grad_(False)
    lm = _SHAPES[shape]
    embeds = torch.empty(1, length + text, lm.config.d_model, device="meta", requires_grad=True)
    ids = torch.zeros(1, answer, dtype=torch.long, device="meta")
    return measure.flops(
        lambda: lm(inputs_embeds=embeds, decoder_input_ids=ids, use_cache=False).logits.sum().backward()
    )
