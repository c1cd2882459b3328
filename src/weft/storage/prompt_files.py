"""Files in which other programs leave a prompt: what they are called, and which they are. Needs no torch."""

from pathlib import Path

from weft.errors import ArtifactError
from weft.storage.hashing import sha256_file, sha256_json

CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"  # of a PEFT adapter
PLAIN, MULTITASK = "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING"  # its types
FORMS = ".npy, .pt, .bin or .safetensors, or the folder of a PEFT adapter"


def hash_of(path: Path) -> str:
    """SHA-256 of a prompt's file, or over the two files of an adapter.

    Raises:
        ArtifactError: if one is not there.
    """
    files = [path / CONFIG, path / ADAPTER] if path.is_dir() else [path]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ArtifactError(f"there is no file {str(missing)!r}", fix=f"give a prompt: {FORMS}", code="C12")
    hashes = [sha256_file(file) for file in files]
    return hashes[0] if len(hashes) == 1 else str(sha256_json(hashes))
