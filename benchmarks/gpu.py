"""All that is asked of a GPU, in one table: T5's base and large shapes, random weights, bf16.

    .venv/bin/python -m benchmarks.gpu [--tiny] [--shapes base large] [--batches 16 32 64 128 256]

Steps a second and share of the measured matrix rate by batch, with memory; ratios against PEFT; the effect
of torch.compile and of CUDA graphs; six tasks in one forward against one after the other. Texts are of one
length. With --tiny: tiny shapes on any device, to see that it runs; its numbers mean nothing.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks import inputs, measure, ours, peers
from benchmarks.__main__ import quiet
from benchmarks.goals import Settings
from benchmarks.t5_step import useful_flops
from weft.data.batch import Encoded
from weft.models.tuned import TunedModel, with_bank
from weft.training.loop import fit_together

PROMPT, TEXT, STEPS, KAPPA, TASK_ROWS, PEER_BATCH = 100, 64, 8, 6, 16, 32
TINY = {"shapes": ["tiny"], "batches": [2, 4]}
Line = tuple[str, str, str]  # what, value, note


def main() -> None:
    """Entry point; exit code 2 where there is no device to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--shapes", nargs="+", default=["base", "large"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 32, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if not asked.tiny and not torch.cuda.is_available():
        print("error: torch sees no CUDA device; --tiny runs tiny shapes on the CPU", file=sys.stderr)
        raise SystemExit(2)
    quiet()
    options = {**vars(asked), **(TINY if asked.tiny else {})}
    print(f"{device()}, torch {torch.__version__}, prompt {PROMPT}, texts of {TEXT} tokens, bf16\n")
    with TemporaryDirectory() as folder:
        settings = Settings(1 if asked.tiny else asked.rounds, asked.tiny, None, Path(folder), "bfloat16")
        for shape in options["shapes"]:
            for what, value, note in lines(settings, shape, options["batches"]):
                print(f"{f't5-{shape}, {what}':46}{value:>14}  {note}", flush=True)


def device() -> str:
    """Its name."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def lines(settings: Settings, shape: str, batches: list[int]) -> Iterator[Line]:
    """The table of one shape, line by line, as soon as each is measured."""
    folder = inputs.t5_folder(shape, settings.folder)
    backbone = inputs.load(str(folder), settings, length=PROMPT)
    model = with_bank(backbone, ours.bank(backbone, PROMPT))
    for size in batches:
        yield from by_batch(settings, model, shape, size)
    yield from against_peft(settings, model, folder)
    yield from together(settings, model)
    yield from compiled(settings, model)  # last: it changes the model


def rows(count: int) -> list[Encoded]:
    """Rows of one length."""
    return [Encoded((5,) * (TEXT - 1) + (inputs.END,), (6, 7, inputs.END)) for _ in range(count)]


def steps(settings: Settings) -> int:
    """Steps of a round."""
    return 1 if settings.quick else STEPS


def seconds(settings: Settings, work: Callable[[], object]) -> float:
    """Median seconds of a step of some work, which is a round of them."""
    found, _ = measure.interleave({"": lambda i: work()}, settings.rounds)
    return statistics.median(found[""]) / steps(settings)


def by_batch(settings: Settings, model: TunedModel, shape: str, size: int) -> Iterator[Line]:
    """Steps a second, share of the matrix rate, and peak memory of one batch size."""
    own, cuda = rows(size * steps(settings)), torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    time = seconds(settings, lambda: ours.train(model, own, size))
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB at most" if cuda else ""
    yield f"batch {size}, steps/s", f"{1 / time:.2f}", memory
    with measure.recorded() as calls:
        ours.train(model, own[:size], size)
    rate = measure.product_rate(calls) * 1e9
    share = size * useful_flops(shape, PROMPT, own[0]) / time / rate
    yield f"batch {size}, share of rate", f"{share:.0%}", f"own products alone {rate / 1e12:,.2f} TFLOP/s"


def against_peft(settings: Settings, model: TunedModel, folder: Path) -> Iterator[Line]:
    """PEFT in float32 as it comes, and in bf16, with dropout and without."""
    size = 2 if settings.quick else PEER_BATCH
    own = rows(size * steps(settings))
    collate = peers.seq2seq_inputs(inputs.PAD)
    where = model.backbone.device
    batches = [
        {name: value.to(where) for name, value in collate(own[i : i + size]).items()}
        for i in range(0, len(own), size)
    ]
    bank = ours.bank(model.backbone, PROMPT)
    for name, dtype, dropout in (
        ("float32, as it comes", torch.float32, True),
        ("bf16 weights", torch.bfloat16, True),
        ("bf16 weights, no dropout", torch.bfloat16, False),
    ):
        peer = peers.multitask(folder, bank).to(where, dtype)
        peer.prompt_encoder.float()  # prompts and their optimiser stay in float32, as weft's do
        peer = peer if dropout else peers.no_dropout(peer)
        arms = {
            "weft": lambda i: ours.train(model, own, size),
            "PEFT": lambda i, peer=peer: peers.train(peer, batches),
        }
        found, _ = measure.interleave(arms, settings.rounds)
        ratio = statistics.median(measure.ratios(found, "PEFT", "weft"))
        yield f"step / PEFT, {name}", f"{ratio:.2f}x", f"batch {size}"


def together(settings: Settings, model: TunedModel) -> Iterator[Line]:
    """Six tasks in one forward, against one after the other."""
    size = 2 if settings.quick else TASK_ROWS
    backbone, own = model.backbone, rows(size * steps(settings))
    models = [ours.prompts(backbone, PROMPT, 1) for _ in range(KAPPA)]
    shares = [own] * KAPPA
    arms = {
        "together": lambda i: list(fit_together(ours.courses(models, shares, size))),
        "in turn": lambda i: [list(fit_together([one])) for one in ours.courses(models, shares, size)],
    }
    found, _ = measure.interleave(arms, settings.rounds)
    ratio = statistics.median(measure.ratios(found, "in turn", "together"))
    yield f"{KAPPA} tasks together", f"{ratio:.2f}x", f"{size} rows a task"


def compiled(settings: Settings, model: TunedModel) -> Iterator[Line]:
    """torch.compile, and with CUDA graphs, against eager steps of a small batch, where launches count."""
    size = 2 if settings.quick else TASK_ROWS
    own, lm = rows(size * steps(settings)), model.backbone.lm
    eager, plain = lm.forward, seconds(settings, lambda: ours.train(model, own, size))
    for name, mode in (("torch.compile", "default"), ("CUDA graphs", "reduce-overhead")):
        options = {"mode": mode} if torch.cuda.is_available() else {"backend": "eager"}
        lm.forward = torch.compile(eager, dynamic=False, **options)
        time = seconds(settings, lambda: ours.train(model, own, size))
        yield f"{name} / eager", f"{plain / time:.2f}x", f"batch {size}"
    lm.forward = eager


if __name__ == "__main__":
    main()
