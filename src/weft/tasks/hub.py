"""Rows of a Hugging Face data set by its name, through `datasets`."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from weft.config.base import Split
from weft.config.task import HubConfig
from weft.errors import ConfigError, DataError
from weft.storage import sha256_json
from weft.tasks.task import Row


@dataclass(frozen=True)
class HubRows:
    """The rows of one task on the hub.

    Args:
        task: the task's name.
        config: where its rows are.
    """

    task: str
    config: HubConfig

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that are there."""
        return tuple(self.config.splits)

    def where(self, split: Split) -> str:
        """A split's place, for messages."""
        name = f" {self.config.name}" if self.config.name else ""
        return f"data set {self.config.path}{name}, split {self.config.splits.get(split, split)}"

    def rows(self, split: Split) -> list[Row]:
        """All rows of a split.

        Raises:
            ConfigError: if `datasets` is not installed.
            DataError: if the data set cannot be had, or the split does not exist.
        """
        if split not in self.config.splits:
            raise DataError(
                f"task {self.task!r} has no {split} rows",
                where=f"task {self.task} (hub.splits)",
                fix=f"name a split for {split!r}; it has {', '.join(self.config.splits)}",
                code="D13",
            )
        found: list[Row] = self._load(split).to_list()
        if not found:
            raise DataError("the split has no rows", where=self.where(split), code="D13")
        return found

    def hash(self, split: Split) -> str:
        """SHA-256 of a split's rows as canonical JSON, and of how splits are made of them."""
        try:
            return sha256_json([self.config.holdout, self.rows(split)])
        except (TypeError, ValueError) as error:
            raise DataError(
                f"a column is no text, number or list: {error}", where=self.where(split), code="D05"
            ) from None

    def _load(self, split: Split) -> Any:
        try:
            from datasets import load_dataset
            from datasets.exceptions import DatasetsError
        except ImportError:
            raise ConfigError(
                f"task {self.task!r} is to be read from the hub, and the package 'datasets' is not installed",
                where=f"task {self.task} (hub)",
                fix="pip install 'weft[hub]', or give a folder of data with --data FOLDER or WEFT_DATA",
                code="C24",
            ) from None
        place = self.config
        if not Path(place.path).is_dir() and not _reachable():
            raise DataError(
                "the hub cannot be reached",
                where=self.where(split),
                fix="give a folder of data with --data or WEFT_DATA; HF_HUB_OFFLINE=1 uses what is there",
                code="C24",
            )
        try:
            return load_dataset(place.path, place.name, split=place.splits[split], revision=place.revision)
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"the data set cannot be read: {cause}",
                where=self.where(split),
                fix="check its name and the network, or give a folder of data with --data FOLDER",
                code="C24",
            ) from None


@cache
def _reachable() -> bool:
    """Whether the hub answers; asked once, because its client tries for half a minute, every time."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return True  # what was downloaded before is all that is wanted
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever the client of the day raises
        return False
    return True
