"""`python -m recipes.pocket COMMAND`: text, shards, train, export, release, in this order."""

import json
import sys
from pathlib import Path

import torch
from cyclopts import App
from ruamel.yaml import YAML

from recipes.pocket import examples, look, quality, release, shards, text, train
from recipes.pocket.ways import WAYS
from weft.models.bundled import POCKET
from weft.runs.workspace import Workspace

app = App(name="recipes.pocket", help=__doc__)


@app.command(name="text")
def collect(*, data: Path, work: Path = Path(".cache/pocket")) -> None:
    """Collect text that may be used, less what benchmarks hold.

    Args:
        data: folder with corpus/, tasks/ and natural_instructions.parquet.
        work: folder of what is made.
    """
    print(json.dumps(text.collect(data, work), indent=1))


@app.command(name="shards")
def write_shards(
    *,
    name: str = "train",
    way: str = "borrowed",
    count: int = 200_000,
    seed: int = 0,
    work: Path = Path(".cache/pocket"),
) -> None:
    """Make examples and write them as tokens.

    Args:
        name: of the shard.
        way: whose tokenizer.
        count: examples.
        seed: of what is drawn.
        work: folder of what is made.
    """
    documents = text.read(work)
    made, told = examples.examples(documents, count, seed), examples.instructions(documents)
    shards.write(work / name, made, told, WAYS[way]().tokenizer)


@app.command(name="train")
def run(settings: Path, *, minutes: float, work: Path = Path(".cache/pocket")) -> None:
    """Train, or go on, for so many minutes.

    Args:
        settings: a YAML file; its name is the run's.
        minutes: of this call.
        work: folder of the shards and the runs.
    """
    wanted = train.Settings(**YAML(typ="safe").load(settings.read_text()))
    done = train.train(wanted, work, work / settings.stem, minutes=minutes)
    print(f"step {done.step} of {wanted.steps}")


@app.command(name="look")
def look_at(
    run: Path, *, shard: str = "held-out", batches: int = 30, work: Path = Path(".cache/pocket")
) -> None:
    """Say how much of each kind of example a run has learned.

    Args:
        run: folder of a training run.
        shard: examples of another seed than those of the training.
        batches: of 32 examples.
        work: folder of the shards.
    """
    other = shards.read(work / shard)
    trainer = train.restored(run, other.told, torch.device("cpu"))
    for name, one in look.look(trainer, other, batches).items():
        print(f"{name:12} {one.rows:5} rows  {one.loss:6.2f} nats  {one.right:5.1f} % right")


@app.command
def export(run: Path) -> None:
    """Write a run's model as a folder that `--base` takes.

    Args:
        run: folder of a training run.
    """
    print(release.export(run))


@app.command(name="quality")
def measure(
    base: str,
    method: str = "prompt",
    *,
    data: Path,
    tasks: tuple[str, ...] = quality.TASKS,
    steps: int = 300,
    search: int = 80,
    rates: tuple[float, ...] = (),
    work: Path = Path(".cache/pocket"),
) -> None:
    """Tune prompts, or all weights, on public tasks; the result goes to WORK/quality.jsonl.

    Args:
        base: a known name, or the folder of an exported model.
        method: prompt or full.
        data: folder of task data.
        tasks: built-in tasks.
        steps: of a scored run.
        search: of a run of the search for a rate.
        rates: those searched; a single one is used as it is.
        work: folder in which runs are kept.
    """
    settings = {"tasks": tasks, "steps": steps, "search": search, "rates": rates}
    workspace = Workspace(work / "runs", data)
    for found in quality.measure(base, method, workspace, work / "quality.jsonl", **settings):
        print(f"{found.task:8} {found.dev} {found.rate} {found.test} {found.majority}", flush=True)


@app.command(name="table")
def show(*, work: Path = Path(".cache/pocket")) -> None:
    """Print what `quality` found so far.

    Args:
        work: folder in which it is kept.
    """
    print(quality.table(quality.read(work / "quality.jsonl")))


@app.command(name="release")
def write_parts(run: Path, *, out: Path = POCKET) -> None:
    """Write what is shipped of a run's model.

    Args:
        run: folder of an exported training run of the way `borrowed`.
        out: where it goes.
    """
    print(json.dumps(release.release(run, out), indent=1))


if __name__ == "__main__":
    sys.exit(app())
