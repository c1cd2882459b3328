"""What a run kept of a method, held against what the method needs. Loads without torch.

Damaged folders are refused here by what is wrong; `runs.parents` adds which folder it is.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from weft.errors import ArtifactError
from weft.methods.method import Saved, Setup
from weft.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

    from weft.evaluation.answering import TunedAnswerer


def check_shapes(tensors: "Mapping[str, Tensor]", axes: Mapping[str, Sequence[str]], **sizes: int) -> None:
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


def numbered(axes: Mapping[str, str], count: int) -> dict[str, list[str]]:
    """Axes for `check_shapes` where every task has tensors, and sizes, of its own: `0.bias` is `[C0]`."""
    return {
        f"{k}.{name}": [f"{letter}{k}" for letter in letters]
        for k in range(count)
        for name, letters in axes.items()
    }


def of_task(kept: Mapping[str, Any], task: Task) -> Any:
    """What was noted of a task.

    Raises:
        ArtifactError: if nothing was.
    """
    if task.name not in kept:
        raise ArtifactError(f"the run kept nothing of task {task.name!r}", code="A14")
    return kept[task.name]


def check_answers(answers: Sequence[str], task: Task) -> None:
    """Refuse answers that are none of a task's choices.

    Raises:
        ArtifactError: naming the first.
    """
    other = [one for one in answers if one not in task.choices] if task.choices else []
    if other:
        raise ArtifactError(
            f"the run kept the answer {other[0][:40]!r}, which task {task.name!r} does not have", code="A14"
        )


def check_once(what: str, values: Sequence[str], task: Task) -> None:
    """Refuse a list in which something stands twice.

    Raises:
        ArtifactError: saying of what.
    """
    if len(set(values)) < len(values):
        raise ArtifactError(f"the run kept one of the {what} of task {task.name!r} twice", code="A14")


def with_kept_prompts(setup: Setup, saved: Saved) -> "TunedAnswerer":
    """The model under the plain prompts that a run kept, one for each task."""
    from weft.evaluation.answering import TunedAnswerer
    from weft.models.tuned import restored
    from weft.prompts.bank import SoftPrompts

    prompts = SoftPrompts(saved.tensors["prompts"], setup.names)
    return TunedAnswerer(restored(setup.backbone, prompts), setup.tasks, setup.source_tokens)
