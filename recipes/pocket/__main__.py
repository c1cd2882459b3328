"""`python -m recipes.pocket COMMAND`: text, shards, train, export, release, in this order."""

import json
import sys
from pathlib import Path

import torch
from cyclopts import App
from ruamel.yaml import YAML

from recipes.pocket import examples, look, probe, release, shards, text, train
from recipes.pocket.ways import WAYS

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
    trainer = train.restored(run, len(other.names), torch.device("cpu"))
    for name, one in look.look(trainer, other, batches).items():
        print(f"{name:12} {one.rows:5} rows  {one.loss:6.2f} nats  {one.right:5.1f} % right")


@app.command
def export(run: Path) -> None:
    """Write a run's model as a folder that `--base` takes.

    Args:
        run: folder of a training run.
    """
    print(release.export(run))


@app.command(name="probe")
def probe_model(model: Path, *, data: Path, rate: float = 0.03, work: Path = Path(".cache/pocket")) -> None:
    """Tune prompts on a part of four tasks: a quick look that compares models in the making.

    Args:
        model: an exported model.
        data: folder of task data.
        rate: learning rate of the prompts.
        work: folder in which runs are kept.
    """
    for name, accuracy in probe.probe(model, data, work / "runs", rate=rate):
        print(f"{name:8} {accuracy}", flush=True)


@app.command(name="release")
def write_parts(run: Path) -> None:
    """Write the parts of a run's model that would be shipped to RUN/parts.

    Args:
        run: folder of an exported training run of the way `borrowed`.
    """
    print(json.dumps(release.release(run), indent=1))


if __name__ == "__main__":
    sys.exit(app())
