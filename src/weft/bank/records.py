"""Records of readers: what a method kept of one task, as bytes; arrays that tasks share lie beside them.

A record is a safetensors file whose one metadata entry, `weft`, is JSON: what was noted of the task.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from weft import storage
from weft.bank.forms import Numbers
from weft.errors import ArtifactError
from weft.methods.method import Saved
from weft.storage import tensor_header

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 64 << 20  # bytes
LARGEST_HEADER = 1 << 20


def record(tensors: "Mapping[str, Tensor]", notes: Any) -> bytes:
    """What is kept of one task, as bytes.

    Args:
        tensors: its own, by names without its number.
        notes: what is noted of it.
    """
    from safetensors.torch import save

    own = {name: value.contiguous() for name, value in tensors.items()}
    data: bytes = save(own, metadata={"weft": storage.canonical_json(notes).decode()})
    return data


def kept(data: bytes, task: str, shared: Mapping[str, Numbers]) -> Saved:
    """What a method restores the task from, as number 0 under a name of its own.

    Args:
        data: a record whose hash was checked.
        task: the name.
        shared: arrays that it shares with other tasks, by name.
    """
    from safetensors.torch import load

    tensors = {f"0.{name}": value for name, value in load(data).items()}
    return Saved(tensors | _tensors(shared), {task: notes_of(data)})


def _tensors(arrays: Mapping[str, Numbers]) -> "dict[str, Tensor]":
    """NumPy arrays as tensors of their own."""
    from safetensors.numpy import save
    from safetensors.torch import load

    return dict(load(save(dict(arrays)))) if arrays else {}


def notes_of(data: bytes) -> Any:
    """What a record notes of its task.

    Raises:
        ArtifactError: if it is no record, or a number of it is none.
    """
    try:
        lines, start = tensor_header.header(data, LARGEST_HEADER)
        notes = storage.strict_json(lines.pop("__metadata__")["weft"].encode())
        for name, line in lines.items():
            entry = tensor_header.entry_of(line, tensor_header.WITH_BYTES)
            if entry.dtype != "U8":
                tensor_header.largest(tensor_header.numbers_of(data, start, entry), name)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"this is no record of readers: {error}", code="A04") from None
    return notes
