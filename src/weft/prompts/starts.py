"""From which known prompt each task starts. Loads without torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weft.errors import ConfigError


def picks(
    start: str,
    prompts: Mapping[str, Any],
    tasks: Sequence[str],
    nearest: Callable[[Mapping[str, Any], int], tuple[str, dict[str, float]]],
) -> dict[str, dict[str, object]]:
    """For each task the named prompt, or the one nearest to its training rows, and why.

    Args:
        start: a prompt's name, or `nearest`.
        prompts: the known prompts `[P, D]` by name.
        tasks: names of the tasks.
        nearest: of the prompts, the one under which a task's rows are likeliest, and every one's loss (nats).

    Raises:
        ConfigError: if there is no prompt of that name.
    """
    if start != "nearest" and start not in prompts:
        raise ConfigError(
            f"there is no prompt {start!r} to start from; known: {', '.join(prompts) or 'none'}",
            where="method.start",
        )
    if start != "nearest":
        return {name: {"from": start} for name in tasks}
    found = [nearest(prompts, number) for number in range(len(tasks))]
    return {name: {"from": pick, "losses": losses} for name, (pick, losses) in zip(tasks, found, strict=True)}
