"""A training step of smollm2 on 16 rows of every answer, against PEFT's prompt tuning on the same rows."""

from benchmarks import inputs, measure, ours, peers
from benchmarks.goals import Result, Settings
from weft.config.model import BaseConfig
from weft.data.batch import Encoded, collate
from weft.data.encoding import encode_task
from weft.models import Backbone
from weft.models.base_folder import resolve

BATCH, LENGTH = 16, 16


def run(settings: Settings) -> list[Result]:
    """Seconds of steps on the same rows: prompts after texts whose keys and values are kept, and PEFT's."""
    task = inputs.task_of(settings)
    steps = 1 if settings.quick else 4
    size, length = (2, 4) if settings.quick else (BATCH, LENGTH)
    folder = resolve(BaseConfig()).path
    suffix = inputs.load("smollm2", settings, length=length)
    rows = list(encode_task(task.name, inputs.shots(task), suffix, 256).rows)
    model = ours.prompts(suffix, length, 1)
    peer = peers.prompt_tuning(folder, model.prompts_of(ours.FIRST)[0])
    checks = {"loss of PEFT less ours": _difference(settings, peer, rows[:2])}
    part = (rows * steps)[: steps * size]
    collate_peer = peers.causal_inputs(suffix.tokenizer.pad_token_id)
    arms = {
        "weft": lambda i: ours.train(model, part, size),
        "PEFT": lambda i: peers.train(
            peer, [collate_peer(part[j : j + size]) for j in range(0, len(part), size)]
        ),
    }
    suffix.prepare(row.source for row in rows)
    seconds, _ = measure.interleave(arms, settings.rounds)
    text = (
        f"{task.name}, {len(rows)} rows of {_mean(rows):.0f} tokens, batch {size}, prompt {length}, "
        f"{steps} steps a round; texts kept; PEFT float32, weft {settings.dtype}"
    )
    return [Result("smollm2-step", measure.ratios(seconds, "PEFT", "weft"), text, seconds, checks)]


def _mean(rows: list[Encoded]) -> float:
    return sum(len(row.source) for row in rows) / len(rows)


def _difference(settings: Settings, peer: peers.PeftModel, rows: list[Encoded]) -> float:
    """How far apart the losses are where weft's prompt stands before the text, as PEFT's does.

    Raises:
        AssertionError: where they do not train the same thing.
    """
    length = peer.peft_config["default"].num_virtual_tokens
    prefix: Backbone = inputs.load("smollm2", settings, length=length, position="prefix")
    batch = peers.causal_inputs(prefix.tokenizer.pad_token_id)(rows)
    loss = ours.loss(ours.prompts(prefix, length, 1), collate(rows, [0] * len(rows)))
    return peers.difference(loss, peers.loss_of(peer, batch), prefix.embeddings.dtype)
