"""Prompts as other programs leave them: PEFT's adapters, arrays of NumPy, tensors of torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weft import storage
from weft.errors import ArtifactError, UnsupportedError
from weft.prompts.bank import compose
from weft.storage.prompt_files import ADAPTER, CONFIG, FORMS, MULTITASK, PLAIN


def read_prompt(path: Path, number: int = 0) -> Float[Tensor, "P D"]:
    """A prompt of any of these forms, in float32.

    Args:
        path: a file with one array `[P, D]`, or the folder of a PEFT adapter. Of one that PEFT made for an
            encoder-decoder with its default of two parts, the encoder's is taken: PEFT's own `generate` does
            not read the other.
        number: of a multitask adapter of PEFT, which of its tasks; its prompt is composed.

    Raises:
        ArtifactError: if there is no prompt, or not one array of two axes with finite numbers.
        UnsupportedError: for a form, or a kind of adapter, that holds none.
    """
    readers: dict[str, Callable[[Path], object]] = {
        ".npy": lambda file: torch.from_numpy(np.load(file, allow_pickle=False)),
        ".pt": _of_torch,
        ".bin": _of_torch,
        ".safetensors": _tensors,
    }
    if not path.is_dir() and path.suffix not in readers:
        raise UnsupportedError(
            f"{path.name!r} is no form of a prompt", fix=f"give a file {FORMS}", code="C08"
        )
    try:
        prompt = _of_peft(path, number) if path.is_dir() else _only(readers[path.suffix](path), path)
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        line = " ".join(str(error).split())[:200]
        raise ArtifactError(f"the file holds no arrays that weft reads: {line}", where=str(path)) from None
    return _checked(prompt, path)


def _of_torch(path: Path) -> object:
    """No code in the file is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ValueError("it holds more than arrays, such as code, which is not run") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return found


def _only(found: object, path: Path) -> Tensor:
    """The one array of two axes."""
    arrays = found if isinstance(found, Mapping) else {"": found}
    flat = [one for one in arrays.values() if isinstance(one, Tensor) and one.ndim == 2]
    if len(flat) != 1:
        raise ArtifactError(
            f"the file holds {len(flat)} arrays of two axes, and a prompt is one", where=str(path), code="A07"
        )
    return flat[0]


def _of_peft(path: Path, number: int) -> Tensor:
    """The prompt that an adapter puts before a text."""
    said = storage.read_json(path / CONFIG)
    kind, length = said.get("peft_type"), int(said.get("num_virtual_tokens") or 0)
    if kind not in (PLAIN, MULTITASK):
        raise UnsupportedError(
            f"an adapter of type {kind} is no prompt that stands before a text",
            where=str(path),
            fix=f"give one of type {PLAIN} or {MULTITASK}",
            code="C08",
        )
    tensors = _tensors(path / ADAPTER)
    whole = tensors["prompt_embeddings"]
    if kind == MULTITASK:
        columns, rows = tensors["prefix_task_cols"], tensors["prefix_task_rows"]
        if not 0 <= number < len(columns):
            raise ArtifactError(
                f"the adapter has {len(columns)} tasks, and no number {number}", where=str(path), code="A07"
            )
        whole = compose(whole.float(), columns[number].float(), rows[number].float())
    return whole[: length or None]


def _checked(prompt: Tensor, path: Path) -> Float[Tensor, "P D"]:
    if prompt.ndim != 2 or 0 in prompt.shape or not bool(prompt.isfinite().all()):
        raise ArtifactError(
            f"a prompt has two axes and finite numbers, and this is {list(prompt.shape)}",
            where=str(path),
            code="A07",
        )
    return prompt.detach().float().contiguous()
