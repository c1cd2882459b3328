"""`python -m recipes.pocket COMMAND`: text, shards, train, export, release, in this order."""

import json
import sys
from pathlib import Path

from cyclopts import App
from ruamel.yaml import YAML

from recipes.pocket import examples, release, shards, text, train
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
    shards.write(work / name, examples.examples(text.read(work), count, seed), WAYS[way]().tokenizer)


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


@app.command
def export(run: Path) -> None:
    """Write a run's model as a folder that `--base` takes.

    Args:
        run: folder of a training run.
    """
    print(release.export(run))


@app.command(name="release")
def write_parts(run: Path) -> None:
    """Write the parts of a run's model that would be shipped to RUN/parts.

    Args:
        run: folder of an exported training run of the way `borrowed`.
    """
    print(json.dumps(release.release(run), indent=1))


if __name__ == "__main__":
    sys.exit(app())
