"""What this machine runs fastest: measured once for a folder of runs, noted there, and reused by all."""

import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState

from weft import storage
from weft.models import Choice, Precision, probe, probe_attention, probe_products
from weft.models.base_folder import BaseFolder
from weft.models.parts import part_tokens

NOTES = ".experiments"


@dataclass
class Machine:
    """The choices of a machine, as a folder of runs notes them.

    Args:
        root: the folder of runs.
    """

    root: Path
    _precision: Precision | None = None
    _choices: dict[str, Choice] = field(default_factory=dict)

    def precision(self) -> Precision:
        """The faster number format, and the matrix rates it rests on."""
        if self._precision is None and self.rates.is_file():
            self._precision = Precision(**storage.read_json(self.rates))
        self._precision = self._precision or probe(PartialState().device)
        return self._precision

    def attention(self, base: BaseFolder, dtype: str, *, suffix: bool) -> str:
        """The fastest attention for a base model in a number format."""
        device, kind = PartialState().device, getattr(torch, dtype)
        key = f"{base.hash[:16]}-{dtype}-{'suffix' if suffix else 'prefix'}"
        return self._choice(key, lambda: probe_attention(base.reader, device, kind, suffix=suffix))

    def products(self, base: BaseFolder, dtype: str) -> str:
        """The fastest products with a base model's weights in a number format."""
        device, kind = PartialState().device, getattr(torch, dtype)
        key = f"{base.hash[:16]}-{dtype}-products"
        return self._choice(key, lambda: probe_products(base.width, base.bytes, device, kind))

    def _choice(self, key: str, measure: Callable[[], Choice]) -> str:
        """What was measured before for a folder of runs, or is measured now."""
        if not self._choices and self.times.is_file():
            noted = storage.read_json(self.times)
            self._choices = {name: Choice(**value) for name, value in noted.items()}
        if key not in self._choices:
            self._choices[key] = measure()
        return self._choices[key].name

    @property
    def part_tokens(self) -> int:
        """How many tokens of a training step fill the device."""
        return part_tokens(PartialState().device)

    @property
    def measured(self) -> tuple[Precision | None, dict[str, Choice]]:
        """What was measured or read so far; it can be set to what another machine measured."""
        return self._precision, self._choices

    @measured.setter
    def measured(self, found: tuple[Precision | None, dict[str, Choice]]) -> None:
        self._precision, self._choices = found

    def note(self) -> dict[str, int]:
        """Write down what was measured.

        Returns:
            The rates, if they were: number format -> GFLOP/s.
        """
        if self._choices:
            storage.write_json(self.times, {key: asdict(one) for key, one in self._choices.items()})
        if self._precision is None:
            return {}
        if not self.rates.is_file():
            storage.write_json(self.rates, asdict(self._precision))
        return {name: round(rate) for name, rate in self._precision.rates.items()}

    @property
    def rates(self) -> Path:
        """Where the matrix rates are noted."""
        return self.root / NOTES / f"rates-{socket.gethostname()}.json"

    @property
    def times(self) -> Path:
        """Where choices and their times are noted, by base model, number format and what is chosen."""
        return self.root / NOTES / f"times-{socket.gethostname()}.json"
