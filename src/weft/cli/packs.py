"""Commands that carry runs elsewhere: pack, unpack."""

from pathlib import Path

from weft.cli.app import RUNS, Runs, app


@app.command
def pack(run: str, out: Path, *, runs: Runs = RUNS) -> None:
    """Write RUN as one file: all that it answers with, but the base model and the rows."""
    from weft.runs import packs

    print(packs.packed(runs, run, out))


@app.command
def unpack(file: Path, *, runs: Runs = RUNS) -> None:
    """Put a run back from a file of weft pack; predict, evaluate RUN FILE and export then use it."""
    from weft.runs import packs

    print(packs.unpacked(file, runs).path)
