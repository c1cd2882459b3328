"""Whether this process was started as one of several at a training. Loads without torch."""

import os
from collections.abc import Mapping

from weft.errors import ConfigError, UnsupportedError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def started_together(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes were started for one training; 1 where nobody started several.

    Raises:
        ConfigError: if the environment speaks of several, and does not say how they find each other.
    """
    if "RANK" not in environment or environment.get("WORLD_SIZE", "1") == "1":
        return 1
    missing = [name for name in NEEDED if not environment.get(name)]
    numbers = [environment.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")]
    if missing or not all(one.isdecimal() for one in numbers) or int(numbers[0]) >= int(numbers[1]):
        raise ConfigError(
            f"the variables {', '.join(NEEDED)} do not say who works on this training"
            + (f": {', '.join(missing)} is missing" if missing else ""),
            fix="start all processes by torchrun or accelerate launch; or, for one process, unset RANK",
            code="C06",
        )
    return int(numbers[1])


def is_first() -> bool:
    """Whether this process is the first of those that were started, or the only one."""
    return started_together() == 1 or os.environ["RANK"] == "0"


def check_alone(what: str) -> None:
    """Refuse what is for one process.

    Raises:
        UnsupportedError: if several were started.
    """
    if (size := started_together()) > 1:
        raise UnsupportedError(
            f"{what} is for one process, and {size} were started",
            where=f"process {os.environ['RANK']}",
            fix="start it without torchrun or accelerate launch",
            code="C06",
        )
