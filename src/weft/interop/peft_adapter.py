"""Exchange with PEFT: a task's prompt as a two-file PROMPT_TUNING adapter that stock PEFT loads."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch

from weft import runs, storage
from weft.errors import UnsupportedError
from weft.interop.prompts import prompt_of
from weft.models.base_folder import BaseFolder
from weft.runs.config import AnyRun
from weft.runs.workspace import Workspace

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


def to_peft(name: str, task: str, folder: Path, workspace: Workspace) -> Path:
    """Write `adapter_config.json` and `adapter_model.safetensors` for one task of a run.

    The prompt is composed (P* o (u v)), because PEFT would serve P* alone for its own multitask format.
    `num_transformer_submodules` is 1: the default of 2 would also train, and never use, a decoder prompt.

    Args:
        name: a run's id or folder.
        task: one of its tasks.
        folder: where the two files go.

    Raises:
        UnsupportedError: for a suffix prompt, which PEFT cannot place, and as `prompt_of`.
        ArtifactError: as `prompt_of`.
    """
    from safetensors.torch import save

    run = runs.find(workspace.root, name)
    config = workspace.config_of(run)
    if workspace.position(config) == "suffix":
        raise UnsupportedError(
            "PEFT puts prompts before the text, and this one was trained after it",
            where=f"{run.path}/config.yaml (prompt.position)",
            fix="export it --to numpy; or train with prompt.position: prefix (weft learn --for peft)",
        )
    prompt = prompt_of(run, task, workspace)
    storage.write_bytes(
        folder / "adapter_model.safetensors", save({"prompt_embeddings": prompt.contiguous()})
    )
    base = workspace.base(config)
    storage.write_text(folder / "adapter_config.json", json.dumps(_adapter_config(base, prompt), indent=2))
    return folder


def _adapter_config(base: BaseFolder, prompt: torch.Tensor) -> dict[str, object]:
    """PEFT's description of a plain soft prompt."""
    shape = base.reader
    return {
        "peft_type": "PROMPT_TUNING",
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
