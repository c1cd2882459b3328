"""What the benchmarks found: a table for the terminal, and docs/performance.md, both from bench.json."""

import json
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS, Goal
from benchmarks.machine import KINDS
from benchmarks.measure import Spread

Bench = dict[str, Any]
NAME, CELL = 37, 10
INTRO = """# Performance

Printed by the program (`weft bench --write-docs`) from [`{json}`]({json}), which has the
seconds of every round; nothing here is typed by hand. Every line is the median of rounds that took both sides
in turn in one process, with the smallest and the largest; a ratio is taken round by round. The peer's code is
`benchmarks/peers.py`: PEFT's prompts on a stock transformers model, padded to each batch's longest text, one
prompt module, answers written with a cache in batches of like length. A GPU has a script of its own
(`python -m benchmarks.gpu`); none was at hand here.
"""
LIMITS = """
## What a count of multiplications allows

A frozen model's step or answer costs about the tokens that go through it. Where the count allows less than a
goal, no program reaches the goal at these lengths:

- *Closed answers*: PEFT reads `text + prompt` and writes a token or two; weft reads the same and writes none.
  With 24 tokens of text, a prompt of 16 and two written tokens that is 42 to 40, or 1.05x. What weft has
  beyond that are batches of like length, which the line "texts as they come" shows.
- *Ten tasks on the same texts*: PEFT reads `10 (text + prompt + answer)`, weft `text + 10 prompt`. With 24
  tokens of text that is 2.3x at a prompt of 16 and 3.3x at 8; 5x at 16 needs texts of about 125 tokens.
- *One text under many tasks*: of 100 requests with a text of 200 tokens and a prompt of 16 behind it, apart
  100 x 216 tokens are read, together 200 + 100 x 16: 12x.
- *Distillation with a live teacher*: a student's step is a forward pass and a backward pass of the same size,
  the teacher's forward pass one more: 1.5x. Less than that only where its part is kept (cached states).
- *Teachers together*: here a product of 256 tokens, one teacher's step, already runs at nine tenths of the
  rate of a product of 1,024.
"""


def table(bench: Bench) -> str:
    """Goals and what was found, at most 80 columns wide."""
    lines = [f"{'':{NAME}}{'found':>{CELL}}{'range':>{CELL + 3}}{'goal':>{CELL - 1}}{'stretch':>{CELL - 1}}"]
    lines += ["".join(_cells(result, bench)).rstrip() for result in bench["results"]]
    return "\n".join([*lines, *(["a quick run: its numbers mean nothing"] if bench["quick"] else [])])


def _cells(result: Bench, bench: Bench) -> list[str]:
    name, found, spread, goal, stretch = row(result, bench)
    widths = (CELL, CELL + 3, CELL - 1, CELL - 1)
    cells = zip((found, spread, goal, stretch), widths, strict=True)
    return [f"{name[: NAME - 1]:{NAME}}", *(f" {cell:>{width - 1}}" for cell, width in cells)]


def row(result: Bench, bench: Bench) -> tuple[str, str, str, str, str]:
    """What is compared, the median, the range, the goal and the stretch, as text."""
    goal, spread = GOALS.get(result["name"]), Spread.of(result["values"])
    unit = goal.unit if goal else result["unit"]
    low, high = (_value(one, unit) for one in (spread.low, spread.high))
    found, between = _value(spread.median, unit), f"{low}-{high}" if len(result["values"]) > 1 else ""
    if goal is None:
        return result["name"], found, between, "", ""
    kind = kind_of(bench)
    mark = "" if goal.met(spread.median, kind) else " !"
    return goal.text, found + mark, between, _goal(goal, goal.goals[kind]), _goal(goal, goal.stretch[kind])


def kind_of(bench: Bench) -> int:
    """Which column of the goals holds: 0 with bf16 units, 1 without."""
    return list(KINDS.values()).index(bench["machine"]["kind"])


def _goal(goal: Goal, value: float | None) -> str:
    """A goal with its side; nothing where there is none."""
    return "" if value is None else f"{'<=' if goal.most else '>='} {_value(value, goal.unit)}"


def _value(value: float, unit: str) -> str:
    """A number in its unit."""
    if unit == "share":
        return f"{value:.0f} %"
    if unit == "count":
        return f"{value:,.0f}"
    if unit in ("ms", "KB", "GB"):
        return f"{value:.2f} {unit}"
    return f"{value:.{0 if value >= 10 else 1}f} s" if unit == "s" else f"{value:.2f}x"


def facts(machine: Bench) -> list[str]:
    """What the machine is, a fact a line."""
    rates = ", ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in machine["rates"].items())
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return [
        f"processor: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads",
        f"features: {', '.join(machine['features']) or 'none of note'}",
        f"products of 512-square matrices: {rates} ({machine['kind']})",
        f"versions: Python {machine['python']}, {packages}",
    ]


def document(bench: Bench, name: str) -> str:
    """A page of docs, which is printed from the JSON file of a name."""
    lines = [INTRO.format(json=name), *(f"- {fact}" for fact in facts(bench["machine"])), ""]
    lines += [
        f"Rounds: {bench['rounds']}.{' A quick run: its numbers mean nothing.' if bench['quick'] else ''}",
        "",
    ]
    lines += ["| | found | range | goal | stretch |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(row(result, bench))} |" for result in bench["results"]]
    lines += [
        "",
        "`!`: the goal is not met. Lines without a goal are there to compare.",
        *(LIMITS.splitlines() if any(one["benchmark"] == "closed" for one in bench["results"]) else []),
        "",
        "## Conditions",
        "",
    ]
    lines += [
        f"- **{row(result, bench)[0]}**: {result['conditions']}{_checks(result)}."
        for result in bench["results"]
    ]
    if any(result["name"] == "linear" for result in bench["results"]):
        lines += ["", "![seconds a step over batch times length](performance-linear.png)"]
    return "\n".join(lines) + "\n"


def _checks(result: Bench) -> str:
    checks = [f"{name} {_short(value)}" for name, value in result["checks"].items()]
    return f" ({'; '.join(checks)})" if checks else ""


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write(bench: Bench, path: Path) -> None:
    """Write a page of docs, and beside it the values of every round that it is printed from."""
    beside = path.with_suffix(".json")
    path.write_text(document(bench, beside.name))
    beside.write_text(json.dumps(bench, indent=1) + "\n")
