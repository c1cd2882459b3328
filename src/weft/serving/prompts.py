"""The prompts of a batch's rows, composed where the model is. Of other tasks of a bank nothing is there."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from weft.bank import Entry, Snapshot
from weft.models import Backbone, CausalBackbone
from weft.models.caches import KV, filled, joined
from weft.prompts.bank import compose
from weft.serving.kept import Kept

GROUPS = 16  # whose shared prompts are kept where the model is


@dataclass(frozen=True)
class Asked:
    """A task of a generation of a bank."""

    snapshot: Snapshot
    entry: Entry

    @property
    def key(self) -> tuple[str, str]:
        """Names its numbers by their hashes, whatever generation they are of."""
        return self.entry.group, self.entry.sha256


class RowPrompts:
    """Prompts of rows.

    Args:
        backbone: the model.
        kept_bytes: of keys and values of prompts, on a causal model whose prompts stand before the text.
    """

    def __init__(self, backbone: Backbone, kept_bytes: int) -> None:
        self.backbone = backbone
        self.read = Kept[KV](kept_bytes, _bytes)
        self._shared = Kept[Tensor](GROUPS)

    def stacked(self, rows: Sequence[Asked]) -> tuple[Float[Tensor, "B P D"], Int[Tensor, "B P"]]:
        """The prompt of each row, and which of its vectors count."""
        own = {one.key: one for one in rows}
        prompts = dict(zip(own, self._composed(list(own.values())), strict=True))
        longest = max(map(len, prompts.values()))
        whole = torch.stack([filled(one, longest, 0, left=True) for one in prompts.values()])
        place = {key: i for i, key in enumerate(prompts)}
        return whole[[place[one.key] for one in rows]], self._mask([len(prompts[one.key]) for one in rows])

    def keys_and_values(self, rows: Sequence[Asked]) -> tuple[KV, Int[Tensor, "B P"]]:
        """Those of each row's prompt, and which of its positions count.

        A prompt is read once, while there is room, and alone: its numbers depend on no other task.
        """
        assert isinstance(self.backbone, CausalBackbone)
        parts = [self.read.get(one.key, lambda one=one: self._read(one)) for one in rows]  # type: ignore[misc]
        lengths = [_length(part) for part in parts]
        return joined(parts, max(lengths), left=True), self._mask(lengths)

    def _read(self, one: Asked) -> KV:
        assert isinstance(self.backbone, CausalBackbone)
        return self.backbone.read_prompt(self._composed([one])[0])

    def _mask(self, lengths: Sequence[int]) -> Tensor:
        places = torch.arange(max(lengths), device=self.backbone.device)
        missing = max(lengths) - torch.tensor(lengths, device=self.backbone.device)
        return (places >= missing[:, None]).long()

    def _composed(self, tasks: Sequence[Asked]) -> list[Tensor]:
        """The prompt `[P, D]` of each task; those of one group at once."""
        found: dict[int, Tensor] = {}
        groups: dict[tuple[int, str], list[int]] = defaultdict(list)
        for i, one in enumerate(tasks):
            if one.entry.kind == "factors":
                groups[id(one.snapshot), one.entry.group].append(i)
            else:
                found[i] = self._there(one.snapshot.prompt(one.entry))
        for places in groups.values():
            some = [tasks[i] for i in places]
            u, v = some[0].snapshot.factors([one.entry for one in some])
            whole = compose(self._shared_of(some[0]), self._there(u), self._there(v))
            found |= zip(places, whole, strict=True)
        return [found[i] for i in range(len(tasks))]

    def _shared_of(self, one: Asked) -> Tensor:
        group = one.entry.group
        return self._shared.get(group, lambda: self._there(one.snapshot.shared(group)))

    def _there(self, numbers: object) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self.backbone.device)


def _bytes(kept: KV) -> int:
    return sum(part.nbytes for layer in kept for part in layer)


def _length(kept: KV) -> int:
    return int(kept[0][0].shape[2])
