"""Run benchmarks: `weft bench`, or `python -m benchmarks` in a clone. `--help` says what there is."""

import json
import shutil
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from cyclopts import App, Parameter

from benchmarks import (
    answers,
    bank,
    demo,
    learn,
    linear,
    machine,
    memory,
    neighbour,
    over_http,
    pocket_step,
    products,
    readers,
    report,
    serve,
    smollm2_step,
    soak,
    t5_step,
    teaching,
    whole_job,
)
from benchmarks.goals import Result, Settings
from weft.errors import ConfigError, WeftError, did_you_mean

BENCHMARKS = {
    "t5-step": t5_step.run,
    "smollm2-step": smollm2_step.run,
    "pocket-step": pocket_step.run,
    "whole-job": whole_job.run,
    "predict": answers.predict,
    "closed": answers.closed,
    "distill": teaching.distill,
    "together": teaching.together,
    "products": products.run,
    "linear": linear.run,
    "memory": memory.run,
    "neighbour": neighbour.run,
    "readers": readers.run,
    "learn": learn.run,
    "demo": demo.run,
    "bank": bank.run,
    "soak": soak.run,
    "serve": serve.run,
    "http": over_http.sizes,
    "overload": over_http.overload,
}
DOCS = Path(__file__).parents[1] / "docs"
app = App(name="weft bench", result_action="return_value")
Flag = Parameter(negative="")


@app.default
def bench(
    *names: str,
    rounds: int = 5,
    out: Path = Path("bench"),
    data: Path | None = None,
    quick: Annotated[bool, Flag] = False,
    write_docs: Annotated[bool, Flag] = False,
    page: str = "performance",
) -> None:
    """Run benchmarks, all or those named; write OUT/bench.json and print a table.

    One that fails stops no other: it is named at the end, and the exit code is that of the first one.

    Args:
        names: t5-step, smollm2-step, pocket-step, whole-job, predict, closed, distill, together,
            products, linear, memory, neighbour, readers, learn, demo, bank, soak, serve, http, overload.
        rounds: how often each side is timed.
        out: folder of bench.json, in which what other benchmarks found stays.
        data: folder of task data: rows of CR, else of the demo.
        quick: tiny shapes and one round, to see that it runs; the numbers mean nothing.
        write_docs: write a page of docs/ from all that bench.json then holds.
        page: its name; what another machine found wants one of its own.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise ConfigError(f"there is no benchmark {unknown[0]!r}", fix=did_you_mean(unknown[0], BENCHMARKS))
    found = _begin(out, rounds=1 if quick else rounds, quick=quick)
    quiet()
    with TemporaryDirectory() as folder:
        rates = found["machine"]["rates"]
        settings = Settings(found["rounds"], quick, data, Path(folder), max(rates, key=rates.get))
        outcomes = {name: _run(name, settings, found, out) for name in names or BENCHMARKS}
    print("\n".join([*report.facts(found["machine"]), "", report.table(found), "", str(out / "bench.json")]))
    if write_docs:
        report.write(found, DOCS / f"{page}.md")
        if (out / linear.PLOT).exists():
            shutil.copy(out / linear.PLOT, DOCS)
    if failed := {name: error for name, error in outcomes.items() if error is not None}:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(getattr(next(iter(failed.values())), "exit_code", 1))


def _run(name: str, settings: Settings, found: report.Bench, out: Path) -> Exception | None:
    """Run a benchmark and keep what it found; or say what it failed of, so that the rest goes on."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        _keep(found, name, BENCHMARKS[name](settings), out)
        if name == "linear":
            shutil.copy(settings.folder / linear.PLOT, out)
    except Exception as error:
        print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return error
    return None


def _begin(out: Path, *, rounds: int, quick: bool) -> report.Bench:
    """What a run starts from: the facts of the machine, and what it found before under the same ones."""
    out.mkdir(parents=True, exist_ok=True)
    bench: report.Bench = {"machine": machine.facts(), "rounds": rounds, "quick": quick, "results": []}
    path = out / "bench.json"
    if path.exists():
        before = json.loads(path.read_text())
        same = all(_lasting(before)[name] == value for name, value in _lasting(bench).items())
        bench |= {"machine": before["machine"], "results": before["results"]} if same else {}
    return bench


def _lasting(bench: report.Bench) -> dict[str, Any]:
    """What must be the same for numbers to stand in one table."""
    facts = {name: bench["machine"][name] for name in ("processor", "threads", "packages")}
    return {**facts, "rounds": bench["rounds"], "quick": bench["quick"]}


def _keep(bench: report.Bench, benchmark: str, results: list[Result], out: Path) -> None:
    """Put results in the place of older ones of the same benchmark, and write bench.json at once."""
    others = [one for one in bench["results"] if one["benchmark"] != benchmark]
    order = list(BENCHMARKS)
    new = [{"benchmark": benchmark, **asdict(result)} for result in results]
    bench["results"] = sorted([*others, *new], key=lambda one: order.index(one["benchmark"]))
    (out / "bench.json").write_text(json.dumps(bench, indent=1, default=float) + "\n")


def quiet() -> None:
    """Only what the benchmarks say themselves."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")


def main() -> None:
    """Entry point: what a user can act on is one message."""
    try:
        app()
    except WeftError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
