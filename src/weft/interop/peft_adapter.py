"""Exchange with PEFT: prompts as two-file adapters that stock PEFT loads."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch

from weft import runs, storage
from weft.config.model import BaseConfig
from weft.errors import UnsupportedError
from weft.interop.prompts import prompt_of
from weft.models.base_folder import BaseFolder
from weft.runs.config import AnyRun
from weft.runs.workspace import Workspace
from weft.storage.prompt_files import ADAPTER, CONFIG, MULTITASK, PLAIN

POSITION = "train with prompt.position: prefix"  # the remedy where there is a configuration


def note(configs: Iterable[AnyRun], workspace: Workspace, remedy: str = POSITION) -> list[str]:
    """That PEFT will not hold the prompts of these runs, in one line; none where it will, or holds nothing.

    Args:
        configs: runs; those that are finished, or train no prompt of their own, count for nothing.
        workspace: where.
        remedy: what to do for prompts that PEFT holds.
    """
    for config in configs:
        method = config.made_by
        trains = method is not None and method.shares_batches  # prompts alone, the same for every text
        if trains and workspace.position(config) == "suffix" and not workspace.run(config).done:
            place = "note: prompts will stand after the text, where PEFT cannot hold any"
            return [f"{place}: {remedy}, or weft export --to numpy"]
    return []


def to_peft(
    name: str, task: str, folder: Path, workspace: Workspace, known_as: BaseConfig | None = None
) -> Path:
    """Write `adapter_config.json` and `adapter_model.safetensors` for one task of a run.

    The prompt is composed (P* o (u v)), because PEFT would serve P* alone for its own multitask format.
    `num_transformer_submodules` is 1: the default of 2 would hold as many vectors again, which nobody reads.

    Args:
        name: a run's id or folder.
        task: one of its tasks.
        folder: where the two files go.
        known_as: the base model as others know it; none: by its folder here.

    Raises:
        UnsupportedError: for a suffix prompt, which PEFT cannot place, and as `prompt_of`.
        ArtifactError: as `prompt_of`.
    """
    run = runs.find(workspace.root, name)
    base = _base_of(run, workspace)
    prompt = prompt_of(run, task, workspace)
    said = _adapter_config(base, prompt, PLAIN)
    if known_as is not None:
        said |= {"base_model_name_or_path": known_as.model, "revision": known_as.revision}
    return _written(folder, {"prompt_embeddings": prompt}, said)


def to_peft_multitask(name: str, folder: Path, workspace: Workspace) -> Path:
    """Write all tasks of a run with a shared prompt as one MULTITASK_PROMPT_TUNING adapter.

    `task_ids` of PEFT's `forward` and `generate` are numbers of tasks, in the order of `tasks.json`.

    Args:
        name: a run's id or folder.
        folder: where the files go.

    Raises:
        UnsupportedError: for suffix prompts, which PEFT cannot place, and for runs without a shared prompt.
    """
    run = runs.find(workspace.root, name)
    base, made_by = _base_of(run, workspace), workspace.config_of(run).made_by
    if made_by is None or made_by.keeps != "bank":
        raise UnsupportedError(
            "the run has no shared prompt with factors",
            where=str(run.path),
            fix="export its tasks one by one: weft export RUN TASK OUT",
        )
    kept = run.tensors()
    shared, u, v = kept["shared"], kept["u"], kept["v"]
    tensors = {"prompt_embeddings": shared, "prefix_task_cols": u, "prefix_task_rows": v}
    tasks = [task.name for task in run.config().tasks]
    storage.write_text(folder / "tasks.json", json.dumps(tasks, ensure_ascii=False, indent=2))
    more = {"num_tasks": len(u), "num_ranks": u.shape[2]}
    return _written(folder, tensors, _adapter_config(base, shared, MULTITASK) | more)


def _base_of(run: runs.Run, workspace: Workspace) -> BaseFolder:
    """The base model of a run, whose prompts stand where PEFT can put them.

    Raises:
        UnsupportedError: if they stand after the text.
    """
    config = workspace.config_of(run)
    if workspace.position(config) == "suffix":
        raise UnsupportedError(
            "PEFT puts prompts before the text, and this one was trained after it",
            where=f"{run.path}/config.yaml (prompt.position)",
            fix="export it --to numpy; or train with prompt.position: prefix (weft learn --for peft)",
        )
    return workspace.base(config)


def _written(folder: Path, tensors: dict[str, torch.Tensor], said: dict[str, object]) -> Path:
    """An adapter's two files."""
    from safetensors.torch import save

    data = save({name: one.float().contiguous() for name, one in tensors.items()})
    storage.write_bytes(folder / ADAPTER, data)
    storage.write_text(folder / CONFIG, json.dumps(said, indent=2))
    return folder


def _adapter_config(base: BaseFolder, prompt: torch.Tensor, kind: str) -> dict[str, object]:
    """PEFT's description of a soft prompt."""
    shape = base.reader
    return {
        "peft_type": kind,
        "task_type": "SEQ_2_SEQ_LM" if base.family == "seq2seq" else "CAUSAL_LM",
        "base_model_name_or_path": str(base.path),
        "inference_mode": True,
        "num_virtual_tokens": prompt.shape[0],
        "token_dim": prompt.shape[1],
        "num_transformer_submodules": 1,
        "num_layers": shape.get("num_hidden_layers") or shape.get("num_layers") or shape.get("n_layer"),
        "num_attention_heads": shape.get("num_attention_heads")
        or shape.get("num_heads")
        or shape.get("n_head"),
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "tokenizer_name_or_path": None,
        "revision": None,
    }
