"""Tensors that a run kept of a method, held against the shapes that the method needs."""

from collections.abc import Mapping

from torch import Tensor

from weft.errors import ArtifactError


def check_shapes(tensors: Mapping[str, Tensor], axes: Mapping[str, str], **sizes: int) -> None:
    """Refuse tensors of other names or shapes.

    Args:
        tensors: by name.
        axes: name -> one letter for each axis; equal letters are equal sizes.
        sizes: sizes of letters that are known; the others are taken from the tensors.

    Raises:
        ArtifactError: naming the tensor, with both shapes.
    """
    if tensors.keys() != axes.keys():
        given, wanted = ", ".join(sorted(tensors)), ", ".join(sorted(axes))
        raise ArtifactError(f"the run kept {given[:80] or 'nothing'}; its method needs {wanted}", code="A07")
    for name, letters in axes.items():
        shape = tuple(tensors[name].shape)
        known = dict(zip(letters, shape, strict=False)) | sizes
        expected = tuple(known.get(letter, 0) for letter in letters)
        if shape != expected or 0 in shape:
            raise ArtifactError(
                f"{name!r} is {list(shape)}, and should be {list(expected)} ({', '.join(letters)})",
                fix="use the base model and the tasks of the run (its config.yaml)",
                code="A07",
            )
        sizes = known
