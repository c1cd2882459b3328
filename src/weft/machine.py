"""What this machine runs fastest: measured once for a folder of runs, noted there, and reused by all."""

import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState

from weft import storage
from weft.backbone import Attention, Precision, probe, probe_attention
from weft.bases import BaseFolder
from weft.training import part_tokens

NOTES = ".experiments"


@dataclass
class Machine:
    """The choices of a machine, as a folder of runs notes them.

    Args:
        root: the folder of runs.
    """

    root: Path
    _precision: Precision | None = None
    _attention: dict[str, Attention] = field(default_factory=dict)

    def precision(self) -> Precision:
        """The faster number format, and the matrix rates it rests on."""
        if self._precision is None and self.rates.is_file():
            self._precision = Precision(**storage.read_json(self.rates))
        self._precision = self._precision or probe(PartialState().device)
        return self._precision

    def attention(self, base: BaseFolder, dtype: str, *, suffix: bool) -> Attention:
        """The fastest attention for a base model in a number format."""
        if not self._attention and self.times.is_file():
            noted = storage.read_json(self.times)
            self._attention = {key: Attention(**value) for key, value in noted.items()}
        key = f"{base.hash[:16]}-{dtype}-{'suffix' if suffix else 'prefix'}"
        if key not in self._attention:
            kind, device = getattr(torch, dtype), PartialState().device
            self._attention[key] = probe_attention(base.reader, device, kind, suffix=suffix)
        return self._attention[key]

    @property
    def part_tokens(self) -> int:
        """How many tokens of a training step fill the device."""
        return part_tokens(PartialState().device)

    def note(self) -> dict[str, int]:
        """Write down what was measured.

        Returns:
            The rates, if they were: number format -> GFLOP/s.
        """
        if self._attention:
            storage.write_json(self.times, {key: asdict(one) for key, one in self._attention.items()})
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
        """Where the times of attention are noted, by base model, number format and position."""
        return self.root / NOTES / f"attention-{socket.gethostname()}.json"
