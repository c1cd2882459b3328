"""What runs of a plan find read or set up by those before them: who comes first pays."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from weft.experiments.costs.texts import Texts
from weft.runs.config import AdaptRun, AnyRun

Draw = tuple[int, int | None, int | None] | None  # seed and counts of few shots; none: all rows


def draw_of(config: AnyRun) -> Draw:
    """Which rows a run draws of those that are there; runs that draw alike have the same ones."""
    if not isinstance(config, AdaptRun) or config.shots is config.shots_total is None:
        return None
    return config.seed, config.shots, config.shots_total


@dataclass
class _Read:
    """Rows of a split that were read: how many in the mean, and how many of each draw."""

    rows: float = 0.0
    asked: dict[Draw, float] = field(default_factory=dict)


@dataclass
class Before:
    """What was read, and what else was done before."""

    _read: dict[tuple[str, int], _Read] = field(default_factory=dict)
    _met: dict[Hashable, int] = field(default_factory=dict)

    def fresh(self, how: str, texts: Texts, rows: float, draw: Draw) -> float:
        """How many of some rows nobody has read so before, in the mean; they are noted.

        Rows of another draw are among them by chance.

        Args:
            how: by which model, bare or under prompts.
            texts: of the split.
            rows: how many are read.
            draw: which.
        """
        seen = self._read.setdefault((how, id(texts)), _Read())
        most, asked = float(texts.rows), seen.asked.get(draw, 0.0)
        more = max(0.0, min(rows, most) - asked)
        fresh = more * (most - seen.rows) / (most - asked) if more else 0.0
        seen.asked[draw], seen.rows = asked + more, seen.rows + fresh
        return fresh

    def met(self, what: Hashable, times: int) -> int:
        """How often something was there before, such as a batch; it is noted to come so many times more."""
        before = self._met.get(what, 0)
        self._met[what] = before + times
        return before
