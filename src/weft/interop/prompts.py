"""A task's prompt for other programs: as NumPy holds it, with what is needed to use it."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from weft import runs, storage
from weft.errors import ArtifactError, UnsupportedError, did_you_mean
from weft.runs import Run, parents
from weft.runs.workspace import Workspace

CHAT = "the text is a user's turn in the model's chat template, with the assistant's header behind it"
HOW = {
    "prefix": "inputs_embeds = concatenate(prompt, embeddings of the text's tokens); the answer comes next",
    "suffix": "inputs_embeds = concatenate(embeddings of the text's tokens, prompt); the answer comes next",
}


def prompt_of(run: Run, task: str, workspace: Workspace) -> Tensor:
    """One task's prompt, composed, `[P, D]`.

    Raises:
        UnsupportedError: if the run changes weights, or its prompt depends on the text.
        ArtifactError: if the run has no such task.
    """
    model = parents.tuned(run, workspace)
    if model.prompts is None:
        raise UnsupportedError("the run changes weights and has no prompt", where=str(run.path))
    if model.prompts.reads_texts:
        raise UnsupportedError(
            "the run has no prompt that goes before every text, as PEFT's does",
            where=str(run.path),
            fix="export a run of another method",
        )
    if task not in model.tasks:
        raise ArtifactError(
            f"the run has no task {task!r}", where=str(run.path), fix=did_you_mean(task, model.tasks)
        )
    with torch.no_grad():
        number = torch.tensor([model.tasks.index(task)], device=model.backbone.device)
        found: Tensor = model.prompts(number)[0].float().cpu()
    return found


def to_numpy(name: str, task: str, folder: Path, workspace: Workspace) -> Path:
    """Write `prompt.npy`, float32 `[P, D]`, and `prompt.json`, which says how it is used; wherever it stands.

    Args:
        name: a run's id or folder.
        task: one of its tasks.
        folder: where the two files go.

    Raises:
        UnsupportedError: as `prompt_of`.
        ArtifactError: as `prompt_of`.
    """
    run = runs.find(workspace.root, name)
    config = workspace.config_of(run)
    prompt, place = prompt_of(run, task, workspace), workspace.position(config)
    [spec] = [one.written() for one in config.tasks if one.name == task]
    about = {
        "base": workspace.base(config).origin,
        "base_hash": workspace.base(config).hash,
        "position": place,
        "how": HOW[place],
        "text": spec.source,
        "source_tokens": config.limits.tokens(task),
        "labels": spec.labels,
        **({"chat": CHAT} if config.base.chat else {}),
        "run": run.id,
    }
    data = io.BytesIO()
    np.save(data, prompt.numpy())
    storage.write_bytes(folder / "prompt.npy", data.getvalue())
    storage.write_text(folder / "prompt.json", json.dumps(about, indent=2, ensure_ascii=False))
    return folder
