"""Whether the files of a model's folder are there and whole. Headers alone are read. Loads without torch."""

from pathlib import Path
from typing import Any

from weft.errors import ArtifactError, UnsupportedError
from weft.storage import read_json
from weft.storage.tensor_header import header_of

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HASHED = (".safetensors", ".json", ".model", ".txt")  # endings of files that can change an answer
OTHERS = (".bin", ".gguf", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx")  # weights that weft reads not
POINTER = b"version https://git-lfs."  # how a file begins that stands for one in Git LFS
DOWNLOAD = "download the model again; if it is whole elsewhere, compare the sizes of the files"


def check_folder(folder: Path) -> None:
    """Refuse a folder whose files were not downloaded, or whose weights are missing or cut.

    Raises:
        ArtifactError: naming the file, with the remedy.
        UnsupportedError: for an adapter.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in HASHED:
            check_there(file)
    if (folder / "adapter_config.json").exists():
        raise UnsupportedError(
            "the folder holds an adapter of PEFT, which would change the model that is read",
            where=str(folder / "adapter_config.json"),
            fix="merge it into its model and save that, or move the adapter's files elsewhere",
            code="A10",
        )
    for name in _weights(folder):
        check_whole(folder / name)


def check_there(file: Path) -> None:
    """Refuse a pointer of Git LFS, an empty file, and a link to nothing.

    Raises:
        ArtifactError: naming the file.
    """
    if not file.exists():
        raise ArtifactError("the file is missing", where=str(file), fix=DOWNLOAD, code="C24")
    with file.open("rb") as opened:
        begin = opened.read(len(POINTER))
    if begin == POINTER:
        raise ArtifactError(
            f"{file.name} is a pointer of Git LFS, not the file itself",
            where=str(file),
            fix="run 'git lfs pull' in the folder of the model, or download the file",
            code="C24",
        )
    if not begin and file.suffix != ".txt":
        raise ArtifactError(f"{file.name} is empty", where=str(file), fix=DOWNLOAD, code="C24")


def check_whole(file: Path) -> None:
    """Refuse a file of weights that is no safetensors file, or not all of one.

    Raises:
        ArtifactError: naming the file.
    """
    check_there(file)
    try:
        header_of(file)
    except ValueError as error:
        cause = f"{file.name} is no whole safetensors file: {error}"
        raise ArtifactError(cause, where=str(file), fix=DOWNLOAD, code="A04") from None


def read_settings(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model.

    Raises:
        ArtifactError: if there is none.
    """
    try:
        found = read_json(file)
    except ArtifactError as fault:
        raise ArtifactError(fault.cause, where=str(file), fix=DOWNLOAD, code="C24") from None
    if not isinstance(found, dict):
        raise ArtifactError(f"{file.name} holds no JSON object", where=str(file), fix=DOWNLOAD, code="C24")
    return found


def _weights(folder: Path) -> list[str]:
    """Names of the files that hold a model's numbers: one, or those that an index lists.

    Raises:
        ArtifactError: if there is neither, or a listed file is missing.
    """
    if (folder / WEIGHTS).exists():
        return [WEIGHTS]
    if not (folder / INDEX).exists():
        raise _no_weights(folder)
    listed = read_settings(folder / INDEX).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise ArtifactError(
            f"{INDEX} lists {len(names)} files of weights, and {len(missing)} are missing"
            + (f": {', '.join(missing[:3])}" if missing else ""),
            where=str(folder / INDEX),
            fix="download the missing files, or the model again",
            code="C24",
        )
    return names


def _no_weights(folder: Path) -> ArtifactError:
    """What to say of a folder without weights that weft reads."""
    others = [file for file in sorted(folder.iterdir()) if file.suffix in (*OTHERS, ".safetensors")]
    for file in others:
        check_there(file)
    beside = f"; it has {', '.join(file.name for file in others[:3])}" if others else ""
    return ArtifactError(
        f"the folder has no {WEIGHTS}{beside}",
        where=str(folder),
        fix="take a model with safetensors weights, or load this one in transformers and save it with "
        "save_pretrained, which writes them",
        code="C24",
    )
