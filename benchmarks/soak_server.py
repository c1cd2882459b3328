"""The server of a soak, as `weft serve` is, or one broken on purpose: soak_server BANK PORT [MUTANT]."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.soak_oracle import BASE
from weft.server.opening import open_engine
from weft.server.run import Place, serve
from weft.server.settings import ServeConfig
from weft.serving.requests import Response

SETTINGS = {"receive_seconds": 10, "hang_seconds": 20, "poll_seconds": 1, "deadline_seconds": 30}


def opened(path: Path, generation: int, other: Any) -> Any:
    """The engine as it is."""
    return open_engine(path, generation, other, base=str(BASE))


def with_other_prompts(path: Path, generation: int, other: Any) -> Any:
    """Every sixteenth batch, rows are answered under the prompt of their neighbour."""
    engine = opened(path, generation, other)
    if other is None:
        inner, count = engine.prompts.stacked, 0

        def stacked(rows: list[Any]) -> Any:
            nonlocal count
            count += 1
            return inner([*rows[1:], rows[0]] if count % 16 == 0 else rows)

        engine.prompts.stacked = stacked
    return engine


def with_crossed_answers(path: Path, generation: int, other: Any) -> Any:
    """Now and then two answers of a step change their contents, but not their ids, tasks and hashes."""
    engine = opened(path, generation, other)
    inner, count = engine.loop, 0

    def loop(**how: Any) -> Any:
        made = inner(**how)
        step = made.step

        def crossed() -> Any:
            nonlocal count
            found = step()
            answers = [i for i, one in enumerate(found) if isinstance(one, Response) and one.probabilities]
            count += len(answers) > 1
            if len(answers) > 1 and count % 16 == 0:
                one, two = found[answers[0]], found[answers[1]]
                found[answers[0]] = replace(one, probabilities=two.probabilities, written=two.written)
            return found

        made.step = crossed
        return made

    engine.loop = loop
    return engine


WAYS = {"": opened, "prompts": with_other_prompts, "answers": with_crossed_answers}


def main(path: str, port: str, mutant: str = "") -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.WARNING)
    serve(Path(path), WAYS[mutant], ServeConfig.model_validate(SETTINGS), Place("127.0.0.1", int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
